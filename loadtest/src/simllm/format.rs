//! The APIs it speaks, each as its inventor does: what is asked, and how an answer is written.

use serde::Deserialize;
use serde_json::{Value, json};

use super::completion::{Answer, Completion, StreamOptions, Turn};
use super::http;

/// One of the APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenAI's chat completions.
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
    /// Ollama's own chat.
    Ollama,
}

#[derive(Deserialize)]
struct Messages {
    #[serde(default)]
    model: String,
    #[serde(default)]
    system: Value,
    messages: Vec<Turn>,
    max_tokens: u32,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize)]
struct OllamaChat {
    #[serde(default)]
    model: String,
    messages: Vec<Turn>,
    #[serde(default = "yes")]
    stream: bool,
    #[serde(default)]
    options: OllamaOptions,
}

#[derive(Default, Deserialize)]
struct OllamaOptions {
    num_predict: Option<u32>,
}

fn yes() -> bool {
    true
}

impl Format {
    /// The format of a path.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/chat/completions" => Some(Self::OpenAi),
            "/v1/messages" => Some(Self::Anthropic),
            "/api/chat" => Some(Self::Ollama),
            _ => None,
        }
    }

    /// What a body asks for.
    pub(super) fn read(self, body: &[u8]) -> Result<Completion, serde_json::Error> {
        match self {
            Self::OpenAi => serde_json::from_slice(body),
            Self::Anthropic => {
                let asked: Messages = serde_json::from_slice(body)?;
                let system = Turn {
                    role: "system".to_owned(),
                    content: asked.system,
                };
                let has_system = !system.text().is_empty();
                let system = has_system.then_some(system);
                Ok(Completion {
                    model: asked.model,
                    messages: system.into_iter().chain(asked.messages).collect(),
                    stream: asked.stream,
                    stream_options: StreamOptions::default(),
                    max_tokens: Some(asked.max_tokens),
                    max_completion_tokens: None,
                })
            }
            Self::Ollama => {
                let asked: OllamaChat = serde_json::from_slice(body)?;
                Ok(Completion {
                    model: asked.model,
                    messages: asked.messages,
                    stream: asked.stream,
                    stream_options: StreamOptions::default(),
                    max_tokens: asked.options.num_predict,
                    max_completion_tokens: None,
                })
            }
        }
    }

    /// The type of a streamed body.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Anthropic => "text/event-stream",
            Self::Ollama => "application/x-ndjson",
        }
    }

    /// What comes before the first token. A real upstream sends its head, and the role, before it has thought of a
    /// word.
    pub(super) fn push_beginning(self, out: &mut Vec<u8>, answer: &Answer) {
        match self {
            Self::OpenAi => answer.push_role(out),
            Self::Anthropic => {
                let cached = answer.cached_tokens;
                let usage = json!({"input_tokens": answer.prompt.tokens() - cached,
                    "cache_read_input_tokens": cached, "output_tokens": 1});
                let message = json!({"id": answer.id, "type": "message", "role": "assistant",
                    "model": answer.model, "content": [], "stop_reason": null, "usage": usage});
                push_named(out, &json!({"type": "message_start", "message": message}));
                push_named(
                    out,
                    &json!({"type": "content_block_start", "index": 0,
                    "content_block": {"type": "text", "text": ""}}),
                );
                push_named(out, &json!({"type": "ping"}));
            }
            Self::Ollama => {}
        }
    }

    /// One token.
    pub(super) fn push_token(self, out: &mut Vec<u8>, answer: &Answer, index: u32) {
        match self {
            Self::OpenAi => answer.push_token(out, index),
            Self::Anthropic => push_named(
                out,
                &json!({"type": "content_block_delta", "index": 0,
                    "delta": {"type": "text_delta", "text": answer.token(index)}}),
            ),
            Self::Ollama => {
                let message = json!({"role": "assistant", "content": answer.token(index)});
                push_line(
                    out,
                    &json!({"model": answer.model, "message": message, "done": false}),
                );
            }
        }
    }

    /// What comes after the last token.
    pub(super) fn push_end(self, out: &mut Vec<u8>, answer: &Answer) {
        match self {
            Self::OpenAi => answer.push_end(out),
            Self::Anthropic => {
                push_named(out, &json!({"type": "content_block_stop", "index": 0}));
                let delta = json!({"stop_reason": self.reason(answer), "stop_sequence": null});
                push_named(
                    out,
                    &json!({"type": "message_delta", "delta": delta,
                    "usage": {"output_tokens": answer.tokens}}),
                );
                push_named(out, &json!({"type": "message_stop"}));
            }
            Self::Ollama => push_line(out, &self.whole_ollama(answer, "")),
        }
    }

    /// The answer without streaming.
    pub(super) fn whole(self, answer: &Answer) -> Value {
        match self {
            Self::OpenAi => answer.whole(),
            Self::Anthropic => json!({
                "id": answer.id, "type": "message", "role": "assistant", "model": answer.model,
                "content": [{"type": "text", "text": answer.text()}],
                "stop_reason": self.reason(answer),
                "usage": {"input_tokens": answer.prompt.tokens(), "output_tokens": answer.tokens},
            }),
            Self::Ollama => self.whole_ollama(answer, &answer.text()),
        }
    }

    /// A refusal.
    pub(super) fn error(self, status: u16, message: &str) -> Value {
        match self {
            Self::OpenAi => {
                json!({"error": {"message": message, "type": "simulated", "code": null}})
            }
            Self::Anthropic => {
                let kind = match status {
                    400 => "invalid_request_error",
                    429 => "rate_limit_error",
                    _ => "api_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
            Self::Ollama => json!({"error": message}),
        }
    }

    fn whole_ollama(self, answer: &Answer, text: &str) -> Value {
        json!({
            "model": answer.model,
            "message": {"role": "assistant", "content": text},
            "done": true,
            "done_reason": self.reason(answer),
            "prompt_eval_count": answer.prompt.tokens(),
            "eval_count": answer.tokens,
        })
    }

    fn reason(self, answer: &Answer) -> &'static str {
        match (self, answer.finish_reason) {
            (Self::Anthropic, "length") => "max_tokens",
            (Self::Anthropic, _) => "end_turn",
            (_, reason) => reason,
        }
    }
}

/// An event that is named as its type is.
fn push_named(out: &mut Vec<u8>, event: &Value) {
    let name = event
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    http::push_chunk(out, format!("event: {name}\ndata: {event}\n\n").as_bytes());
}

fn push_line(out: &mut Vec<u8>, line: &Value) {
    http::push_chunk(out, format!("{line}\n").as_bytes());
}
