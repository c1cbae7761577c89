//! Anthropic's Messages. Pure.
//!
//! A message starts with the count of its prompt, comes in blocks, of which those of text are shown, and ends with
//! a reason and the count of what was written. <https://docs.anthropic.com/en/api/messages-streaming>

use std::borrow::Cow;

use hubbub_actors::ports::{ChatRequest, TurnRole};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::form::{Form, Translated, Turn};

/// Appended to the base URL.
pub(super) const PATH: &str = "/messages";

/// Sent with every request unless the configuration names another.
pub(super) const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

#[derive(Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    system: Cow<'a, str>,
    messages: Vec<Turn<'a>>,
    /// Required.
    max_tokens: u32,
    stream: bool,
    /// Never names a field of ours: the configuration refuses that.
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
}

impl<'a> Body<'a> {
    pub(super) fn new(request: &'a ChatRequest, form: &Form<'a>) -> Self {
        let is_system = |role| role == TurnRole::System;
        let system: Vec<&str> = request
            .turns
            .iter()
            .filter(|turn| is_system(turn.role))
            .map(|turn| turn.text.as_str())
            .collect();
        let said = request.turns.iter().filter(|turn| !is_system(turn.role));
        // The first must be the person's. A window of tokens may begin with an answer, which then has lost its
        // question anyway.
        let messages = said.skip_while(|turn| turn.role == TurnRole::Assistant);
        Self {
            model: request.model.as_deref().unwrap_or(form.default_model),
            system: match system.as_slice() {
                [one] => Cow::Borrowed(one),
                all => Cow::Owned(all.join("\n\n")),
            },
            messages: messages.map(Turn::from).collect(),
            max_tokens: request.max_output_tokens,
            stream: true,
            extra: form.extra,
        }
    }
}

/// What was counted so far: the prompt's tokens come with the first event, the answer's with the last.
#[derive(Debug, Default)]
pub(super) struct Counts {
    input: u64,
    cached: u64,
}

impl Counts {
    pub(super) fn translate<'a>(&mut self, event: &'a Value) -> Translated<'a> {
        let kind = event
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        match kind {
            "message_start" => {
                let message = event.get("message").unwrap_or(&Value::Null);
                let model = message.get("model").unwrap_or(&Value::Null);
                said(json!({"choices": [], "model": model, "usage": self.usage(message)}))
            }
            "content_block_start" => piece(event.pointer("/content_block/text")),
            "content_block_delta" => piece(event.pointer("/delta/text")),
            "message_delta" => {
                let reason = event.pointer("/delta/stop_reason");
                let delta = json!({"index": 0, "delta": {}, "finish_reason": reason});
                said(json!({"choices": [delta], "usage": self.usage(event)}))
            }
            "message_stop" => Translated::Done,
            // Whole, where a server does not stream.
            "message" => {
                let message = json!({"content": event.get("content")});
                let reason = event.get("stop_reason");
                let choice = json!({"index": 0, "message": message, "finish_reason": reason});
                let model = event.get("model");
                said(json!({"choices": [choice], "model": model, "usage": self.usage(event)}))
            }
            "error" => Translated::Event(Cow::Borrowed(event)),
            // Pings, ends of blocks, and what is yet to be invented.
            _ => Translated::Nothing,
        }
    }

    /// The counts with those of an event. What was read from the cache, or put there, is not among the input
    /// tokens.
    fn usage(&mut self, of: &Value) -> Value {
        let Some(usage) = of.get("usage") else {
            return Value::Null;
        };
        let count = |key: &str| usage.get(key).and_then(Value::as_u64);
        if let Some(input) = count("input_tokens") {
            self.cached = count("cache_read_input_tokens").unwrap_or(0);
            let written = count("cache_creation_input_tokens").unwrap_or(0);
            self.input = input.saturating_add(self.cached).saturating_add(written);
        }
        json!({
            "prompt_tokens": self.input,
            "completion_tokens": count("output_tokens"),
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }
}

/// A piece of text, if it is one.
fn piece(text: Option<&Value>) -> Translated<'static> {
    match text {
        Some(Value::String(text)) if !text.is_empty() => {
            said(json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
        }
        _ => Translated::Nothing,
    }
}

fn said(event: Value) -> Translated<'static> {
    Translated::Event(Cow::Owned(event))
}
