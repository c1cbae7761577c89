use proptest::prelude::*;

use super::*;

fn code_of(text: &str) -> ErrorCode {
    ClientFrame::decode(text, 100).unwrap_err().code
}

#[test]
fn what_is_not_an_object_with_a_known_type_is_a_bad_frame() {
    for text in [
        "",
        "[]",
        r#"["join"]"#,
        "1",
        "\"x\"",
        "{",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"dance"}"#,
    ] {
        assert_eq!(code_of(text), ErrorCode::BadFrame, "{text}");
    }
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    let nest = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(code_of(&nest), ErrorCode::BadFrame);
    assert_eq!(
        code_of(&format!(r#"{{"type":"send","metadata":{nest}}}"#)),
        ErrorCode::Invalid
    );
}

#[test]
fn a_wrong_field_is_invalid_and_the_answer_names_the_frame() {
    let session = SessionId::generate();
    let text = format!(r#"{{"type":"send","ref":"r1","session":"{session}","id":3,"text":"x"}}"#);
    let error = ClientFrame::decode(&text, 100).unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
    assert_eq!(error.reference.as_deref(), Some("r1"));
    assert_eq!(error.session, Some(session));
}

#[test]
fn text_is_limited_in_characters_not_bytes() {
    let frame = |text: &str| {
        let (session, id) = (SessionId::generate(), ClientMessageId::generate());
        format!(r#"{{"type":"send","session":"{session}","id":"{id}","text":"{text}"}}"#)
    };
    assert!(ClientFrame::decode(&frame(&"é".repeat(100)), 100).is_ok());
    assert_eq!(code_of(&frame(&"é".repeat(101))), ErrorCode::TooLarge);
    assert_eq!(code_of(&frame(" \\n ")), ErrorCode::Invalid);
    assert_eq!(code_of(&frame("a\\u0000b")), ErrorCode::Invalid);
}

#[test]
fn a_reference_that_is_too_long_is_not_echoed() {
    let (session, long) = (SessionId::generate(), "x".repeat(limits::REF_CHARS + 1));
    let text = format!(r#"{{"type":"leave","ref":"{long}","session":"{session}"}}"#);
    let error = ClientFrame::decode(&text, 100).unwrap_err();
    assert_eq!((error.code, error.reference), (ErrorCode::Invalid, None));
    assert_eq!(error.session, Some(session));
}

// S3
#[test]
fn the_longest_text_fits_the_frame_however_it_is_spelled() {
    let metadata = format!(r#"{{"x":"{}"}}"#, "x".repeat(limits::METADATA_BYTES - 8));
    let reference = "\\ud83d\\ude00".repeat(limits::REF_CHARS);
    let text = "\\ud83d\\ude00".repeat(limits::TEXT_CHARS);
    let (session, id) = (SessionId::generate(), ClientMessageId::generate());
    let frame = format!(
        r#"{{"type":"send","ref":"{reference}","session":"{session}","id":"{id}","text":"{text}","metadata":{metadata}}}"#
    );
    assert!(frame.len() <= limits::FRAME_BYTES, "{}", frame.len());
    assert!(ClientFrame::decode(&frame, limits::TEXT_CHARS).is_ok());
}

#[test]
fn unknown_fields_are_ignored() {
    let session = SessionId::generate();
    let text = format!(r#"{{"type":"leave","session":"{session}","later":{{"a":1}}}}"#);
    assert!(ClientFrame::decode(&text, 100).is_ok());
}

proptest! {
    #[test]
    fn decoding_is_total(text in ".{0,300}") {
        if let Err(error) = ClientFrame::decode(&text, 100) {
            prop_assert!(error.reference.is_none_or(|r| r.chars().count() <= limits::REF_CHARS));
        }
    }

    #[test]
    fn decoding_is_total_for_almost_frames(
        kind in "(join|send|stop|typing|read|leave|x)",
        value in "(null|1|\"\"|\\[\\]|\\{\\}|true)",
    ) {
        let text = format!(
            r#"{{"type":"{kind}","ref":{value},"session":{value},"id":{value},"text":{value}}}"#
        );
        if let Err(error) = ClientFrame::decode(&text, 100) {
            prop_assert!(error.reference.is_none_or(|r| r.chars().count() <= limits::REF_CHARS));
        }
    }
}
