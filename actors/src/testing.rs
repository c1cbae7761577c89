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

/// Panics because a test wants to see what becomes of it.
#[expect(
    clippy::panic,
    reason = "that is what it is for; only tests are built with it"
)]
fn panic_as_asked(why: &str) -> ! {
    panic!("{why}")
}
