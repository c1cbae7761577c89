//! The decoder reads every shape the same, whatever way it is cut, and is strict about the end.

use hubbub::config::Api;
use hubbub::llm::remote::decoder::{Close, Decoder, Events};
use hubbub_actors::ports::{Finish, UpstreamError, UpstreamEvent};
use hubbub_protocol::Usage;
use proptest::prelude::*;

use crate::shape::{After, Shape};

/// What an answer came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub text: String,
    pub end: String,
    pub usage: Option<Usage>,
}

impl Outcome {
    pub fn of(events: impl IntoIterator<Item = Result<UpstreamEvent, UpstreamError>>) -> Self {
        let (mut text, mut end, mut counted) = (String::new(), None, None);
        for event in events {
            assert!(end.is_none(), "{event:?} after {end:?}");
            match event {
                Ok(UpstreamEvent::Alive) => assert!(text.is_empty(), "alive after text"),
                // Depends on where the bytes were cut: text after a count takes it back.
                Ok(UpstreamEvent::Used(_)) => {}
                Ok(UpstreamEvent::Text(piece)) => {
                    assert!(!piece.is_empty(), "an empty piece");
                    text.push_str(&piece);
                }
                Ok(UpstreamEvent::Finished { finish, usage, .. }) => {
                    end = Some(match finish {
                        Finish::Complete => "complete".to_owned(),
                        Finish::Length => "length".to_owned(),
                    });
                    counted = usage;
                }
                Err(error) => end = Some(name(error)),
            }
        }
        Self {
            text,
            end: end.expect("an answer has an end"),
            usage: counted,
        }
    }

    pub fn expected(shape: &Shape) -> Self {
        Self {
            text: shape.text.clone(),
            end: shape.end.clone(),
            usage: shape.usage,
        }
    }
}

fn name(error: UpstreamError) -> String {
    let name = format!("{error:?}").to_lowercase();
    name.split('(').next().unwrap().to_owned()
}

/// What these bytes come to, in pieces of this size.
fn decoded(api: Api, bytes: &[u8], size: usize, how: Close) -> Outcome {
    let (mut decoder, mut events) = (Decoder::new(api), Events::new());
    for piece in bytes.chunks(size) {
        decoder.feed(piece, &mut events);
    }
    decoder.close(how, &mut events);
    Outcome::of(events)
}

/// The shapes that have a body to decode.
fn bodies() -> impl Iterator<Item = Shape> {
    let has_body = |shape: &Shape| {
        let is_compressed = shape.headers.iter().any(|header| header.contains("gzip"));
        (200..300).contains(&shape.status) && shape.status != 204 && !is_compressed
    };
    Shape::all().into_iter().filter(has_body)
}

// M1, M2, M3, M4, M5, M6, M7, M8, M14
#[test]
fn every_shape_comes_to_what_it_means() {
    let mut wrong = Vec::new();
    for shape in bodies() {
        let how = match shape.after {
            After::Close => Close::Over,
            After::Reset => Close::Broken,
        };
        let expected = Outcome::expected(&shape);
        for size in [usize::MAX, 1, 7] {
            let found = decoded(shape.api, &shape.body, size, how);
            if found != expected {
                wrong.push(format!(
                    "{} by {size}: {found:?}, not {expected:?}",
                    shape.name
                ));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// M2
#[test]
fn an_answer_cut_before_its_good_end_is_never_complete() {
    for shape in bodies() {
        let whole = decoded(shape.api, &shape.body, usize::MAX, Close::Over);
        let good_end = shape.good_end();
        let mut was_good = false;
        for cut in 0..=shape.body.len() {
            for how in [Close::Over, Close::Broken] {
                let found = decoded(shape.api, &shape.body[..cut], usize::MAX, how);
                let is_good = ["complete", "length"].contains(&found.end.as_str());
                let place = format!("{} cut at {cut}, {how:?}: {found:?}", shape.name);
                assert!(!is_good || cut >= good_end, "{place}");
                assert!(whole.text.starts_with(&found.text), "{place}");
                assert!(is_good || !was_good, "no more: {place}");
                if how == Close::Broken {
                    was_good = is_good;
                }
            }
        }
    }
}

// M10
#[test]
fn a_sign_of_life_is_told_before_the_first_text_only() {
    for (before, is_alive) in [
        (": OPENROUTER PROCESSING\n\n", true),
        ("\n", true),
        ("data:\n\n", true),
        ("event: ping\ndata: {}\n\n", true),
        (
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            true,
        ),
        (
            "data: {\"choices\":[{\"delta\":{\"content\":null,\"reasoning_content\":\"a\"}}]}\n\n",
            true,
        ),
        (
            "data: {\"choices\":[{\"delta\":{\"reasoning\":\"a\"}}]}\n\n",
            true,
        ),
        (
            "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
            true,
        ),
        ("data: {\"cho", false),
        ("<html>\n", false),
    ] {
        let (mut decoder, mut events) = (Decoder::new(Api::OpenAi), Events::new());
        decoder.feed(before.as_bytes(), &mut events);
        assert_eq!(
            events.pop_front() == Some(Ok(UpstreamEvent::Alive)),
            is_alive,
            "{before}"
        );
    }
    let (mut decoder, mut events) = (Decoder::new(Api::OpenAi), Events::new());
    decoder.feed(
        b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        &mut events,
    );
    decoder.feed(b": ping\n\n", &mut events);
    assert_eq!(events, [Ok(UpstreamEvent::Text("a".into()))]);
}

#[test]
fn an_event_of_any_size_is_bounded() {
    let event = |size: usize| {
        let text = "x".repeat(size);
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]}}\n\n"
        )
    };
    let large = decoded(Api::OpenAi, event(900_000).as_bytes(), 16_384, Close::Over);
    assert_eq!(
        (large.text.len(), large.end.as_str()),
        (900_000, "complete")
    );
    let larger = decoded(
        Api::OpenAi,
        event(2_000_000).as_bytes(),
        16_384,
        Close::Over,
    );
    assert_eq!((larger.text.len(), larger.end.as_str()), (0, "garbage"));
}

proptest! {
    /// Whatever is broken in a shape, it has one end, the same one however it is cut.
    #[test]
    fn a_damaged_shape_has_one_end(
        index: prop::sample::Index,
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<Option<u8>>()), 1..4),
        size in 1_usize..40,
    ) {
        let shapes: Vec<Shape> = bodies().filter(|shape| !shape.body.is_empty()).collect();
        let shape = index.get(&shapes);
        let mut body = shape.body.clone();
        for (at, damage) in damages {
            let at = at.index(body.len());
            match damage {
                Some(byte) => body[at] = byte,
                None => body.truncate(at + 1),
            }
        }
        let whole = decoded(shape.api, &body, usize::MAX, Close::Over);
        prop_assert_eq!(decoded(shape.api, &body, size, Close::Over), whole);
    }
}
