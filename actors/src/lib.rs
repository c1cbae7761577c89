//! Hubbub's behaviour: sessions, tenants, replies, LLM scheduling and supervision.
//!
//! No sockets, no SQL, no HTTP, no environment: those are ports, declared here and implemented by the
//! server. Every way in is a handle with deadlines; no raw address leaves this crate.
//!
//! [`Hub`] puts the actors together. A session is found through it ([`Hub::session`]) and told things
//! through its [`SessionHandle`]; what it has to say goes to its devices' [`Outlet`]s.

mod absence;
mod answers;
mod busy;
mod caller;
pub mod capacity;
mod device;
mod encoded;
mod ending;
mod hub;
mod lease;
mod node;
mod places;
mod pool;
#[expect(
    clippy::large_enum_variant,
    reason = "an append's answer is made once and taken apart at once"
)]
pub mod ports;
mod quarantine;
mod rejection;
mod reply;
mod session;
mod sessions;
mod supervision;
mod tenant;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod visitors;
mod writer;

#[cfg(test)]
mod tests;

pub use caller::{Caller, OperatorRole, Permission, Who};
pub use device::{Delivery, Outlet, Undelivered};
pub use encoded::EncodedFrame;
pub use hub::{Hub, HubConfig};
pub use node::SessionSettings;
pub use pool::PoolConfig;
pub use rejection::Rejection;
pub use session::{Handling, JoinRequest, Post, Posted, SessionHandle};
pub use tenant::{ConnectionPermit, DefaultLimits, TenantHandle};
pub use visitors::VisitorLimits;
