//! What one event of an answer says, however its upstream spells it. Pure.
//!
//! Nearly all events are one piece of text in the documented shape: [`Token`] reads those without
//! copying. Whatever is not exactly that is read as plain JSON by [`Chunk::of`].

use std::borrow::Cow;

use hubbub_actors::ports::Finish;
use hubbub_protocol::Usage;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::finish::{Reason, reason};

/// More tokens than any model has room for: a count beyond it is nonsense.
const MOST_TOKENS: u64 = 1_000_000_000;

/// The usual event: one choice with a piece of text, and nothing else that matters.
#[derive(Deserialize)]
struct RawToken<'a> {
    #[serde(borrow, default)]
    model: Option<Borrowed<'a>>,
    #[serde(borrow)]
    choices: [RawChoice<'a>; 1],
    #[serde(default)]
    usage: Option<IgnoredAny>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawChoice<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow)]
    delta: RawDelta<'a>,
    #[serde(default)]
    finish_reason: Option<IgnoredAny>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawDelta<'a> {
    #[serde(borrow)]
    content: Borrowed<'a>,
}

/// `Option<Cow>` would be read as owned; a newtype of its own is borrowed.
#[derive(Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

/// A piece of text and nothing else.
pub(super) struct Token<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) model: Option<Cow<'a, str>>,
    pub(super) index: u64,
}

impl<'a> Token<'a> {
    /// `None` if the event is anything but that.
    pub(super) fn of(data: &'a [u8]) -> Option<Self> {
        let raw: RawToken<'a> = serde_json::from_slice(data).ok()?;
        let [choice] = raw.choices;
        let has_more = raw.usage.is_some()
            || raw.error.is_some()
            || choice.finish_reason.is_some()
            || choice.error.is_some();
        (!has_more).then(|| Self {
            text: choice.delta.content.0,
            model: raw.model.map(|model| model.0),
            index: choice.index.unwrap_or(0),
        })
    }
}

/// What any other event says.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) model: Option<String>,
    /// Of the choice that [`pieces`](Self::pieces) and [`reason`](Self::reason) are from.
    pub(super) index: u64,
    /// In order; each may begin or end within a character.
    pub(super) pieces: Vec<String>,
    /// The text is the whole message so far, not the next piece of it.
    pub(super) is_message: bool,
    pub(super) reason: Option<Reason>,
    /// The reason as it was given, for the log.
    pub(super) reason_word: String,
    pub(super) usage: Option<Usage>,
}

impl Chunk {
    /// Reads an object. Of several choices the one with this index counts, else the first.
    pub(super) fn of(event: &Value, index: Option<u64>) -> Self {
        let mut chunk = Self {
            model: text_of(event, "model").map(str::to_owned),
            usage: usage(event),
            ..Self::default()
        };
        let Some(choice) = choice(event, index) else {
            return chunk;
        };
        chunk.index = index_of(choice);
        chunk.add_reason(choice);
        chunk.add_text(choice);
        // A whole answer says so by its kind: it needs no reason to be over.
        let is_whole = text_of(event, "object") == Some("chat.completion") && chunk.is_message;
        if is_whole && chunk.reason.is_none() {
            chunk.reason = Some(Reason::Good(Finish::Complete));
        }
        // Some say "stop" when the thinking is over, in its last piece, and answer then.
        let is_complete = chunk.reason == Some(Reason::Good(Finish::Complete));
        if is_complete && chunk.pieces.is_empty() && is_thought(choice) {
            chunk.reason = None;
        }
        chunk
    }

    fn add_reason(&mut self, choice: &Value) {
        for key in ["finish_reason", "finishReason", "done_reason"] {
            if let Some(value) = choice.get(key)
                && let Some(reason) = reason(value)
            {
                self.reason = Some(reason);
                self.reason_word = format!("{key} {value}");
                return;
            }
        }
    }

    fn add_text(&mut self, choice: &Value) {
        match choice.get("delta").filter(|delta| !delta.is_null()) {
            Some(Value::Object(delta)) => {
                for key in ["content", "text", "refusal"] {
                    add_content(delta.get(key), &mut self.pieces);
                }
            }
            Some(delta) => add_content(Some(delta), &mut self.pieces),
            None => {}
        }
        if choice.get("delta").is_none_or(Value::is_null) {
            let message = choice.get("message").filter(|message| message.is_object());
            self.is_message = message.is_some();
            for key in ["content", "refusal"] {
                add_content(
                    message.and_then(|message| message.get(key)),
                    &mut self.pieces,
                );
            }
            if message.is_none() {
                add_content(choice.get("text"), &mut self.pieces);
            }
        }
    }
}

/// The choice that counts. An object that is itself one stands for it.
fn choice(event: &Value, index: Option<u64>) -> Option<&Value> {
    match event.get("choices") {
        Some(Value::Array(choices)) => {
            let mut of_index = choices
                .iter()
                .filter(|choice| Some(index_of(choice)) == index);
            of_index.next().or(choices.first())
        }
        Some(choice @ Value::Object(_)) => Some(choice),
        _ => Some(event).filter(|event| {
            ["delta", "message"]
                .iter()
                .any(|key| event.get(key).is_some())
        }),
    }
}

fn index_of(choice: &Value) -> u64 {
    choice.get("index").and_then(Value::as_u64).unwrap_or(0)
}

/// Whether it is a piece of thinking aloud.
fn is_thought(choice: &Value) -> bool {
    ["reasoning_content", "reasoning", "thinking"]
        .iter()
        .filter_map(|key| choice.get("delta")?.get(key))
        .any(|thought| thought.as_str().is_some_and(|thought| !thought.is_empty()))
}

/// Adds a content: a text, or a list of parts, of which those for the reader count.
fn add_content(content: Option<&Value>, pieces: &mut Vec<String>) {
    match content {
        Some(Value::String(text)) if !text.is_empty() => pieces.push(text.clone()),
        // A token of digits, written without quotes.
        Some(number @ Value::Number(_)) => pieces.push(number.to_string()),
        Some(Value::Array(parts)) => parts
            .iter()
            .for_each(|part| add_content(Some(part), pieces)),
        Some(Value::Object(part)) => {
            let is_thought = part
                .get("type")
                .and_then(Value::as_str)
                .is_some_and(|kind| kind.contains("think") || kind.contains("reason"));
            let keys = ["text", "value", "content", "refusal"];
            if let Some(key) = keys.iter().find(|key| part.contains_key(**key))
                && !is_thought
            {
                add_content(part.get(*key), pieces);
            }
        }
        _ => {}
    }
}

/// The upstream's count, if it makes sense.
fn usage(event: &Value) -> Option<Usage> {
    let counted = event
        .get("usage")
        .filter(|usage| usage.is_object())
        .or_else(|| event.get("x_groq")?.get("usage"))?;
    let either = |keys: [&str; 2]| keys.iter().find_map(|key| counted.get(key).and_then(count));
    let input = either(["prompt_tokens", "input_tokens"]);
    let output = either(["completion_tokens", "output_tokens"]);
    let total = counted.get("total_tokens").and_then(count);
    let rest = |of: Option<u64>| total?.checked_sub(of?);
    let details = ["prompt_tokens_details", "input_tokens_details"];
    let details = details.iter().find_map(|key| counted.get(key));
    // One provider calls it otherwise, beside the others.
    let cached = details
        .and_then(|details| details.get("cached_tokens"))
        .or_else(|| counted.get("prompt_cache_hit_tokens"));
    let input = input.or_else(|| rest(output))?;
    Some(Usage {
        input_tokens: input,
        output_tokens: output.or_else(|| rest(Some(input)))?,
        cached_input_tokens: cached.and_then(count).unwrap_or(0).min(input),
        estimated: false,
    })
}

/// A number of tokens, also as a float or in quotes.
fn count(value: &Value) -> Option<u64> {
    let number = match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| *number <= MOST_TOKENS)
}

/// A float that counts something.
fn whole(number: f64) -> Option<u64> {
    // The text of a whole float is that of the integer: no lossy cast.
    (number >= 0.0).then(|| format!("{number:.0}").parse().ok())?
}

fn text_of<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(event: &Value) -> String {
        Chunk::of(event, None).pieces.concat()
    }

    // M7
    #[test]
    fn content_is_read_in_every_shape() {
        let delta = |content: Value| json!({"choices": [{"delta": {"content": content}}]});
        for content in [
            json!("It is "),
            json!([{"type": "text", "text": "It is "}]),
            json!([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, "It ", {"text": "is "}]),
            json!({"type": "text", "text": "It is "}),
            json!({"type": "output_text", "text": {"value": "It is "}}),
        ] {
            assert_eq!(text(&delta(content.clone())), "It is ", "{content}");
        }
        assert_eq!(text(&delta(json!(42))), "42");
        for event in [
            json!({"choices": [{"text": "a"}]}),
            json!({"choices": [{"message": {"content": "a"}}]}),
            json!({"choices": [{"delta": null, "message": {"content": [{"text": "a"}]}}]}),
            json!({"choices": [{"delta": "a"}]}),
            json!({"choices": {"delta": {"content": "a"}}}),
            json!({"choices": [{"delta": {"refusal": "a", "content": null}}]}),
            json!({"message": {"role": "assistant", "content": "a"}, "done": false}),
        ] {
            assert_eq!(text(&event), "a", "{event}");
        }
        // Some send the message so far beside each piece of it.
        let both = json!({"choices": [{"delta": {"content": "b"}, "message": {"content": "ab"}}]});
        assert_eq!(text(&both), "b");
    }

    // M6
    #[test]
    fn counts_are_read_in_every_shape_and_nonsense_is_none() {
        let counted = |usage: Value| {
            Chunk::of(&json!({"choices": [], "usage": usage}), None)
                .usage
                .map(|usage| (usage.input_tokens, usage.output_tokens))
        };
        for usage in [
            json!({"prompt_tokens": 9, "completion_tokens": 3}),
            json!({"prompt_tokens": 9.0, "completion_tokens": "3"}),
            json!({"input_tokens": 9, "output_tokens": 3}),
            json!({"prompt_tokens": 9, "total_tokens": 12}),
            json!({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": null}),
        ] {
            assert_eq!(counted(usage.clone()), Some((9, 3)), "{usage}");
        }
        for usage in [
            json!(null),
            json!([]),
            json!(7),
            json!({}),
            json!({"prompt_tokens": null, "completion_tokens": null}),
            json!({"prompt_tokens": -1, "completion_tokens": 3}),
            json!({"prompt_tokens": 9, "completion_tokens": 1e300}),
            json!({"prompt_tokens": 9, "completion_tokens": "many"}),
        ] {
            assert_eq!(counted(usage.clone()), None, "{usage}");
        }
        let groq = json!({"choices": [], "x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 3}}});
        assert!(Chunk::of(&groq, None).usage.is_some());
    }

    #[test]
    fn only_plain_pieces_of_text_are_tokens() {
        let token = |data: &str| Token::of(data.as_bytes()).map(|token| token.text.into_owned());
        let plain = r#"{"model":"m","choices":[{"index":0,"delta":{"content":"a\n"},"finish_reason":null}],"usage":null}"#;
        assert_eq!(token(plain).as_deref(), Some("a\n"));
        for other in [
            r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"usage":{}}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"error":{}}"#,
            r#"{"choices":[{"delta":{"content":null}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}"#,
            r#"{"choices":[]}"#,
            r#"{"choices":[{"delta":{"content":"\ud83d"}}]}"#,
        ] {
            assert_eq!(token(other), None, "{other}");
        }
    }
}
