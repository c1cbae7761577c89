//! The golden frames in `protocol/examples`: each decodes into this crate's types and encodes back
//! to an equal JSON value, and no kind of frame is without an example. The widget's types are
//! checked against the same files.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected shall fail it, in its functions too"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use hubbub_protocol::reply::ErrorBody;
use hubbub_protocol::{ClientFrame, ErrorCode, ServerFrame, limits};
use serde_json::Value;

fn examples(side: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .filter(|(name, _)| name.starts_with(side))
        .collect();
    found.sort();
    found
}

fn kinds(examples: &[(String, String)]) -> BTreeSet<String> {
    examples
        .iter()
        .map(|(_, text)| {
            let value: Value = serde_json::from_str(text).unwrap();
            value["type"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// Kinds and states an enum knows, as serde itself names them when it refuses an unknown one.
fn known<T: serde::de::DeserializeOwned>(probe: &str) -> BTreeSet<String> {
    let Err(error) = serde_json::from_str::<T>(probe) else {
        panic!("the probe decoded")
    };
    let message = error.to_string();
    let (_, expected) = message.split_once("expected one of ").unwrap();
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_client_frame_survives_a_round_trip() {
    for (name, text) in examples("client.") {
        let frame = ClientFrame::decode(&text, limits::TEXT_CHARS);
        let frame = frame.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let golden: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&frame).unwrap(), golden, "{name}");
    }
}

#[test]
fn every_server_frame_survives_a_round_trip() {
    for (name, text) in examples("server.") {
        let frame: ServerFrame =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let golden: Value = serde_json::from_str(&text).unwrap();
        let encoded: Value = serde_json::from_str(&frame.encode()).unwrap();
        assert_eq!(encoded, golden, "{name}");
    }
}

#[test]
fn every_kind_of_frame_has_an_example() {
    let probe = r#"{"type":"no such frame"}"#;
    assert_eq!(kinds(&examples("client.")), known::<ClientFrame>(probe));
    assert_eq!(kinds(&examples("server.")), known::<ServerFrame>(probe));
}

#[test]
fn every_file_is_named_after_its_frame() {
    for side in ["client.", "server."] {
        for (name, text) in examples(side) {
            let value: Value = serde_json::from_str(&text).unwrap();
            let kind = value["type"].as_str().unwrap();
            let rest = name.strip_prefix(side).unwrap().strip_prefix(kind);
            assert!(
                rest.is_some_and(|rest| rest.starts_with('.')),
                "{name} holds a {kind}"
            );
        }
    }
}

/// A refusal that passes by itself says when, wherever it stands in a frame.
#[test]
fn every_error_that_passes_says_when_to_try_again() {
    fn check(name: &str, value: &Value) -> usize {
        let passes = ["rate_limited", "overloaded", "unavailable"];
        let code = value.get("code").and_then(Value::as_str);
        let is_passing = code.is_some_and(|code| passes.contains(&code));
        if is_passing {
            let wait_ms = value.get("retry_after_ms").and_then(Value::as_u64);
            assert!(wait_ms.is_some_and(|ms| ms > 0), "{name}: {value}");
        }
        let within: Box<dyn Iterator<Item = &Value>> = match value {
            Value::Array(items) => Box::new(items.iter()),
            Value::Object(fields) => Box::new(fields.values()),
            _ => Box::new(std::iter::empty()),
        };
        usize::from(is_passing) + within.map(|value| check(name, value)).sum::<usize>()
    }
    let examples = examples("server.");
    let found = examples.iter().map(|(name, text)| {
        let value: Value = serde_json::from_str(text).unwrap();
        check(name, &value)
    });
    assert!(found.sum::<usize>() >= 3, "no example holds such an error");

    // And every one that is made.
    for code in known_codes() {
        let value = serde_json::to_value(ErrorBody::new(code, "try again")).unwrap();
        check("made", &value);
        let told = ErrorBody::new(code, "try again").retry_after_ms(Some(7));
        assert_eq!(told.retry_after_ms, Some(7));
    }
}

fn known_codes() -> Vec<ErrorCode> {
    let names = known::<ErrorCode>("\"no such code\"");
    assert_eq!(names.len(), ErrorCode::ALL.len());
    let codes = names.into_iter().map(Value::from);
    codes
        .map(|name| serde_json::from_value(name).unwrap())
        .collect()
}
