//! The server from outside: the real program, a real PostgreSQL, devices on real sockets. The upstreams
//! are simulated, so that answers are known in advance and can be spoiled on purpose.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test says what is wrong by panicking, and measures in real time"
)]

#[path = "support/caller.rs"]
mod caller;
#[path = "support/client.rs"]
mod client;
#[path = "support/pg_proxy.rs"]
mod pg_proxy;
#[path = "support/plain.rs"]
mod plain;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/program.rs"]
mod program;
#[path = "support/scripted.rs"]
mod scripted;
#[path = "support/server.rs"]
mod server;
#[path = "support/tenant.rs"]
mod tenant;
#[path = "support/watchdog.rs"]
mod watchdog;

#[path = "server/answers.rs"]
mod answers;
#[path = "server/as_sent.rs"]
mod as_sent;
#[path = "server/auth.rs"]
mod auth;
#[path = "server/auth_first.rs"]
mod auth_first;
#[path = "server/bodies.rs"]
mod bodies;
#[path = "server/chat.rs"]
mod chat;
#[path = "server/classes.rs"]
mod classes;
#[path = "server/commands.rs"]
mod commands;
#[path = "server/crash.rs"]
mod crash;
#[path = "server/customers.rs"]
mod customers;
#[path = "server/databases.rs"]
mod databases;
#[path = "server/dialects.rs"]
mod dialects;
#[path = "server/drain.rs"]
mod drain;
#[path = "server/draining.rs"]
mod draining;
#[path = "server/ends_paged.rs"]
mod ends_paged;
#[path = "server/floods.rs"]
mod floods;
#[path = "server/frames.rs"]
mod frames;
#[path = "server/handled_kills.rs"]
mod handled_kills;
#[path = "server/handshake.rs"]
mod handshake;
#[path = "server/homes.rs"]
mod homes;
#[path = "server/http.rs"]
mod http;
#[path = "server/kills.rs"]
mod kills;
#[path = "server/ledger.rs"]
mod ledger;
#[path = "server/leftovers.rs"]
mod leftovers;
#[path = "server/limits.rs"]
mod limits;
#[path = "server/members_only.rs"]
mod members_only;
#[path = "server/methods.rs"]
mod methods;
#[path = "server/metrics.rs"]
mod metrics;
#[path = "server/migrating.rs"]
mod migrating;
#[path = "server/notes.rs"]
mod notes;
#[path = "server/operations.rs"]
mod operations;
#[path = "server/origins.rs"]
mod origins;
#[path = "server/outage.rs"]
mod outage;
#[path = "server/positions.rs"]
mod positions;
#[path = "server/proxied.rs"]
mod proxied;
#[path = "server/raw.rs"]
mod raw;
#[path = "server/refusals.rs"]
mod refusals;
#[path = "server/resume.rs"]
mod resume;
#[path = "server/retry.rs"]
mod retry;
#[path = "server/revoked.rs"]
mod revoked;
#[path = "server/rushes.rs"]
mod rushes;
#[path = "server/sharing.rs"]
mod sharing;
#[path = "server/slow.rs"]
mod slow;
#[path = "server/speed.rs"]
mod speed;
#[path = "server/starting.rs"]
mod starting;
#[path = "server/strangers.rs"]
mod strangers;
#[path = "server/stream.rs"]
mod stream;
#[path = "server/takeover.rs"]
mod takeover;
#[path = "server/tenants.rs"]
mod tenants;
#[path = "server/tickets.rs"]
mod tickets;
#[path = "server/upstreams.rs"]
mod upstreams;
#[path = "server/usage.rs"]
mod usage;
#[path = "server/visitors.rs"]
mod visitors;
#[path = "server/widget.rs"]
mod widget;
