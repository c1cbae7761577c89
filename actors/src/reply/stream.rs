//! One attempt's stream, as the reply reads it: what is to be shown, in as few pieces as possible, and one
//! end. White space before the first word is held back: an answer that shows nothing is no answer, and
//! nothing may be shown that a further attempt would be spliced to.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, ReadyChunks};
use hubbub_protocol::Usage;
use tokio::time::Instant;

use super::score::ScoreFilter;
use super::tab::TabEntry;
use super::turns::is_blank;
use crate::capacity;
use crate::pool::Verdict;
use crate::ports::{Finish, UpstreamError, UpstreamEvent};

/// Events read at once: the fewer messages a token costs, the more of them fit.
const MOST_EVENTS: usize = 64;

/// An upstream that was silent for so long was given its chance, also when its own time-out is longer.
const FAIR_WAIT: Duration = Duration::from_secs(10);

/// What comes of a stream.
pub(super) enum Piece {
    /// The upstream is at work; told once, and only before the first word.
    Alive,
    /// A piece of the answer; `is_first` if it has the first word.
    Text { text: String, is_first: bool },
    /// The end; nothing comes after it.
    End(Streamed),
}

/// How a stream ended.
#[derive(Clone, Copy)]
pub(super) enum Streamed {
    /// Well.
    Finished(Finish, Option<Usage>),
    /// It failed.
    Failed(UpstreamError),
    /// It is longer than what is kept.
    TooLong,
    /// No sign of life came within the time that the reply had left.
    Overdue { was_fair: bool },
}

impl Streamed {
    /// What it says of the upstream. That an answer has no word, or too many, is for its prompt.
    pub(super) fn verdict(self, was_shown: bool) -> Verdict {
        match self {
            Self::Finished(..) if was_shown => Verdict::Answered,
            Self::Finished(..) | Self::TooLong => Verdict::Responded,
            Self::Failed(error) => error.into(),
            Self::Overdue { was_fair: true } => Verdict::Faulty,
            Self::Overdue { was_fair: false } => Verdict::Neutral,
        }
    }
}

type Events = BoxStream<'static, Result<UpstreamEvent, UpstreamError>>;

/// The stream of one attempt.
pub(super) struct Stream {
    events: ReadyChunks<Events>,
    /// Where what comes is noted.
    tab: TabEntry,
    /// When the first sign of life has to be there.
    deadline: Option<Instant>,
    begun: Instant,
    was_alive: bool,
    was_shown: bool,
    /// White space before the first word.
    held: String,
    written: usize,
    /// Takes the model's score out of the text, if it is to give one.
    scores: Option<ScoreFilter>,
    /// The end, when text came with it.
    end: Option<Streamed>,
}

impl Stream {
    pub(super) fn new(
        events: Events,
        tab: TabEntry,
        deadline: Option<Instant>,
        is_scored: bool,
    ) -> Self {
        Self {
            events: events.ready_chunks(MOST_EVENTS),
            tab,
            deadline,
            begun: Instant::now(),
            was_alive: false,
            was_shown: false,
            held: String::new(),
            written: 0,
            scores: is_scored.then(ScoreFilter::default),
            end: None,
        }
    }

    /// Whether a word was shown.
    pub(super) fn was_shown(&self) -> bool {
        self.was_shown
    }

    /// Whether nothing came of it at all.
    pub(super) fn is_silent(&self) -> bool {
        !self.was_alive && !self.was_shown && self.written == 0
    }

    /// How sure the model says it is of its answer, from 0 to 100.
    pub(super) fn score(&self) -> Option<u8> {
        self.scores.as_ref().and_then(ScoreFilter::score)
    }

    pub(super) async fn next(&mut self) -> Piece {
        loop {
            if let Some(end) = self.end {
                return Piece::End(end);
            }
            let Some(batch) = self.read().await else {
                let was_fair = self.begun.elapsed() >= FAIR_WAIT;
                return Piece::End(Streamed::Overdue { was_fair });
            };
            let (text, is_alive) = self.take(batch);
            if let Some(text) = self.show(text) {
                let is_first = !std::mem::replace(&mut self.was_shown, true);
                return Piece::Text { text, is_first };
            }
            if is_alive && !self.was_alive && !self.was_shown && self.end.is_none() {
                self.was_alive = true;
                return Piece::Alive;
            }
        }
    }

    /// What has arrived; `None` if nothing did in time. After the first sign of life the upstream's own
    /// time-outs hold.
    async fn read(&mut self) -> Option<Vec<Result<UpstreamEvent, UpstreamError>>> {
        let batch = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, self.events.next())
                .await
                .ok()?,
            None => self.events.next().await,
        };
        self.deadline = None;
        // A stream without an end broke off.
        Some(batch.unwrap_or_else(|| vec![Err(UpstreamError::Cut)]))
    }

    /// The text of these events, and whether they show that the upstream is at work.
    fn take(&mut self, batch: Vec<Result<UpstreamEvent, UpstreamError>>) -> (String, bool) {
        let (mut text, mut is_alive) = (String::new(), false);
        for event in batch {
            self.end = match event {
                Ok(UpstreamEvent::Alive) => {
                    self.tab.alive();
                    is_alive = true;
                    continue;
                }
                Ok(UpstreamEvent::Text(piece)) => {
                    self.tab.written(piece.len());
                    text.push_str(&piece);
                    continue;
                }
                Ok(UpstreamEvent::Used(usage)) => {
                    self.tab.reported(usage);
                    continue;
                }
                Ok(UpstreamEvent::Finished { finish, usage, .. }) => {
                    if let Some(usage) = usage {
                        self.tab.reported(usage);
                    }
                    Some(Streamed::Finished(finish, usage))
                }
                Err(error) => Some(Streamed::Failed(error)),
            };
            break;
        }
        self.written += text.len();
        if self.written > capacity::REPLY_BYTES {
            self.end = Some(Streamed::TooLong);
        }
        if let Some(scores) = &mut self.scores {
            text = scores.push(&text);
            if self.end.is_some() {
                text.push_str(&scores.finish());
            }
        }
        (text, is_alive)
    }

    /// What of this text is to be shown now.
    fn show(&mut self, text: String) -> Option<String> {
        if self.was_shown {
            return (!text.is_empty()).then_some(text);
        }
        self.held.push_str(&text);
        (!is_blank(&self.held)).then(|| std::mem::take(&mut self.held))
    }
}
