//! What a client gets: a whole completion, or the events of a streamed one.

use super::MODEL_ID;
use crate::generation::FinishReason;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

/// Tokens read and written for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the wire format's")]
pub struct Usage {
    /// Tokens of the conversation.
    pub prompt_tokens: usize,
    /// Tokens of the answer, the closing one included.
    pub completion_tokens: usize,
    /// Their sum.
    pub total_tokens: usize,
}

impl Usage {
    /// Adds up the two counts.
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
        }
    }
}

/// One completion's identity, from which all its objects are made.
#[derive(Debug, Clone)]
pub struct Completion {
    id: String,
    created: u64,
}

impl Completion {
    /// A completion with a new id.
    pub fn begin() -> Self {
        Self {
            id: format!("chatcmpl-{:032x}", rand::random::<u128>()),
            created: unix_seconds(),
        }
    }

    /// The answer in one piece.
    pub fn whole(&self, text: &str, reason: FinishReason, usage: Usage) -> Value {
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": MODEL_ID,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": null},
                "logprobs": null,
                "finish_reason": reason,
            }],
            "usage": usage,
        })
    }

    /// The first event of a stream: who speaks.
    pub fn opening(&self) -> Bytes {
        self.choice(&json!({"role": "assistant", "content": ""}), None)
    }

    /// More of the answer.
    pub fn delta(&self, text: &str) -> Bytes {
        self.choice(&json!({"content": text}), None)
    }

    /// The end of the answer.
    pub fn closing(&self, reason: FinishReason) -> Bytes {
        self.choice(&json!({}), Some(reason))
    }

    /// The count of tokens, an event without a choice, as `OpenAI` sends it.
    pub fn usage(&self, usage: Usage) -> Bytes {
        self.chunk(&json!([]), Some(usage))
    }

    fn choice(&self, delta: &Value, reason: Option<FinishReason>) -> Bytes {
        let choice = json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
        self.chunk(&choice, None)
    }

    fn chunk(&self, choices: &Value, usage: Option<Usage>) -> Bytes {
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": MODEL_ID, "choices": choices,
        });
        if let (Some(usage), Some(fields)) = (usage, chunk.as_object_mut()) {
            fields.insert("usage".to_owned(), json!(usage));
        }
        sse_event(&chunk)
    }
}

/// One server-sent event. JSON has no raw line break, so one `data` line always does.
pub fn sse_event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

/// The event that ends every complete stream.
pub fn sse_done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

/// Answer of `GET /v1/models`.
#[derive(Debug, Serialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: &'static str,
    /// The one model.
    pub data: [ModelCard; 1],
}

/// A model in the list.
#[derive(Debug, Serialize)]
pub struct ModelCard {
    /// Its name.
    pub id: &'static str,
    /// Always `model`.
    pub object: &'static str,
    /// When the file was made upstream, seconds since 1970.
    pub created: u64,
    /// Who trained it.
    pub owned_by: &'static str,
    /// Tokens of prompt and answer together; `vLLM`'s field.
    pub max_model_len: usize,
}

impl ModelList {
    /// The list of the one model.
    pub fn of_context(max_model_len: usize) -> Self {
        Self {
            object: "list",
            data: [ModelCard {
                id: MODEL_ID,
                object: "model",
                created: 1_738_911_762,
                owned_by: "huggingfacetb",
                max_model_len,
            }],
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the wire format wants wall-clock seconds; nothing here decides by them"
)]
fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_data_line_and_a_blank_one() {
        let event = Completion::begin().delta("a\n\"b\" ü");
        let text = std::str::from_utf8(&event).unwrap();
        let json = text
            .strip_prefix("data: ")
            .unwrap()
            .strip_suffix("\n\n")
            .unwrap();
        assert!(!json.contains('\n'));
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(value["choices"][0]["delta"]["content"], "a\n\"b\" ü");
        assert_eq!(value["choices"][0]["finish_reason"], Value::Null);
        assert_eq!(value["object"], "chat.completion.chunk");
    }

    #[test]
    fn usage_comes_in_an_event_without_choices() {
        let event = Completion::begin().usage(Usage::new(3, 4));
        let text = std::str::from_utf8(&event).unwrap();
        let value: Value = serde_json::from_str(text.trim_start_matches("data: ")).unwrap();
        assert_eq!(value["choices"], json!([]));
        assert_eq!(value["usage"]["total_tokens"], 7);
    }
}
