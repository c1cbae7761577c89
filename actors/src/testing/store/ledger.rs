//! The ledger in memory: what was used, and a budget in tokens where PostgreSQL has money.

use std::time::Duration;

use hubbub_protocol::{ReplyId, SessionId};

use crate::ports::{Attempt, Claim, Exhausted, FinishedReply, Reservation};

#[derive(Default)]
pub(super) struct Ledger {
    rows: Vec<Row>,
    /// Tokens that may be used, of prompts and answers together; `None` without a budget.
    pub(super) budget: Option<u64>,
}

struct Row {
    session: SessionId,
    reply: ReplyId,
    claim: Claim,
    number: usize,
    attempt: Attempt,
}

impl Ledger {
    /// Writes what is not written yet.
    pub(super) fn record(&mut self, end: &FinishedReply) {
        for (number, attempt) in end.attempts.iter().enumerate() {
            let is_row =
                |row: &Row| (row.reply, row.claim, row.number) == (end.reply, end.claim, number);
            if !self.rows.iter().any(is_row) {
                self.rows.push(Row {
                    session: end.session,
                    reply: end.reply,
                    claim: end.claim,
                    number,
                    attempt: attempt.clone(),
                });
            }
        }
    }

    pub(super) fn attempts(&self, session: SessionId) -> Vec<Attempt> {
        let rows = self.rows.iter().filter(|row| row.session == session);
        rows.map(|row| row.attempt.clone()).collect()
    }

    pub(super) fn reserve(&self, reservation: &Reservation) -> Option<Exhausted> {
        let usages = self.rows.iter().map(|row| row.attempt.usage);
        let used: u64 = usages
            .map(|used| used.input_tokens + used.output_tokens)
            .sum();
        let wanted = reservation.input_tokens + reservation.output_tokens;
        let budget = self.budget?;
        (used + wanted > budget).then_some(Exhausted {
            resets_in: Duration::from_hours(1),
        })
    }
}
