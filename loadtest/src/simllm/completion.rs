//! A chat completion request, and the answer to it in the forms the API has.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::behaviour::{Behaviour, Draws};
use super::prefixes::Prompt;
use super::{answer, http};

/// Most tokens a request may ask for.
const TOKENS_AT_MOST: u32 = 1_000_000;

/// The part of a chat completion request that matters here.
#[derive(Deserialize)]
pub(super) struct Completion {
    #[serde(default)]
    pub(super) model: String,
    pub(super) messages: Vec<Turn>,
    #[serde(default)]
    pub(super) stream: bool,
    #[serde(default)]
    pub(super) stream_options: StreamOptions,
    pub(super) max_tokens: Option<u32>,
    pub(super) max_completion_tokens: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct Turn {
    pub(super) role: String,
    #[serde(default)]
    pub(super) content: serde_json::Value,
}

/// What is counted, and when.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
    /// As vLLM has it: what was used until now, with every chunk.
    pub(super) continuous_usage_stats: bool,
}

/// One answer under way.
pub(super) struct Answer {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) question: String,
    pub(super) stream: bool,
    pub(super) counts: StreamOptions,
    pub(super) keep_alive: bool,
    pub(super) tokens: u32,
    pub(super) finish_reason: &'static str,
    pub(super) prompt: Prompt,
    /// Tokens of the prompt that need not be read again.
    pub(super) cached_tokens: u64,
    pub(super) behaviour: Behaviour,
    pub(super) draws: Draws,
    /// A token's event up to its text.
    pub(super) event_start: String,
}

impl Answer {
    pub(super) fn new(
        completion: &Completion,
        behaviour: Behaviour,
        draws: Draws,
        number: u64,
        keep_alive: bool,
    ) -> Self {
        let limit = completion.max_completion_tokens.or(completion.max_tokens);
        let wanted = behaviour.tokens.min(TOKENS_AT_MOST);
        let tokens = limit.map_or(wanted, |limit| limit.min(wanted));
        let id = format!("chatcmpl-sim-{number}");
        let model = if completion.model.is_empty() {
            "sim".to_owned()
        } else {
            completion.model.clone()
        };
        let event_start = format!(
            "data: {{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":{},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"",
            serde_json::Value::from(model.as_str()),
        );
        let last = completion
            .messages
            .iter()
            .rev()
            .find(|turn| turn.role == "user");
        Self {
            id,
            model,
            question: last.map(Turn::text).unwrap_or_default(),
            stream: completion.stream,
            counts: completion.stream_options,
            keep_alive,
            tokens,
            finish_reason: if tokens < wanted { "length" } else { "stop" },
            prompt: Prompt::new(
                completion
                    .messages
                    .iter()
                    .map(|turn| (turn.role.as_str(), turn.text())),
            ),
            cached_tokens: 0,
            behaviour,
            draws,
            event_start,
        }
    }

    pub(super) fn first_wait(&mut self) -> Duration {
        let unread = self.prompt.tokens() - self.cached_tokens;
        let reading = Duration::from_micros(unread * self.behaviour.prompt_token_us);
        let rest = self
            .draws
            .wait(self.behaviour.ttft_ms, self.behaviour.jitter);
        reading + rest
    }

    /// The prompt with so many tokens of the answer: how the next prompt begins.
    pub(super) fn conversation(&self, tokens: u32) -> Prompt {
        let mut conversation = self.prompt.clone();
        let text = answer::answer_text(&self.question, tokens);
        conversation.push("assistant", &text);
        conversation
    }

    pub(super) fn next_wait(&mut self) -> Duration {
        self.draws
            .wait(self.behaviour.token_interval_ms, self.behaviour.jitter)
    }

    pub(super) fn push_token(&self, out: &mut Vec<u8>, index: u32) {
        // A token holds nothing that JSON would escape.
        let token = self.token(index);
        let end = "\"},\"finish_reason\":null}]";
        let usage = self.usage_until(index + 1);
        let event = [&self.event_start, token.as_str(), end, &usage, "}\n\n"];
        http::push_chunk(out, event.concat().as_bytes());
    }

    /// A field with what was used until now, if it is asked for.
    fn usage_until(&self, tokens: u32) -> String {
        if self.counts.continuous_usage_stats {
            format!(",\"usage\":{}", self.usage(tokens))
        } else {
            String::new()
        }
    }

    /// The event before the first token.
    pub(super) fn push_role(&self, out: &mut Vec<u8>) {
        let delta = json!({"role": "assistant", "content": ""});
        let mut event = self.event(&delta, None);
        if self.counts.continuous_usage_stats
            && let Some(event) = event.as_object_mut()
        {
            event.insert("usage".to_owned(), self.usage(0));
        }
        http::push_chunk(out, format!("data: {event}\n\n").as_bytes());
    }

    /// The events after the last token.
    pub(super) fn push_end(&self, out: &mut Vec<u8>) {
        let event = self.event(&json!({}), Some(self.finish_reason));
        http::push_chunk(out, format!("data: {event}\n\n").as_bytes());
        if self.counts.include_usage {
            let event = json!({
                "id": self.id, "object": "chat.completion.chunk", "created": 0,
                "model": self.model, "choices": [], "usage": self.usage(self.tokens),
            });
            http::push_chunk(out, format!("data: {event}\n\n").as_bytes());
        }
        http::push_chunk(out, b"data: [DONE]\n\n");
    }

    /// One token's text.
    pub(super) fn token(&self, index: u32) -> String {
        answer::answer_token(&self.question, index)
    }

    /// The whole text.
    pub(super) fn text(&self) -> String {
        answer::answer_text(&self.question, self.tokens)
    }

    fn event(&self, delta: &serde_json::Value, finish: Option<&str>) -> serde_json::Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": 0, "model": self.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        })
    }

    /// What was used once so many tokens are written.
    pub(super) fn usage(&self, tokens: u32) -> serde_json::Value {
        let read = self.prompt.tokens();
        json!({
            "prompt_tokens": read,
            "completion_tokens": tokens,
            "total_tokens": read + u64::from(tokens),
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        })
    }

    pub(super) fn whole(&self) -> serde_json::Value {
        let text = self.text();
        json!({
            "id": self.id, "object": "chat.completion", "created": 0, "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": self.finish_reason,
            }],
            "usage": self.usage(self.tokens),
        })
    }
}

impl Turn {
    /// The text of the turn: a string, or the text parts of a list.
    pub(super) fn text(&self) -> String {
        match &self.content {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(parts) => parts
                .iter()
                .filter_map(|part| part.get("text").and_then(serde_json::Value::as_str))
                .collect(),
            _ => String::new(),
        }
    }
}
