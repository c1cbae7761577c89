//! Escalating: a person is called by the bot's own rules, because the visitor's words ask for one, or because
//! the bot fails.

use actix::prelude::*;
use hubbub_protocol::{Handler as SessionHandler, Timestamp};

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

    /// Counts how replies end, and calls a person after too many failures in a row.
    pub(super) fn escalate_after(&mut self, end: &ReplyEnd, ctx: &mut Context<Session>) {
        match end {
            ReplyEnd::Completed { .. } => self.failures = 0,
            ReplyEnd::Failed(..) => self.failures += 1,
            ReplyEnd::Cancelled => {}
        }
        let bot = self.bot.borrow().clone();
        let most = bot.and_then(|bot| bot.escalation.after_failures);
        if most.is_some_and(|most| self.failures >= most) && self.turns.is_bots() {
            self.failures = 0;
            self.escalate("the assistant could not answer", ctx);
        }
    }

    fn escalate(&mut self, reason: &str, ctx: &mut Context<Session>) {
        let waiting = SessionHandler::Waiting {
            since: Timestamp::now(),
            reason: Some(reason.to_owned()),
        };
        self.change_handler(waiting, ctx, |live, changed, ctx| {
            if let Err(rejection) = changed {
                // The bot goes on.
                tracing::warn!(session = %live.record.session, %rejection, "no person could be called");
            }
            live.turns.resume();
            live.settle(ctx);
        });
    }
}
