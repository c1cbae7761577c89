//! The ports in memory, for tests on virtual time: a store that keeps every promise of
//! [`crate::ports::MessageStore`] and fails on demand, upstreams that follow a script, and devices
//! that record what they were handed.
//!
//! Nothing here touches a socket, a file or a wall clock that a test could not control.

mod device;
mod store;
mod upstream;

pub use device::{ChannelOutlet, DeviceLog, channel_outlet};
pub use store::{Fault, MemoryStore};
pub use upstream::{ScriptedUpstream, Step};
