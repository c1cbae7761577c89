//! Text as PostgreSQL can hold it, and its digest.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a text.
pub(super) type Digest = [u8; 32];

/// PostgreSQL's text has no NUL, JSON's has: one message with it would fail its whole batch. It
/// becomes U+FFFD, as a decoder would do with a byte it cannot take.
pub(super) fn storable(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{FFFD}")
    } else {
        text
    }
}

/// The same for a JSON object, its keys too.
pub(super) fn storable_map(map: Map<String, Value>) -> Map<String, Value> {
    map.into_iter()
        .map(|(key, value)| (storable(key), storable_value(value)))
        .collect()
}

fn storable_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(storable(text)),
        Value::Array(items) => items.into_iter().map(storable_value).collect(),
        Value::Object(map) => Value::Object(storable_map(map)),
        other => other,
    }
}

/// What tells a repeated message from a conflict.
pub(super) fn digest(text: &str) -> Digest {
    Sha256::digest(text.as_bytes()).into()
}
