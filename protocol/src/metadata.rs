//! What a client sends along with a message, kept as it wrote it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::{ErrorCode, limits};

/// A JSON object as its sender wrote it, byte for byte: the order of its keys, the digits of its numbers,
/// its escapes and blanks. Reading it into values and writing those again would change all of these.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(Box<RawValue>);

impl Metadata {
    /// From JSON text.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn from_json(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Why it is not taken, if it is not: a program that reads it must come to the same values whatever
    /// language it is written in, and must be able to read it at all.
    pub fn violation(&self) -> Option<(ErrorCode, &'static str)> {
        if self.as_str().len() > limits::METADATA_BYTES {
            return Some((ErrorCode::TooLarge, "metadata is larger than 4 KiB"));
        }
        // Finds lone surrogates and numbers beyond a double, which JSON's grammar allows.
        let Ok(map) = serde_json::from_str::<Map<String, Value>>(self.as_str()) else {
            let unreadable = "metadata must be a JSON object whose strings are valid Unicode and whose \
                numbers fit a double";
            return Some((ErrorCode::Invalid, unreadable));
        };
        let contents = Contents::of_map(&map);
        if contents.depth > limits::METADATA_DEPTH {
            let too_deep = "metadata is nested more than 100 levels deep";
            return Some((ErrorCode::Invalid, too_deep));
        }
        contents
            .has_nul
            .then_some((ErrorCode::Invalid, "metadata contains a NUL character"))
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What matters of a value. Its depth is bounded by the parser, which stops at 128 levels.
#[derive(Clone, Copy, Debug, Default)]
struct Contents {
    depth: usize,
    has_nul: bool,
}

impl Contents {
    fn of(value: &Value) -> Self {
        match value {
            Value::String(text) => Self {
                depth: 0,
                has_nul: text.contains('\0'),
            },
            Value::Array(items) => items.iter().map(Self::of).fold(Self::level(), Self::and),
            Value::Object(map) => Self::of_map(map),
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::default(),
        }
    }

    fn of_map(map: &Map<String, Value>) -> Self {
        map.iter()
            .map(|(key, value)| {
                let value = Self::of(value);
                Self {
                    has_nul: value.has_nul || key.contains('\0'),
                    ..value
                }
            })
            .fold(Self::level(), Self::and)
    }

    /// An empty array or object.
    fn level() -> Self {
        Self {
            depth: 1,
            has_nul: false,
        }
    }

    /// With one more item.
    fn and(self, item: Self) -> Self {
        Self {
            depth: self.depth.max(item.depth + 1),
            has_nul: self.has_nul || item.has_nul,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(text: &str) -> Option<ErrorCode> {
        let metadata = Metadata::from_json(text).unwrap();
        metadata.violation().map(|(code, _)| code)
    }

    // S1
    #[test]
    fn what_can_be_read_by_everybody_is_taken_as_it_is() {
        for text in [
            "{}",
            r#"{"x":1.7976931348623157e308}"#,
            r#"{"x":24.066300012702502,"y":-0.0,"z":0.1e1,"n":12345678901234567890123,"e":1E5}"#,
            r#"{ "b" : 1 , "a" : [ ], "a": "\u00e9\/é\ud83d\ude00" }"#,
            r#"{"tiny":1e-400}"#,
        ] {
            assert_eq!(violation(text), None, "{text}");
            let again = serde_json::to_string(&Metadata::from_json(text).unwrap()).unwrap();
            assert_eq!(again, text);
        }
    }

    // S1
    #[test]
    fn what_some_reader_could_not_read_is_refused() {
        let nested = |depth| format!(r#"{{"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        for text in [
            "[]",
            "1",
            r#"{"x":1e400}"#,
            r#"{"x":"\ud83d"}"#,
            r#"{"\ude00":1}"#,
            r#"{"x":"a\u0000b"}"#,
            r#"{"a\u0000b":[]}"#,
            r#"{"x":[{"y":"\u0000"}]}"#,
            &nested(100),
            &nested(1_000),
        ] {
            assert_eq!(violation(text), Some(ErrorCode::Invalid), "{text}");
        }
        assert_eq!(violation(&nested(99)), None);
        let filled = |bytes: usize| format!(r#"{{"x":"{}"}}"#, "é".repeat((bytes - 8) / 2));
        assert_eq!(violation(&filled(4_096)), None);
        assert_eq!(violation(&filled(4_098)), Some(ErrorCode::TooLarge));
        // As sent: blanks count.
        let blank = format!("{{{}}}", " ".repeat(4_095));
        assert_eq!(violation(&blank), Some(ErrorCode::TooLarge));
    }
}
