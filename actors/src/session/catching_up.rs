//! Closing the gap between what a session knows and what storage holds: commits whose answer was lost,
//! messages whose commit was never learned, replies that somebody else ended.

use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::{EndedReply, ReplyClass, Seq};
use tokio::time::Instant;

use super::Session;
use super::live::{Live, Task};
use super::turn::Question;
use crate::capacity;
use crate::ending::END_RETRY;
use crate::ports::{Claim, PageSize, SessionRecord, StoreError, Transcript};

/// Messages read at once when a gap is closed.
const PAGE: PageSize = PageSize {
    messages: 200,
    bytes: capacity::PAGE_BYTES,
};

/// A gap younger than this is only a commit learned out of order.
const CATCH_UP_AFTER: Duration = Duration::from_millis(200);

/// A reply whose node died was ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReplyRecovered(pub(crate) EndedReply);

/// Has the session compare what it knows with storage: its predecessor died, and what that one was
/// having stored may be stored only now.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Reconcile;

impl Handler<ReplyRecovered> for Session {
    type Result = ();

    fn handle(&mut self, ReplyRecovered(ended): ReplyRecovered, ctx: &mut Self::Context) {
        self.dispatch(ctx, |live, _| {
            live.tell_end(ended.reply, ended.to, ended.state);
        });
    }
}

impl Handler<Reconcile> for Session {
    type Result = ();

    fn handle(&mut self, _: Reconcile, ctx: &mut Self::Context) {
        // By then the writer has committed what was on its way, or given it up.
        let settled = capacity::APPEND_DEADLINE + END_RETRY;
        Live::later(settled, ctx, |live, ctx| {
            live.reconcile_later(Duration::ZERO, ctx);
        });
    }
}

impl Live {
    /// Tells devices how a reply ended that was ended under another claim, as storage has it.
    pub(super) fn tell_foreign_end(&mut self, to: Seq, ctx: &mut Context<Session>) {
        self.read_on(Seq(to.0.saturating_sub(1)), ctx);
    }

    /// Reads what is missing if a message stays ahead of its predecessors.
    pub(super) fn catch_up(&mut self, ctx: &mut Context<Session>) {
        if self.feed.has_gap() {
            self.once(Task::CatchUp, CATCH_UP_AFTER, ctx, |live, ctx| {
                if live.feed.has_gap() {
                    live.read_on(live.feed.head(), ctx);
                }
            });
        }
    }

    /// Asks storage which replies are owed, and has those written that nobody writes: their message was
    /// stored, but this session never learned of it.
    pub(super) fn reconcile_later(&mut self, after: Duration, ctx: &mut Context<Session>) {
        if !self.tasks.begin(Task::Reconcile) {
            return;
        }
        Self::later(after, ctx, |live, ctx| {
            let (store, record) = (live.node.store.clone(), &live.record);
            let (tenant, session) = (record.tenant, record.session);
            let read = async move { store.load_session(tenant, session).await };
            Self::spawn(ctx, read, |live, read, ctx| {
                live.tasks.end(Task::Reconcile);
                match read {
                    Ok(Some(record)) => live.adopt(record, ctx),
                    Ok(None) => {}
                    Err(_away) => live.reconcile_later(END_RETRY, ctx),
                }
            });
        });
    }

    fn adopt(&mut self, record: SessionRecord, ctx: &mut Context<Session>) {
        if record.fence > self.turns.fence() {
            self.handed_over(record.handler, record.summary, record.fence, ctx);
        }
        let (node, fence) = (self.node.id, self.turns.fence());
        for pending in record.pending {
            // Under a later claim it is being ended, by the lease keeper.
            let is_ours = pending.node == node && pending.claim == Claim::FIRST;
            if !is_ours || self.turns.knows(pending.reply) || self.turns.is_over(pending.reply) {
                continue;
            }
            let question = Question {
                reply: pending.reply,
                to: pending.to,
                asked_at: Instant::now(),
                // Nobody knows any more how soon it was wanted.
                class: ReplyClass::Live,
                fence: pending.fence,
                has_budget: None,
            };
            if pending.fence == fence {
                self.turns.ask(question);
            } else {
                self.end_unanswered(&question, ctx);
            }
        }
        let head = self.feed.head();
        if record.head > head {
            self.read_on(head, ctx);
        }
    }

    fn read_on(&mut self, after: Seq, ctx: &mut Context<Session>) {
        self.recall.forget();
        let read = self.read_after(after, PAGE);
        Self::spawn(ctx, read, |live, page, _| {
            let page = page.unwrap_or_default();
            for message in page.messages {
                live.tell_message(message);
            }
            for ended in page.ended {
                live.tell_end(ended.reply, ended.to, ended.state);
            }
        });
    }

    /// A page of the log, oldest first.
    pub(super) fn read_after(
        &self,
        after: Seq,
        size: PageSize,
    ) -> impl Future<Output = Result<Transcript, StoreError>> + use<> {
        let (store, record) = (self.node.store.clone(), &self.record);
        let (tenant, session) = (record.tenant, record.session);
        async move { store.list_after(tenant, session, after, size).await }
    }
}
