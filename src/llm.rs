//! LLM upstreams: the [`hubbub_actors::ports::Upstream`] port over HTTP, and the embedded model.

pub mod local;
pub mod remote;
mod sse;

pub use local::LocalModel;
pub use remote::{RemoteUpstream, UpstreamSetupError};
