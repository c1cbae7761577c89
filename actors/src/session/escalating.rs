//! Escalating: a person is called by the bot's own rules, because the visitor's words ask for one, because the
//! bot fails, or because its model is not sure of an answer.

use actix::prelude::*;
use hubbub_protocol::{ReplyId, SessionHandler, Timestamp};

use super::Session;
use super::live::Live;
use crate::ports::ReplyEnd;

impl Live {
    /// Calls a person if these words ask for one. Nothing is answered before it is known whether one was.
    pub(super) fn escalate_for(&mut self, text: &str, ctx: &mut Context<Session>) {
        let bot = self.bot.borrow().clone();
        if bot.is_some_and(|bot| bot.escalation.is_asked_for(text)) {
            self.turns.hold();
            self.escalate("the visitor asked for a person", ctx);
        }
    }

    /// Counts how replies end, and calls a person after too many failures in a row, or when the model is not sure.
    pub(super) fn escalate_after(
        &mut self,
        reply: ReplyId,
        end: &ReplyEnd,
        ctx: &mut Context<Session>,
    ) {
        match end {
            ReplyEnd::Completed { .. } => self.failures = 0,
            ReplyEnd::Failed(..) => self.failures += 1,
            ReplyEnd::Cancelled => {}
        }
        let score = self.scored.take_if(|(scored, _)| *scored == reply);
        let Some(bot) = self.bot.borrow().clone().filter(|_| self.turns.is_bots()) else {
            return;
        };
        let rules = &bot.escalation;
        let is_unsure = |score: u8| rules.below_score.is_some_and(|enough| score < enough);
        if rules
            .after_failures
            .is_some_and(|most| self.failures >= most)
        {
            self.failures = 0;
            self.escalate("the assistant could not answer", ctx);
        } else if score.is_some_and(|(_, score)| is_unsure(score)) {
            self.escalate("the assistant is not sure of its answer", ctx);
        }
    }

    fn escalate(&mut self, reason: &str, ctx: &mut Context<Session>) {
        let waiting = SessionHandler::Waiting {
            since: Timestamp::now(),
            reason: Some(reason.to_owned()),
        };
        let summary = self.record.summary.clone();
        self.change_handler(waiting, summary, ctx, |live, changed, ctx| {
            if let Err(rejection) = changed {
                // The bot goes on.
                tracing::warn!(session = %live.record.session, %rejection, "no person could be called");
            }
            live.turns.resume();
            live.settle(ctx);
        });
    }
}
