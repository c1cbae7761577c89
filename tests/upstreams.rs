//! What real upstreams send, and what it must come to: every shape in `upstreams/shapes`, given to the
//! decoder cut at every byte, to an upstream over a socket, and to a running server.
//!
//! A shape is one file: its response, byte for byte, under a head that says what is expected of it. To add
//! one, write the file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "a test says what is wrong by panicking, and measures in real time"
)]

#[path = "support/caller.rs"]
mod caller;
#[path = "support/client.rs"]
mod client;
#[path = "support/server.rs"]
mod server;
#[path = "support/watchdog.rs"]
mod watchdog;

#[path = "upstreams/attempted.rs"]
mod attempted;
#[path = "upstreams/decoded.rs"]
mod decoded;
#[path = "upstreams/peer.rs"]
mod peer;
#[path = "upstreams/served.rs"]
mod served;
#[path = "upstreams/shape.rs"]
mod shape;
