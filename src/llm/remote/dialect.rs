//! What an upstream speaks: how it is asked, and what its events say in the words of OpenAI's. Pure.

use std::borrow::Cow;

use hubbub_actors::ports::ChatRequest;
use serde_json::Value;

use super::form::{Form, Translated};
use super::{anthropic, ollama, openai};
use crate::config::Api;

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
