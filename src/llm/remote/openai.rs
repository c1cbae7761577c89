//! OpenAI's chat completions, as everybody speaks them who says so. Pure.
//!
//! Its events are what [`Chunk`](super::chunk::Chunk) reads; the other dialects are translated to them.

use hubbub_actors::ports::ChatRequest;
use serde::Serialize;
use serde_json::{Map, Value};

use super::form::{Form, Turn};

/// Appended to the base URL.
pub(super) const PATH: &str = "/chat/completions";

#[derive(Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    /// Never names a field of ours: the configuration refuses that.
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(request: &'a ChatRequest, form: &Form<'a>) -> Self {
        let tokens = |field| (form.bound_field == Some(field)).then_some(request.max_output_tokens);
        Self {
            model: request.model.as_deref().unwrap_or(form.default_model),
            messages: request.turns.iter().map(Turn::from).collect(),
            max_tokens: tokens("max_tokens"),
            max_completion_tokens: tokens("max_completion_tokens"),
            stream: true,
            stream_options: form.stream_options.then_some(StreamOptions {
                include_usage: true,
            }),
            extra: form.extra,
        }
    }
}
