//! What an upstream speaks: how it is asked, and what its events say in the words of OpenAI's. Pure.

use std::borrow::Cow;

use hubbub_actors::ports::{ChatRequest, ChatTurn, TurnRole};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{anthropic, ollama, openai};
use crate::config::Api;

/// How a request is written.
pub(super) struct Form<'a> {
    pub(super) api: Api,
    /// The model to ask for when the request names none.
    pub(super) default_model: &'a str,
    /// Which field of OpenAI's bounds the answer; `None` sends no bound, where the dialect has a choice.
    pub(super) bound_field: Option<&'static str>,
    /// Whether counts are asked for.
    pub(super) stream_options: bool,
    /// Further fields, as configured.
    pub(super) extra: &'a Map<String, Value>,
}

/// Appended to the base URL.
pub(super) fn path(api: Api) -> &'static str {
    match api {
        Api::OpenAi => openai::PATH,
        Api::Anthropic => anthropic::PATH,
        Api::Ollama => ollama::PATH,
    }
}

/// The body of a request.
pub(super) fn body(request: &ChatRequest, form: &Form<'_>) -> Result<Vec<u8>, serde_json::Error> {
    match form.api {
        Api::OpenAi => serde_json::to_vec(&openai::Body::new(request, form)),
        Api::Anthropic => serde_json::to_vec(&anthropic::Body::new(request, form)),
        Api::Ollama => serde_json::to_vec(&ollama::Body::new(request, form)),
    }
}

/// A turn as all of them write it.
#[derive(Serialize)]
pub(super) struct Turn<'a> {
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

/// What an event comes to.
pub(super) enum Translated<'a> {
    /// This event of OpenAI's.
    Event(Cow<'a, Value>),
    /// The answer is over.
    Done,
    /// Nothing, but a sign of life.
    Nothing,
}

/// Reads one answer's events.
#[derive(Debug)]
pub(super) enum Translator {
    OpenAi,
    Anthropic(anthropic::Counts),
    Ollama,
}

impl Translator {
    pub(super) fn new(api: Api) -> Self {
        match api {
            Api::OpenAi => Self::OpenAi,
            Api::Anthropic => Self::Anthropic(anthropic::Counts::default()),
            Api::Ollama => Self::Ollama,
        }
    }

    pub(super) fn translate<'a>(&mut self, event: &'a Value) -> Translated<'a> {
        match self {
            Self::OpenAi => Translated::Event(Cow::Borrowed(event)),
            Self::Anthropic(counts) => counts.translate(event),
            Self::Ollama => ollama::translate(event),
        }
    }
}
