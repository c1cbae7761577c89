//! Serde's complaints in the words of the API. They quote what was sent and name Rust's types, so nothing of
//! them is passed on but names of fields.

use serde_path_to_error::{Path, Segment};

/// The longest name of an unknown field that is repeated, in characters.
const NAME_CHARS: usize = 64;

/// The place, as a JSON pointer, and what is wrong there.
pub(super) fn explain(path: &Path, message: &str) -> (String, String) {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Map { key } => push(&mut pointer, key),
            Segment::Enum { variant } => push(&mut pointer, variant),
            Segment::Unknown => {}
        }
    }
    // Behind the last of these stands the place, and before it what serde says.
    let message = message
        .rsplit_once(" at line ")
        .map_or(message, |(said, _)| said);
    let (name, detail) = told(message);
    if let Some(name) = name
        && !ends_in(path, name)
    {
        push(&mut pointer, name);
    }
    (pointer, detail)
}

/// A field that is not in the path, and what is wrong with it.
fn told(message: &str) -> (Option<&str>, String) {
    if let Some(rest) = message.strip_prefix("missing field `") {
        return (rest.strip_suffix('`'), "is missing".to_owned());
    }
    if let Some(rest) = message.strip_prefix("duplicate field `") {
        return (rest.strip_suffix('`'), "is given twice".to_owned());
    }
    if let Some(rest) = message.strip_prefix("unknown field `") {
        // The name is the client's, and may hold anything; what follows the last of these is ours.
        let (name, allowed) = rest.rsplit_once("`, expected ").unwrap_or((rest, ""));
        return (Some(name), unknown(allowed));
    }
    let expected = message
        .rsplit_once(", expected ")
        .map(|(_, expected)| expected);
    if message.starts_with("unknown variant") {
        return (None, unknown(expected.unwrap_or_default()));
    }
    let detail = match expected.and_then(named) {
        Some(kind) => format!("must be {kind}"),
        None => custom(message).to_owned(),
    };
    (None, detail)
}

fn unknown(allowed: &str) -> String {
    let names: Vec<&str> = allowed.split('`').skip(1).step_by(2).collect();
    if names.is_empty() {
        return "is unknown".to_owned();
    }
    format!("is unknown; allowed are {}", names.join(", "))
}

/// What was expected, in words that do not depend on the program's types.
fn named(expected: &str) -> Option<&'static str> {
    Some(match expected {
        "a string" | "a borrowed string" | "str" => "a string",
        "a boolean" => "true or false",
        "u32" => "a whole number from 0 to 4294967295",
        "u8" | "u16" | "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "an array",
        "a map" | "any valid JSON object" => "an object",
        text if text.starts_with("struct ") => "an object",
        text if text.contains("UUID") => "a UUID",
        _ => return None,
    })
}

/// Errors of the types themselves, which name no kind.
fn custom(message: &str) -> &'static str {
    if message.starts_with("UUID parsing failed") {
        "must be a UUID"
    } else if message.starts_with("number too large") {
        "must be a smaller number"
    } else if message.starts_with("invalid digit") || message.starts_with("cannot parse integer") {
        "must be a whole number"
    } else if message.starts_with("provided string was not `true` or `false`") {
        "must be true or false"
    } else {
        "is not valid"
    }
}

fn ends_in(path: &Path, name: &str) -> bool {
    let last = path.iter().next_back();
    matches!(last, Some(Segment::Map { key }) if key == name)
}

fn push(pointer: &mut String, name: &str) {
    pointer.push('/');
    for character in name.chars().take(NAME_CHARS) {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}
