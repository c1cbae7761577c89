//! LLM upstreams: the [`hubbub_actors::ports::Upstream`] port over HTTP, and the embedded model.

pub mod local;
pub mod openai;
mod sse;

pub use local::LocalModel;
pub use openai::{OpenAiUpstream, UpstreamSetupError};
