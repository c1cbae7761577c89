//! What was understood of an answer so far, and what its end is. Pure.

use hubbub_actors::ports::{Finish, UpstreamError, UpstreamEvent};
use hubbub_protocol::Usage;
use serde_json::Value;

use super::chunk::{Chunk, Token};
use super::dialect::Translator;
use super::events::{Close, Events};
use super::finish::Reason;
use super::form::Translated;
use super::json_lines::JsonLines;
use super::refusal::{Refusal, is_error};
use super::repair::repaired;
use super::text::Text;
use crate::config::Api;
use crate::llm::sse::Item;
use crate::telemetry::logs::truncated;

/// Most bytes that are kept of what cannot be understood: it is only for the log.
const NONSENSE_BYTES: usize = 512;

/// Most bytes of the name a model goes by.
const MODEL_BYTES: usize = 256;

/// An answer as it is read.
#[derive(Debug)]
pub(super) struct Answer {
    translator: Translator,
    stage: Stage,
    /// Texts of one read go out as one event: fewer wake-ups, and no text waits for another read.
    text: Text,
    shown: Shown,
    /// The choice that is read: the first one seen.
    index: Option<u64>,
    model: Option<String>,
    usage: Option<Usage>,
    /// A count since the last telling, after which no text came.
    untold: Option<Usage>,
    /// Some event was one of the dialect's.
    is_understood: bool,
    /// Something happened since the last telling.
    is_alive: bool,
    /// What comes now may be cut off.
    is_closing: bool,
    /// Bare JSON over several lines.
    lines: JsonLines,
    /// The beginning of what is no JSON.
    nonsense: String,
    /// Why it failed.
    said: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Its end has not come.
    #[default]
    Running,
    /// A reason that nobody knows was given, and no text since.
    Doubtful,
    /// It has its good end. Only counts, and text that some send after it, may follow.
    Whole(Finish),
    /// It is over, which is still to be told.
    Over(Result<Finish, UpstreamError>),
    /// That was told.
    Told,
}

/// What text there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shown {
    #[default]
    Nothing,
    /// A message, which may be one of several pieces.
    Message,
    /// Pieces, so that a message is a repetition of them.
    Pieces,
}

impl Answer {
    pub(super) fn new(api: Api) -> Self {
        Self {
            translator: Translator::new(api),
            stage: Stage::default(),
            text: Text::default(),
            shown: Shown::default(),
            index: None,
            model: None,
            usage: None,
            untold: None,
            is_understood: false,
            is_alive: false,
            is_closing: false,
            lines: JsonLines::default(),
            nonsense: String::new(),
            said: String::new(),
        }
    }

    pub(super) fn has_good_end(&self) -> bool {
        matches!(self.stage, Stage::Whole(_))
    }

    fn has_text(&self) -> bool {
        self.shown != Shown::Nothing
    }

    /// Why it failed; what could not be understood, if nothing could.
    pub(super) fn said(&self) -> &str {
        match self.said.as_str() {
            "" if !self.is_understood => self.nonsense.trim_end(),
            said => said,
        }
    }

    /// What the parser still has may be the beginning of something.
    pub(super) fn begin_to_close(&mut self) {
        self.is_closing = true;
    }

    /// Takes what comes next.
    pub(super) fn take(&mut self, item: Item<'_>) {
        if self.is_over() {
            return;
        }
        match item {
            Item::KeepAlive => self.is_alive = true,
            Item::Event { name, data } => self.take_event(name, data.trim_ascii()),
            Item::Line(line) => self.take_line(line),
        }
    }

    /// No more will come.
    pub(super) fn close(&mut self, how: Close) {
        let error = if how == Close::Broken && !self.has_text() {
            UpstreamError::Unreachable
        } else if self.is_understood || self.nonsense.is_empty() {
            UpstreamError::Cut
        } else {
            UpstreamError::Garbage
        };
        self.fail(error, "the answer ended before its end");
    }

    /// Ends the answer, well if its good end was there before.
    pub(super) fn fail(&mut self, error: UpstreamError, said: &str) {
        match self.stage {
            Stage::Whole(finish) => self.stage = Stage::Over(Ok(finish)),
            Stage::Running | Stage::Doubtful => {
                if self.said.is_empty() {
                    said.clone_into(&mut self.said);
                }
                if !self.nonsense.is_empty() && !self.is_understood {
                    self.said.push_str(": ");
                    self.said.push_str(self.nonsense.trim_end());
                }
                self.stage = Stage::Over(Err(error));
            }
            Stage::Over(_) | Stage::Told => {}
        }
    }

    /// Tells what there is since the last time.
    pub(super) fn tell(&mut self, out: &mut Events) {
        let is_alive = std::mem::take(&mut self.is_alive);
        match self.text.take() {
            Some(text) => out.push_back(Ok(UpstreamEvent::Text(text))),
            None if is_alive && !self.has_text() && !self.is_over() => {
                out.push_back(Ok(UpstreamEvent::Alive));
            }
            None => {}
        }
        // A good end tells it itself.
        let ends_well = matches!(self.stage, Stage::Over(Ok(_)) | Stage::Told);
        if self.untold.take().is_some()
            && let Some(usage) = self.counted()
            && !ends_well
        {
            out.push_back(Ok(UpstreamEvent::Used(usage)));
        }
        if let Stage::Over(end) = self.stage {
            self.stage = Stage::Told;
            out.push_back(end.map(|finish| UpstreamEvent::Finished {
                finish,
                model: self.model.take(),
                usage: self.counted(),
            }));
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(_) | Stage::Told)
    }

    fn take_event(&mut self, name: &[u8], data: &[u8]) {
        self.is_alive = true;
        if data.eq_ignore_ascii_case(b"[DONE]") || data == b"\"[DONE]\"" {
            return self.done();
        }
        if name.eq_ignore_ascii_case(b"error") {
            let words = Value::from(String::from_utf8_lossy(data));
            return self.take_error(&parsed(data).unwrap_or(words));
        }
        if let Some(token) = Token::of(data) {
            return self.take_token(&token);
        }
        match parsed(data) {
            Some(Value::Array(events)) => events.iter().for_each(|event| self.take_json(event)),
            Some(event @ Value::Object(_)) => self.take_json(&event),
            Some(_) => {}
            None if self.is_closing => {}
            None => {
                self.keep_nonsense(data);
                // A part of the answer may be in it: what follows would be spliced to what was before.
                if data.starts_with(b"{") {
                    self.fail(UpstreamError::Garbage, "an event is broken JSON");
                }
            }
        }
    }

    fn take_line(&mut self, line: &[u8]) {
        if line.trim_ascii().eq_ignore_ascii_case(b"[DONE]") {
            return self.done();
        }
        // Taken out, so that it can hand to us what it finds.
        let mut lines = std::mem::take(&mut self.lines);
        match lines.feed(line, |json| self.take_event(b"", json)) {
            Ok(true) => {}
            Ok(false) => self.take_nonsense(line),
            Err(error) => self.fail(UpstreamError::Garbage, &error.to_string()),
        }
        self.lines = lines;
    }

    fn take_nonsense(&mut self, line: &[u8]) {
        self.keep_nonsense(line);
        // A page for people: a portal, a login, another server than the one that was meant.
        if line.trim_ascii_start().starts_with(b"<") && !self.is_understood {
            self.fail(UpstreamError::Misconfigured, "the answer is a page");
        }
    }

    fn take_token(&mut self, token: &Token<'_>) {
        self.is_understood = true;
        self.name_model(token.model.as_deref());
        if *self.index.get_or_insert(token.index) == token.index && !token.text.is_empty() {
            self.begin_text();
            self.shown = Shown::Pieces;
            self.untold = None;
            self.text.push_whole(&token.text);
        }
    }

    fn take_json(&mut self, event: &Value) {
        if self.is_over() {
            return;
        }
        match self.translator.translate(event) {
            Translated::Event(event) => self.take_chunk(&event),
            Translated::Done => self.done(),
            Translated::Nothing => {}
        }
    }

    fn take_chunk(&mut self, event: &Value) {
        let chunk = Chunk::of(event, self.index);
        self.is_understood |= event.get("choices").is_some();
        self.name_model(chunk.model.as_deref());
        self.count(chunk.usage);
        let says_something = chunk.reason.is_some() || !chunk.pieces.is_empty();
        let is_ours = says_something && *self.index.get_or_insert(chunk.index) == chunk.index;
        if is_ours {
            self.is_understood = true;
            self.take_pieces(&chunk);
        }
        if is_error(event) {
            self.take_error(event);
        } else if is_ours {
            self.take_reason(&chunk);
        }
    }

    fn take_pieces(&mut self, chunk: &Chunk) {
        if chunk.is_message && self.shown == Shown::Pieces {
            return;
        }
        for piece in &chunk.pieces {
            self.begin_text();
            self.shown = if chunk.is_message {
                Shown::Message
            } else {
                Shown::Pieces
            };
            self.text.push(piece);
        }
    }

    /// What was said of an end before the first text was about something else: some say "stop" after
    /// thinking aloud, some have a word of their own in every chunk.
    fn begin_text(&mut self) {
        match self.stage {
            Stage::Doubtful => self.stage = Stage::Running,
            Stage::Whole(_) if !self.has_text() => self.stage = Stage::Running,
            _ => {}
        }
    }

    fn take_reason(&mut self, chunk: &Chunk) {
        match (chunk.reason, self.stage) {
            (Some(Reason::Good(finish)), Stage::Running | Stage::Doubtful) => {
                self.stage = Stage::Whole(finish);
            }
            (Some(Reason::Bad(error)), _) => self.fail(error, &chunk.reason_word),
            (Some(Reason::Unknown), Stage::Running) => {
                self.stage = Stage::Doubtful;
                self.said.clone_from(&chunk.reason_word);
            }
            _ => {}
        }
    }

    fn take_error(&mut self, event: &Value) {
        let refusal = Refusal::of_event(event);
        let error = match refusal.error(None) {
            UpstreamError::Filtered => UpstreamError::Filtered,
            // It took the request: whatever it says now, it failed.
            _ if self.has_text() => UpstreamError::Failed,
            error => error,
        };
        // The prompt is not kept while text comes, so that a quotation from it could not be hidden.
        if self.has_text() {
            self.fail(error, refusal.codes());
        } else {
            self.fail(error, &refusal.said());
        }
    }

    /// `[DONE]`: the upstream says that this was all, and is believed unless it said something else.
    fn done(&mut self) {
        match self.stage {
            Stage::Doubtful => self.fail(UpstreamError::Cut, ""),
            Stage::Running if !self.is_understood && !self.nonsense.is_empty() => {
                self.fail(UpstreamError::Garbage, "nothing but nonsense");
            }
            Stage::Running => self.stage = Stage::Over(Ok(Finish::Complete)),
            Stage::Whole(finish) => self.stage = Stage::Over(Ok(finish)),
            Stage::Over(_) | Stage::Told => {}
        }
    }

    fn name_model(&mut self, model: Option<&str>) {
        if let (None, Some(model)) = (&self.model, model) {
            self.model = Some(truncated(model, MODEL_BYTES).to_owned());
        }
    }

    /// Some upstreams count in every chunk, and some end with noughts.
    fn count(&mut self, usage: Option<Usage>) {
        if let Some(usage) = usage
            && self
                .usage
                .is_none_or(|before| before.output_tokens <= usage.output_tokens)
        {
            self.usage = Some(usage);
            self.untold = self.usage;
        }
    }

    /// Nought for an answer with text is no count.
    fn counted(&self) -> Option<Usage> {
        self.usage
            .filter(|usage| usage.output_tokens > 0 || !self.has_text())
    }

    fn keep_nonsense(&mut self, bytes: &[u8]) {
        if self.nonsense.len() < NONSENSE_BYTES {
            let text = String::from_utf8_lossy(bytes);
            self.nonsense.push_str(truncated(&text, NONSENSE_BYTES));
            self.nonsense.push(' ');
        }
    }
}

/// JSON, also where its strings hold what no text can.
fn parsed(json: &[u8]) -> Option<Value> {
    serde_json::from_slice(json)
        .or_else(|_| serde_json::from_str(&repaired(json)))
        .ok()
}
