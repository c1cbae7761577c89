//! One attempt at an answer: an upstream is asked, and what it says is told to the session.

use super::attempts::Attempts;
use super::messages::ReplyStep;
use super::stream::{Piece, Stream, Streamed};
use super::tab::{Asked, TabEntry};
use super::{Prompt, Stopped, Work, ends, usage};
use crate::answers::Shared;
use crate::pool::{Permit, Verdict};
use crate::ports::{AttemptOutcome, ChatRequest, ReplyEnd, UpstreamError};

/// An upstream that was asked.
pub(super) struct RunningAttempt {
    pub(super) permit: Permit,
    pub(super) stream: Stream,
    pub(super) entry: TabEntry,
    /// The model that answers.
    pub(super) model: String,
    prompt_tokens: u64,
}

/// What an attempt came to.
pub(super) enum Attempted {
    /// The reply's end, with what was said if it may be shared.
    Ended(ReplyEnd, Shared),
    /// This upstream showed nothing: another attempt may be made.
    Failed(usize, UpstreamError),
}

impl Work {
    /// Asks one upstream, or two if the first is silent for long. It has failed only if nothing was shown: after
    /// the first word another answer would be spliced to this one.
    pub(super) async fn attempt(
        &self,
        permit: Permit,
        prompt: &Prompt,
        attempts: &mut Attempts,
    ) -> Result<Attempted, Stopped> {
        let first = self.begin(permit, prompt, attempts)?;
        self.tell(ReplyStep::Started(first.model.clone())).await?;
        let (mut attempt, mut piece) = self.first_piece(first, prompt, attempts).await?;
        let mut shared = Shared {
            model: attempt.model.clone(),
            ..Shared::default()
        };
        let streamed = loop {
            match piece {
                Piece::Alive => {
                    attempt.reads();
                    self.tell(ReplyStep::Thinking).await?;
                }
                Piece::Text { text, is_first } => {
                    if is_first {
                        attempt.reads();
                        attempt.permit.answers();
                    }
                    attempt.permit.note_output(usage::tokens(&text));
                    if !self.task.bot.answer_cache.is_zero() {
                        shared.text.push_str(&text);
                    }
                    self.tell(ReplyStep::Text(text)).await?;
                }
                Piece::End(end) => break end,
            }
            piece = attempt.stream.next().await;
        };
        shared.score = attempt.stream.score();
        let was_shown = attempt.stream.was_shown();
        let index = attempt.end(streamed);
        self.tell_score(shared.score).await?;
        Ok(streamed.came_to(index, was_shown, shared))
    }

    /// Sends the request.
    pub(super) fn begin(
        &self,
        permit: Permit,
        prompt: &Prompt,
        attempts: &Attempts,
    ) -> Result<RunningAttempt, Stopped> {
        let bot = &self.task.bot;
        let upstream = permit.upstream().clone();
        let turns = self.turns(&prompt.said, upstream.context_tokens());
        let request = ChatRequest {
            model: bot.model.clone(),
            turns: turns.ok_or(Stopped::Rejected(ends::too_large()))?,
            max_output_tokens: bot.max_output_tokens,
            request_id: self.reply.to_string(),
        };
        let model = bot.model.as_deref().unwrap_or(upstream.default_model());
        let model = model.to_owned();
        let prompt_tokens = usage::prompt_tokens(&request.turns);
        let entry = self.task.tab.open(Asked {
            bot: bot.bot,
            visitor: self.task.visitor,
            upstream: upstream.name().to_owned(),
            model: model.clone(),
            prompt_tokens,
        });
        let stream = Stream::new(
            upstream.stream(request),
            entry.clone(),
            attempts.deadline(),
            bot.escalation.below_score.is_some(),
        );
        Ok(RunningAttempt {
            permit,
            stream,
            entry,
            model,
            prompt_tokens,
        })
    }
}

impl RunningAttempt {
    /// The upstream reads the prompt, or has read it.
    pub(super) fn reads(&mut self) {
        self.permit.note_input(self.prompt_tokens);
    }

    /// Its stream ended. Returns which upstream it was.
    pub(super) fn end(mut self, streamed: Streamed) -> usize {
        let (index, was_shown) = (self.permit.index(), self.stream.was_shown());
        let outcome = match streamed {
            Streamed::Finished(_, usage) => {
                if let Some(usage) = usage {
                    self.permit.note_usage(usage);
                }
                AttemptOutcome::Answered
            }
            Streamed::Failed(_) | Streamed::Overdue { .. } => {
                metrics::counter!("hubbub_llm_attempts_failed_total").increment(1);
                AttemptOutcome::Failed
            }
            Streamed::TooLong => AttemptOutcome::Failed,
        };
        self.close(outcome, streamed.verdict(was_shown));
        index
    }

    pub(super) fn close(self, outcome: AttemptOutcome, health: Verdict) {
        // First the request is closed, then its slot given back.
        drop(self.stream);
        self.permit.release(health);
        self.entry.close(outcome);
    }
}

impl Streamed {
    /// What failed, if something did.
    pub(super) fn error(self) -> Option<UpstreamError> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Overdue { .. } => Some(UpstreamError::TimedOut),
            Self::Finished(..) | Self::TooLong => None,
        }
    }

    fn came_to(self, index: usize, was_shown: bool, shared: Shared) -> Attempted {
        let end = match self {
            Self::Failed(error) if was_shown => ends::broken(error),
            Self::Failed(error) => return Attempted::Failed(index, error),
            Self::Overdue { .. } => return Attempted::Failed(index, UpstreamError::TimedOut),
            Self::TooLong => ends::too_long(),
            Self::Finished(finish, _) if was_shown => ends::finished(finish),
            Self::Finished(..) => ends::empty(),
        };
        Attempted::Ended(end, shared)
    }
}
