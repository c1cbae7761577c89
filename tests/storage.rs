//! Storage on real PostgreSQL, as the role that owns nothing.

#[path = "support/postgres.rs"]
mod postgres;

#[path = "storage/append.rs"]
mod append;
#[path = "storage/fixture.rs"]
mod fixture;
#[path = "storage/isolation.rs"]
mod isolation;
#[path = "storage/migrate.rs"]
mod migrate;
#[path = "storage/outage.rs"]
mod outage;
#[path = "storage/tables.rs"]
mod tables;
#[path = "storage/throughput.rs"]
mod throughput;
