//! The wire format: the part of `OpenAI`'s chat completions that a demo model can honour. A request
//! is validated here into a [`ChatRequest`] that can no longer be wrong.

mod error;
mod request;
mod response;

pub use error::ApiError;
pub use request::{ChatRequest, Message, Role};
pub use response::{Completion, ModelList, Usage, sse_done, sse_event};

/// The name this model goes by. A request may name any other: there is only this one.
pub const MODEL_ID: &str = "smollm2-135m-instruct";
