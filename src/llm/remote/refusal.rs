//! What it means that an upstream refused, or failed in mid-answer: from its status and its own words.
//! Pure.
//!
//! Providers disagree on statuses: a wrong key is 401 or 400, a content filter 400 or 403, an empty
//! account 402 or 429. So the codes in the body come first; the status decides the rest.

use std::time::Duration;

use hubbub_actors::ports::UpstreamError;
use serde_json::Value;

/// What an upstream says about an error.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// Of the response, or as the error itself gives it.
    status: Option<u16>,
    /// Its codes and types, in lower case, separated by blanks.
    codes: String,
    /// Its words.
    message: String,
}

/// Codes of a content filter: OpenAI, Azure, Alibaba, Bedrock.
const FILTERED: [&str; 6] = [
    "content_filter",
    "responsibleaipolicyviolation",
    "content_policy",
    "data_inspection_failed",
    "moderation",
    "guardrail",
];

/// What a filter says where it has no code.
const FILTERED_WORDS: [&str; 5] = [
    "content management policy",
    "content filter",
    "content policy",
    "requires moderation",
    "safety system",
];

/// The prompt is longer than the model reads.
const TOO_LONG: [&str; 3] = ["context_length", "exceed_context", "request_too_large"];
const TOO_LONG_WORDS: [&str; 4] = [
    "context length",
    "context window",
    "maximum context",
    "prompt is too long",
];

/// Whatever is asked, the answer will be the same: key, account, model or form of the request.
const MISCONFIGURED: [&str; 16] = [
    "invalid_api_key",
    "api_key_invalid",
    "authentication",
    "unauthenticated",
    "unauthorized",
    "permission",
    "model_not_found",
    "not_found",
    "notfound",
    "insufficient_quota",
    "billing",
    "deactivated",
    "unsupported",
    "unknown_parameter",
    "extra_forbidden",
    "invalid_model",
];
const MISCONFIGURED_WORDS: [&str; 10] = [
    "api key",
    "does not exist",
    "not a valid model",
    "model not found",
    "unknown model",
    "unsupported parameter",
    "is unsupported",
    "unrecognized request argument",
    "extra inputs are not permitted",
    "extra fields not permitted",
];

const BUSY: [&str; 5] = [
    "rate_limit",
    "overloaded",
    "too_many_requests",
    "resource_exhausted",
    "slow_down",
];

impl Refusal {
    /// From the body of a response that is no answer.
    pub(super) fn of_response(status: u16, body: &[u8]) -> Self {
        let mut refusal = match serde_json::from_slice::<Value>(body) {
            Ok(value) => Self::of_event(&value),
            Err(_) => Self {
                message: String::from_utf8_lossy(body).trim().to_owned(),
                ..Self::default()
            },
        };
        refusal.status = Some(status);
        refusal
    }

    /// From an error in a stream.
    pub(super) fn of_event(event: &Value) -> Self {
        // Gemini wraps its error in a list.
        let event = event.get(0).unwrap_or(event);
        let of_choice = || event.get("choices")?.get(0)?.get("error");
        let error = ["error", "errors", "detail"]
            .iter()
            .filter_map(|key| event.get(key))
            .chain(of_choice())
            .find(|error| says_something(error))
            .unwrap_or(event);
        let error = error.get(0).unwrap_or(error);
        let mut codes = String::new();
        let places = [Some(event), Some(error), error.get("innererror")];
        for place in places.into_iter().flatten() {
            for key in ["code", "type", "status", "error_code", "reason"] {
                match place.get(key) {
                    Some(Value::String(code)) => codes.push_str(&code.to_ascii_lowercase()),
                    Some(Value::Number(code)) => codes.push_str(&code.to_string()),
                    _ => continue,
                }
                codes.push(' ');
            }
        }
        let status = codes
            .split(' ')
            .find_map(|code| code.parse().ok().filter(|code| (400..600).contains(code)));
        let message = ["message", "msg", "detail", "error"]
            .iter()
            .find_map(|key| error.get(key)?.as_str())
            .or_else(|| error.as_str())
            .map_or_else(|| error.to_string(), str::to_owned);
        Self {
            status,
            codes,
            message,
        }
    }

    /// What it comes to. `pause` is what the response asks for.
    pub(super) fn error(&self, pause: Option<Duration>) -> UpstreamError {
        let coded = |words: &[&str]| words.iter().any(|word| self.codes.contains(word));
        let message = self.message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        let status = self.status.unwrap_or(0);
        // A word in passing decides nothing where the status already says that the upstream failed.
        let is_refusal = !(500..600).contains(&status) && status != 429 && !coded(&BUSY);
        if coded(&FILTERED) || (is_refusal && says(&FILTERED_WORDS)) {
            return UpstreamError::Filtered;
        }
        if coded(&TOO_LONG) || (is_refusal && says(&TOO_LONG_WORDS)) {
            return UpstreamError::Refused;
        }
        if coded(&["insufficient_quota"])
            || (is_refusal && (coded(&MISCONFIGURED) || says(&MISCONFIGURED_WORDS)))
        {
            return UpstreamError::Misconfigured;
        }
        match status {
            // 529 is Anthropic's, 409 and 425 ask for another try too.
            409 | 425 | 429 | 503 | 529 => UpstreamError::Busy(pause),
            // 524 is Cloudflare's.
            408 | 504 | 524 => UpstreamError::TimedOut,
            400 | 413 | 414 | 422 | 431 => UpstreamError::Refused,
            // A redirect is not followed: its target was not configured.
            300..=499 => UpstreamError::Misconfigured,
            _ if coded(&BUSY) => UpstreamError::Busy(pause),
            _ if coded(&["invalid_request", "badrequest", "bad_request"]) => UpstreamError::Refused,
            _ => UpstreamError::Failed,
        }
    }

    /// Its codes alone, for the log: they quote nobody.
    pub(super) fn codes(&self) -> &str {
        self.codes.trim_end()
    }

    /// Its codes and words, for the log.
    pub(super) fn said(&self) -> String {
        match self.codes.trim_end() {
            "" => self.message.clone(),
            codes => format!("{codes}: {}", self.message),
        }
    }
}

/// The error that an event is, if it is one. Every server has its own shape for it.
pub(super) fn is_error(event: &Value) -> bool {
    if event.get("error").is_some_and(says_something) {
        return true;
    }
    let is_named = |key| event.get(key).and_then(Value::as_str) == Some("error");
    if is_named("object") || is_named("type") {
        return true;
    }
    let choices = event.get("choices").and_then(Value::as_array);
    if let Some(choice) = choices.and_then(|choices| choices.first()) {
        return choice.get("error").is_some_and(says_something);
    }
    // An answer's chunk without choices says nothing of the kind.
    let says = |key| event.get(key).is_some_and(says_something);
    let is_message = event.get("message").is_some_and(Value::is_string)
        || event.get("msg").is_some_and(Value::is_string);
    choices.is_none() && (says("detail") || says("errors") || is_message || is_named("status"))
}

/// Not `null`, `""`, `{}`, `[]`, `false` or 0, which some send beside every piece of an answer.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_one) => *is_one,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(object) => !object.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // M9
    #[test]
    fn refusals_are_told_apart_by_what_they_say() {
        use UpstreamError::{Busy, Failed, Filtered, Misconfigured, Refused, TimedOut};
        let coded = |code: &str| json!({"error": {"code": code, "message": "m"}});
        let said = |message: &str| json!({"error": {"message": message}});
        for (status, body, expected) in [
            (400, coded("content_filter"), Filtered),
            (
                400,
                json!({"error": {"code": null, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
                Filtered,
            ),
            (
                403,
                said("Your chosen model requires moderation and your input was flagged"),
                Filtered,
            ),
            (400, coded("data_inspection_failed"), Filtered),
            (400, coded("context_length_exceeded"), Refused),
            (
                400,
                json!({"object": "error", "message": "This model's maximum context length is 4096 tokens"}),
                Refused,
            ),
            (413, json!({}), Refused),
            (
                422,
                json!({"detail": [{"type": "missing", "msg": "Field required"}]}),
                Refused,
            ),
            (
                422,
                json!({"detail": [{"type": "extra_forbidden", "msg": "Extra inputs are not permitted"}]}),
                Misconfigured,
            ),
            (400, coded("unsupported_parameter"), Misconfigured),
            (
                400,
                json!([{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}]),
                Misconfigured,
            ),
            (400, said("gpt-9 is not a valid model ID"), Misconfigured),
            (401, said("who"), Misconfigured),
            (402, said("pay"), Misconfigured),
            (404, json!({"error": "model 'x' not found"}), Misconfigured),
            (405, json!(null), Misconfigured),
            (302, json!(null), Misconfigured),
            (429, coded("insufficient_quota"), Misconfigured),
            (429, coded("rate_limit_exceeded"), Busy(None)),
            (429, said("the api key has reached its limit"), Busy(None)),
            (503, said("the model does not exist yet"), Busy(None)),
            (
                529,
                json!({"type": "error", "error": {"type": "overloaded_error"}}),
                Busy(None),
            ),
            (500, said("CUDA out of memory"), Failed),
            (524, json!(null), TimedOut),
        ] {
            let refusal = Refusal::of_response(status, body.to_string().as_bytes());
            assert_eq!(refusal.error(None), expected, "{status} {body}");
        }
        let page = Refusal::of_response(404, b"<html>\n404</html>\n");
        assert_eq!(page.error(None), Misconfigured);
        assert_eq!(page.said(), "<html>\n404</html>");
    }

    // M3
    #[test]
    fn errors_of_every_shape_are_seen_and_nothing_else_is_one() {
        for event in [
            json!({"error": {"message": "m"}}),
            json!({"error": "m"}),
            json!({"object": "error", "message": "m", "code": 400}),
            json!({"type": "error", "error": {"type": "overloaded_error"}}),
            json!({"detail": "m"}),
            json!({"detail": [{"msg": "m"}]}),
            json!({"errors": [{"message": "m"}]}),
            json!({"message": "m", "type": "internal"}),
            json!({"code": 500, "msg": "m"}),
            json!({"status": "error"}),
            json!({"choices": [{"delta": {}, "error": {"code": 502}}]}),
            json!({"choices": [], "error": {"code": 502}}),
        ] {
            assert!(is_error(&event), "{event}");
        }
        for event in [
            json!({"error": null, "choices": []}),
            json!({"error": {}, "choices": [{"delta": {"content": "a"}}]}),
            json!({"error": "", "choices": []}),
            json!({"choices": [], "message": "warming up"}),
            json!({"message": {"content": "a"}}),
            json!({"type": "ping"}),
            json!({}),
            json!({"choices": [{"error": null}]}),
        ] {
            assert!(!is_error(&event), "{event}");
        }
    }

    #[test]
    fn an_error_in_a_stream_tells_its_status() {
        let of = |event: Value| Refusal::of_event(&event).error(None);
        assert_eq!(
            of(json!({"object": "error", "message": "m", "code": 400})),
            UpstreamError::Refused
        );
        assert_eq!(
            of(json!({"error": {"code": "429"}})),
            UpstreamError::Busy(None)
        );
        assert_eq!(
            of(json!({"error": {"type": "invalid_request_error"}})),
            UpstreamError::Refused
        );
        assert_eq!(of(json!({"error": "out of memory"})), UpstreamError::Failed);
        let said = Refusal::of_event(&json!({"error": {"code": "x", "message": "words"}})).said();
        assert_eq!(said, "x: words");
    }
}
