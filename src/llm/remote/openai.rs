//! The body of a request, in the form its upstream takes. Pure.

use hubbub_actors::ports::{ChatRequest, ChatTurn, TurnRole};
use serde::Serialize;
use serde_json::{Map, Value};

/// How a request is written.
pub(super) struct Form<'a> {
    /// The model to ask for when the request names none.
    pub(super) default_model: &'a str,
    /// Which field bounds the answer; `None` sends no bound.
    pub(super) bound_field: Option<&'static str>,
    /// Whether counts are asked for.
    pub(super) stream_options: bool,
    /// Further fields, as configured.
    pub(super) extra: &'a Map<String, Value>,
}

/// The body of a request.
pub(super) fn body(request: &ChatRequest, form: &Form<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let tokens = |field| (form.bound_field == Some(field)).then_some(request.max_output_tokens);
    serde_json::to_vec(&Body {
        model: request.model.as_deref().unwrap_or(form.default_model),
        messages: request.turns.iter().map(Turn::from).collect(),
        max_tokens: tokens("max_tokens"),
        max_completion_tokens: tokens("max_completion_tokens"),
        stream: true,
        stream_options: form.stream_options.then_some(StreamOptions {
            include_usage: true,
        }),
        extra: form.extra,
    })
}

#[derive(Serialize)]
struct Body<'a> {
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

#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: &'a str,
}

impl<'a> From<&'a ChatTurn> for Turn<'a> {
    fn from(turn: &'a ChatTurn) -> Self {
        let role = match turn.role {
            TurnRole::System => "system",
            TurnRole::User => "user",
            TurnRole::Assistant => "assistant",
        };
        Self {
            role,
            content: &turn.text,
        }
    }
}
