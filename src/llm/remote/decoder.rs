//! An answer's bytes, read by what is meant: lenient before the end, strict about the end.
//!
//! Events, bare JSON a line, or one whole JSON document; keep-alives and what is not for us are passed
//! over. Only a good reason or `[DONE]` makes an answer complete, and nothing after that can spoil it.
//! Every other end is an error with a type. The table is in `docs/upstreams.md`; what real upstreams send,
//! and what it must come to, is in `tests/upstreams`.

use hubbub_actors::ports::UpstreamError;

pub use super::events::{Close, Events};

use super::answer::Answer;
use crate::config::Api;
use crate::llm::sse::SseParser;

/// Turns the bytes of an answer into events, whatever way they are cut.
#[derive(Debug)]
pub struct Decoder {
    parser: SseParser,
    answer: Answer,
}

impl Decoder {
    /// For an answer in this dialect.
    pub fn new(api: Api) -> Self {
        Self {
            parser: SseParser::default(),
            answer: Answer::new(api),
        }
    }

    /// Takes the next bytes. An error or `Finished`, if there is one, is the last thing that is told.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Events) {
        let Self { parser, answer } = self;
        if let Err(error) = parser.feed(bytes, |item| answer.take(item)) {
            answer.fail(UpstreamError::Garbage, &error.to_string());
        }
        answer.tell(out);
    }

    /// No more bytes will come: tells the end, unless it was told.
    pub fn close(&mut self, how: Close, out: &mut Events) {
        let Self { parser, answer } = self;
        answer.begin_to_close();
        if let Err(error) = parser.finish(|item| answer.take(item)) {
            answer.fail(UpstreamError::Garbage, &error.to_string());
        }
        answer.close(how);
        answer.tell(out);
    }

    /// Whether there is a good end, though counts may still come.
    pub fn has_good_end(&self) -> bool {
        self.answer.has_good_end()
    }

    /// Why the answer failed, as far as the upstream said so: for the log. Empty otherwise.
    pub fn said(&self) -> &str {
        self.answer.said()
    }
}
