//! Why a model says it stopped, in the words of every upstream we know of. Pure.
//!
//! The words differ ("stop", "eos", "end_turn", "STOP", "stop_sequence"), so they are told apart by
//! what they contain: a new spelling of a known reason is understood too. What is none of them is no
//! end: an answer cut in mid-sentence must never pass for a whole one.

use hubbub_actors::ports::{Finish, UpstreamError};
use serde_json::Value;

/// What a reason means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The answer has its end.
    Good(Finish),
    /// The answer is over without one.
    Bad(UpstreamError),
    /// Not a reason that says so.
    Unknown,
}

/// Placeholders of upstreams that send a word in every chunk.
const STILL_RUNNING: [&str; 6] = [
    "null",
    "none",
    "undefined",
    "in_progress",
    "continue",
    "finish_reason_unspecified",
];

/// The provider's filter, or the model's own refusal.
const FILTERED: [&str; 13] = [
    "filter",
    "safety",
    "prohibited",
    "blocklist",
    "blocked",
    "recitation",
    "spii",
    "guardrail",
    "moderat",
    "refus",
    "toxic",
    "sensitive",
    "policy",
];

/// Before the good words: "error_stop" is an error, and so is "network_error".
const FAILED: [&str; 15] = [
    "error",
    "fail",
    "abort",
    "cancel",
    "interrupt",
    "time",
    "disconnect",
    "insufficient",
    "malformed",
    "invalid",
    "exception",
    "unavailable",
    "overload",
    "rate_limit",
    "quota",
];

const LENGTH: [&str; 6] = [
    "length",
    "token",
    "truncat",
    "max_",
    "context_window",
    "output_limit",
];

/// Beginnings of words: "pending" is not "end", and "incomplete" not "complete".
const COMPLETE: [&str; 10] = [
    "stop", "end", "eos", "eot", "complet", "finish", "done", "success", "tool", "function",
];

/// Reads a `finish_reason`; `None` is none yet. Some servers send an object with a `type`.
pub(super) fn reason(value: &Value) -> Option<Reason> {
    let word = match value {
        Value::String(word) => word,
        Value::Object(object) => object.get("type")?.as_str()?,
        _ => return None,
    };
    let word = word.trim().to_ascii_lowercase().replace([' ', '-'], "_");
    if word.is_empty() || STILL_RUNNING.contains(&word.as_str()) {
        return None;
    }
    let says = |words: &[&str]| words.iter().any(|known| word.contains(known));
    let any_part = |is: &dyn Fn(&str) -> bool| word.split('_').any(is);
    let is_complete = any_part(&|part| COMPLETE.iter().any(|known| part.starts_with(known)))
        && !any_part(&|part| part == "not");
    // "eos_token" ends well, whatever the token.
    let is_length =
        says(&LENGTH) && !any_part(&|part| ["eos", "eot", "stop", "end"].contains(&part));
    Some(if says(&FILTERED) {
        Reason::Bad(UpstreamError::Filtered)
    } else if says(&FAILED) {
        Reason::Bad(UpstreamError::Failed)
    } else if is_length {
        Reason::Good(Finish::Length)
    } else if is_complete {
        Reason::Good(Finish::Complete)
    } else {
        Reason::Unknown
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // M2, M3
    #[test]
    fn the_reasons_of_all_upstreams_are_told_apart() {
        let complete = Reason::Good(Finish::Complete);
        let (length, failed) = (
            Reason::Good(Finish::Length),
            Reason::Bad(UpstreamError::Failed),
        );
        let filtered = Reason::Bad(UpstreamError::Filtered);
        for (words, expected) in [
            (
                "stop STOP eos eos_token stop_sequence end_turn end-turn COMPLETE tool_calls \
                 function_call tool_use eot stop_token endoftext finished",
                complete,
            ),
            (
                "length max_tokens MAX_TOKENS model_length max_output_tokens max_completion_tokens max_length token_limit \
                 model_context_window_exceeded",
                length,
            ),
            (
                "content_filter SAFETY content_filtered guardrail_intervened PROHIBITED_CONTENT \
                 RECITATION BLOCKLIST SPII refusal ERROR_TOXIC sensitive",
                filtered,
            ),
            (
                "error ERROR abort cancelled insufficient_system_resource network_error \
                 MALFORMED_FUNCTION_CALL timeout error_limit rate_limit time_limit",
                failed,
            ),
            (
                "OTHER LANGUAGE whatever pending incomplete unfinished not_done",
                Reason::Unknown,
            ),
        ] {
            for word in words.split(' ').filter(|word| !word.is_empty()) {
                assert_eq!(reason(&json!(word)), Some(expected), "{word}");
            }
        }
        assert_eq!(reason(&json!({"type": "stop"})), Some(complete));
    }

    // M2
    #[test]
    fn what_says_nothing_is_no_reason() {
        for value in [
            json!(null),
            json!(""),
            json!(" "),
            json!("null"),
            json!("None"),
            json!(false),
            json!({}),
        ] {
            assert_eq!(reason(&value), None, "{value}");
        }
    }
}
