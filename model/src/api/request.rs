//! A chat request: as it comes, and as it is used.

use super::ApiError;
use crate::sampling::SamplingConfig;
use serde::Deserialize;

/// Most tokens of an answer when the request does not say: about 400 words.
const DEFAULT_MAX_TOKENS: usize = 512;

/// A model this small invents less when it mostly says the likeliest word.
const DEFAULT_TEMPERATURE: f32 = 0.2;

/// Most stop texts, as in `OpenAI`'s API.
const MAX_STOPS: usize = 4;

/// Longest stop text in bytes: each token looks for it in the text held back, which is no longer.
const MAX_STOP_BYTES: usize = 256;

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The instructions; `OpenAI`'s `developer` too.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said; may be empty.
    pub text: String,
}

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The conversation; not empty.
    pub messages: Vec<Message>,
    /// Most tokens of the answer; at least 1.
    pub max_tokens: usize,
    /// How tokens are chosen. Without a seed in the request it is random.
    pub sampling: SamplingConfig,
    /// Texts that end the answer; none empty.
    pub stop: Vec<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a stream ends with the count of tokens.
    pub include_usage: bool,
}

#[derive(Deserialize)]
struct RawChatRequest {
    messages: Vec<RawMessage>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<RawStop>,
    stream: Option<bool>,
    stream_options: Option<RawStreamOptions>,
    n: Option<u32>,
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    content: Option<RawContent>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawContent {
    Text(String),
    Parts(Vec<RawPart>),
}

#[derive(Deserialize)]
struct RawPart {
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawStop {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct RawStreamOptions {
    include_usage: Option<bool>,
}

impl ChatRequest {
    /// Reads and validates a body.
    ///
    /// # Errors
    /// [`ApiError::Malformed`] or [`ApiError::Invalid`].
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let raw: RawChatRequest =
            serde_json::from_slice(body).map_err(|e| ApiError::Malformed {
                line: e.line(),
                column: e.column(),
            })?;
        if raw.messages.is_empty() {
            return Err(invalid("messages", "There must be at least one message."));
        }
        if raw.n.is_some_and(|n| n != 1) {
            return Err(invalid("n", "This model gives one answer at a time."));
        }
        let limit = raw.max_completion_tokens.or(raw.max_tokens);
        let max_tokens = limit.map_or(DEFAULT_MAX_TOKENS, |tokens| tokens as usize);
        if max_tokens == 0 {
            return Err(invalid("max_tokens", "It must be at least 1."));
        }
        Ok(Self {
            sampling: sampling(&raw)?,
            messages: raw
                .messages
                .into_iter()
                .map(message)
                .collect::<Result<_, _>>()?,
            max_tokens,
            stop: stop(raw.stop)?,
            stream: raw.stream.unwrap_or(false),
            include_usage: raw
                .stream_options
                .and_then(|o| o.include_usage)
                .unwrap_or(false),
        })
    }
}

fn invalid(param: &'static str, message: &'static str) -> ApiError {
    ApiError::Invalid { param, message }
}

fn sampling(raw: &RawChatRequest) -> Result<SamplingConfig, ApiError> {
    let temperature = raw.temperature.unwrap_or(DEFAULT_TEMPERATURE);
    if !(0.0..=2.0).contains(&temperature) {
        return Err(invalid("temperature", "It must be from 0 to 2."));
    }
    let top_p = raw.top_p.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&top_p) {
        return Err(invalid("top_p", "It must be from 0 to 1."));
    }
    let seed = raw.seed.map_or_else(rand::random, i64::cast_unsigned);
    Ok(SamplingConfig {
        temperature,
        top_p,
        seed,
    })
}

fn message(raw: RawMessage) -> Result<Message, ApiError> {
    let role = match raw.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => {
            return Err(invalid(
                "messages",
                "A role must be system, developer, user or assistant.",
            ));
        }
    };
    let text = match raw.content {
        None => String::new(),
        Some(RawContent::Text(text)) => text,
        Some(RawContent::Parts(parts)) => parts
            .into_iter()
            .map(|part| {
                part.text
                    .ok_or(invalid("messages", "This model reads text only."))
            })
            .collect::<Result<Vec<_>, _>>()?
            .concat(),
    };
    Ok(Message { role, text })
}

fn stop(raw: Option<RawStop>) -> Result<Vec<String>, ApiError> {
    let stops = match raw {
        None => Vec::new(),
        Some(RawStop::One(one)) => vec![one],
        Some(RawStop::Many(many)) => many,
    };
    if stops.len() > MAX_STOPS {
        return Err(invalid("stop", "There may be at most 4 stop texts."));
    }
    if stops
        .iter()
        .any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES)
    {
        return Err(invalid("stop", "A stop text must have 1 to 256 bytes."));
    }
    Ok(stops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<ChatRequest, ApiError> {
        ChatRequest::parse(body.as_bytes())
    }

    fn param(body: &str) -> &'static str {
        match parse(body) {
            Err(ApiError::Invalid { param, .. }) => param,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn smallest_request_gets_the_defaults() {
        let request = parse(r#"{"messages":[{"role":"user","content":"Hi"}]}"#).unwrap();
        assert_eq!(request.max_tokens, 512);
        assert!((request.sampling.temperature - 0.2).abs() < 1e-6);
        assert!(!request.stream && !request.include_usage && request.stop.is_empty());
    }

    #[test]
    fn every_supported_field_is_read() {
        let request = parse(
            r#"{"model":"any","messages":[{"role":"developer","content":[{"type":"text","text":"a"},
            {"type":"text","text":"b"}]},{"role":"assistant","content":null}],"max_tokens":9,
            "max_completion_tokens":7,"temperature":0,"top_p":0.5,"seed":-1,"stop":["x","y"],
            "stream":true,"stream_options":{"include_usage":true},"user":"ignored"}"#,
        )
        .unwrap();
        assert_eq!(
            request,
            ChatRequest {
                messages: vec![
                    Message {
                        role: Role::System,
                        text: "ab".to_owned()
                    },
                    Message {
                        role: Role::Assistant,
                        text: String::new()
                    },
                ],
                max_tokens: 7,
                sampling: SamplingConfig {
                    temperature: 0.0,
                    top_p: 0.5,
                    seed: u64::MAX
                },
                stop: vec!["x".to_owned(), "y".to_owned()],
                stream: true,
                include_usage: true,
            }
        );
    }

    #[test]
    fn unusable_values_name_their_field() {
        let with =
            |field: &str| format!(r#"{{"messages":[{{"role":"user","content":"a"}}],{field}}}"#);
        assert_eq!(param(r#"{"messages":[]}"#), "messages");
        assert_eq!(
            param(r#"{"messages":[{"role":"tool","content":"a"}]}"#),
            "messages"
        );
        assert_eq!(
            param(r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#),
            "messages"
        );
        assert_eq!(param(&with(r#""n":2"#)), "n");
        assert_eq!(param(&with(r#""max_tokens":0"#)), "max_tokens");
        assert_eq!(param(&with(r#""temperature":2.1"#)), "temperature");
        assert_eq!(param(&with(r#""top_p":-0.1"#)), "top_p");
        assert_eq!(param(&with(r#""stop":["1","2","3","4","5"]"#)), "stop");
        assert_eq!(param(&with(r#""stop":"""#)), "stop");
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for body in ["", "{", "[]", "{}", r#"{"messages":"hello"}"#, "\u{0}"] {
            assert!(
                matches!(parse(body), Err(ApiError::Malformed { .. })),
                "{body}"
            );
        }
    }
}
