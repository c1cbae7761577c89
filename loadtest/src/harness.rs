//! The load harness: scenarios against a server's public interface, and what they promise to check.
//!
//! Everything runs on one thread: the harness shares its cores with the server it measures, and a
//! lock that is never contended is the cheapest.

pub mod api;
pub mod arrivals;
pub mod bench;
pub mod chats;
pub mod fanout;
pub mod flaky;
pub mod idle;
pub mod noisy;
pub mod overload;
pub mod process;
pub mod raw;
pub mod report;
pub mod rig;
pub mod run;
pub mod slow;
pub mod stats;
pub mod takeover;
pub mod target;
pub mod transcript;
pub mod wire;
