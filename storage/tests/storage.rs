//! Storage on real PostgreSQL, as the role that owns nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a test says what is wrong by panicking, and a measurement by printing"
)]

#[path = "../../tests/support/postgres.rs"]
mod postgres;
#[path = "../../tests/support/watchdog.rs"]
mod watchdog;

#[path = "storage/append.rs"]
mod append;
#[path = "storage/as_sent.rs"]
mod as_sent;
#[path = "storage/fixture.rs"]
mod fixture;
#[path = "storage/fresh.rs"]
mod fresh;
#[path = "storage/isolation.rs"]
mod isolation;
#[path = "storage/ledger.rs"]
mod ledger;
#[path = "storage/migrate.rs"]
mod migrate;
#[path = "storage/outage.rs"]
mod outage;
#[path = "storage/prompts.rs"]
mod prompts;
#[path = "storage/tables.rs"]
mod tables;
#[path = "storage/throughput.rs"]
mod throughput;
#[path = "storage/tls.rs"]
mod tls;
