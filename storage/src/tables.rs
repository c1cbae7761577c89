//! The tables, a file each: their statements, and their rows as Rust values.

pub mod api_keys;
pub mod bots;
pub mod budgets;
pub(crate) mod leases;
pub(crate) mod ledger;
pub mod messages;
pub mod notes;
pub mod prices;
pub mod prompts;
pub mod replies;
pub mod sessions;
pub mod tenants;
pub mod tickets;
pub mod usage;
pub mod visitors;
