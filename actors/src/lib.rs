//! Hubbub's behaviour: sessions, tenants, replies, LLM scheduling and supervision.
//!
//! No sockets, no SQL, no HTTP, no environment: those are ports, declared here and implemented by the
//! server. Every way in is a handle with deadlines; no raw address leaves this crate.

pub mod ports;
