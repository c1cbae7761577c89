//! Ollama's own chat. Pure.
//!
//! An object a line, each with a piece of the message; the last says that it is done, why, and what was counted.
//! <https://github.com/ollama/ollama/blob/main/docs/api.md>

use std::borrow::Cow;

use hubbub_actors::ports::ChatRequest;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::form::{Form, Translated, Turn};

/// Appended to the base URL.
pub(super) const PATH: &str = "/api/chat";

#[derive(Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    messages: Vec<Turn<'a>>,
    stream: bool,
    options: Map<String, Value>,
    /// Never names another field of ours: the configuration refuses that.
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl<'a> Body<'a> {
    pub(super) fn new(request: &'a ChatRequest, form: &Form<'a>) -> Self {
        let mut extra = form.extra.clone();
        let mut options = match extra.remove("options") {
            Some(Value::Object(options)) => options,
            _ => Map::new(),
        };
        if form.bound_field.is_some() {
            options.insert("num_predict".to_owned(), request.max_output_tokens.into());
        }
        Self {
            model: request.model.as_deref().unwrap_or(form.default_model),
            messages: request.turns.iter().map(Turn::from).collect(),
            stream: true,
            options,
            extra,
        }
    }
}

/// One line.
pub(super) fn translate(event: &Value) -> Translated<'_> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    if event.get("error").is_some() {
        return Translated::Event(Cow::Borrowed(event));
    }
    let is_done = event.get("done") == Some(&Value::Bool(true));
    let reason = is_done.then(|| text("/done_reason").unwrap_or("stop"));
    let delta = json!({"content": text("/message/content").unwrap_or_default()});
    // A prompt that was in the cache whole is not counted by older versions; then neither counts.
    let usage = json!({
        "prompt_tokens": event.get("prompt_eval_count"),
        "completion_tokens": event.get("eval_count"),
    });
    Translated::Event(Cow::Owned(json!({
        "model": event.get("model"),
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        "usage": is_done.then_some(usage),
    })))
}
