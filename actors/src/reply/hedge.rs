//! Hedging: where an upstream gives no sign of life for long, another is asked the same, and the first to say
//! something answers (Dean and Barroso, The Tail at Scale, 2013). Only with a slot that is to spare, so that nobody
//! waits for it, and only before the first word. What both take is on the ledger.

use tokio::time::timeout;

use super::attempt::RunningAttempt;
use super::attempts::Attempts;
use super::messages::ReplyStep;
use super::stream::{Piece, Streamed};
use super::{Prompt, Stopped, Work};
use crate::pool::Verdict;
use crate::ports::AttemptOutcome;

impl Work {
    /// The first piece of the answer, and who it comes from.
    pub(super) async fn first_piece(
        &self,
        mut first: RunningAttempt,
        prompt: &Prompt,
        attempts: &mut Attempts,
    ) -> Result<(RunningAttempt, Piece), Stopped> {
        if let Some(silence) = self.node.pool.hedge_after() {
            let piece = timeout(silence, first.stream.next()).await;
            if let Ok(piece) = piece {
                return Ok((first, piece));
            }
            if let Some(second) = self.hedge(&first, prompt, attempts).await? {
                // Boxed: few replies come to this, and each would have room for it.
                return Box::pin(self.race(first, second, attempts)).await;
            }
        }
        let piece = first.stream.next().await;
        Ok((first, piece))
    }

    /// Asks another upstream, if one has a slot to spare.
    async fn hedge(
        &self,
        first: &RunningAttempt,
        prompt: &Prompt,
        attempts: &Attempts,
    ) -> Result<Option<RunningAttempt>, Stopped> {
        let asked = first.permit.index();
        let is_new = |index: &usize| *index != asked && !attempts.tried().contains(index);
        let others: Vec<usize> = attempts.left().filter(is_new).collect();
        if others.is_empty() {
            return Ok(None);
        }
        let request = self.request(prompt, others);
        match self.node.pool.acquire_spare(request).await {
            Some(permit) => self.begin(permit, prompt, attempts).map(Some),
            None => Ok(None),
        }
    }

    /// Waits for the first word of either, and lets the other go. Where one ends without a word, the other is
    /// left.
    async fn race(
        &self,
        mut first: RunningAttempt,
        mut second: RunningAttempt,
        attempts: &mut Attempts,
    ) -> Result<(RunningAttempt, Piece), Stopped> {
        loop {
            let (piece, is_seconds) = tokio::select! {
                biased;
                piece = first.stream.next() => (piece, false),
                piece = second.stream.next() => (piece, true),
            };
            match piece {
                Piece::Alive => {
                    let alive = if is_seconds { &mut second } else { &mut first };
                    alive.reads();
                    self.tell(ReplyStep::Thinking).await?;
                }
                Piece::Text { .. } if is_seconds => {
                    // It was silent for longer than one that was asked later.
                    let health = if first.stream.is_silent() {
                        Verdict::Faulty
                    } else {
                        Verdict::Neutral
                    };
                    first.close(AttemptOutcome::Cancelled, health);
                    self.take_second(&second).await?;
                    return Ok((second, piece));
                }
                Piece::Text { .. } => {
                    second.close(AttemptOutcome::Cancelled, Verdict::Neutral);
                    take_first(&first);
                    return Ok((first, piece));
                }
                Piece::End(end) if is_seconds => {
                    note(attempts, second.end(end), end);
                    take_first(&first);
                    let piece = first.stream.next().await;
                    return Ok((first, piece));
                }
                Piece::End(end) => {
                    note(attempts, first.end(end), end);
                    self.take_second(&second).await?;
                    let piece = second.stream.next().await;
                    return Ok((second, piece));
                }
            }
        }
    }

    async fn take_second(&self, second: &RunningAttempt) -> Result<(), Stopped> {
        count("second");
        let model = second.model.clone();
        Ok(self.tell(ReplyStep::Started(model)).await?)
    }
}

fn note(attempts: &mut Attempts, index: usize, end: Streamed) {
    if let Some(error) = end.error() {
        attempts.failed(index, error);
    }
}

fn take_first(first: &RunningAttempt) {
    count("first");
    first.entry.becomes_last();
}

fn count(taken: &'static str) {
    metrics::counter!("hubbub_llm_hedges_total", "taken" => taken).increment(1);
}
