//! Closing the gap between what a session knows and what storage holds: commits whose answer was lost,
//! messages whose commit was never learned, replies that somebody else ended.

use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::{ReplyId, Seq, ServerFrame};
use tokio::time::Instant;

use super::state::{Question, SessionEvent};
use super::{Live, Session, encode};
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

/// Replies whose end is remembered, so that none is told or begun twice. Only those that ended while
/// storage was being read matter.
const ENDS_REMEMBERED: usize = 32;

impl Session {
    /// Tells devices how a reply ended that was ended under another claim, as storage has it.
    pub(super) fn tell_foreign_end(&mut self, to: Seq, ctx: &mut Context<Self>) {
        self.read_on(Seq(to.0.saturating_sub(1)), ctx);
    }

    /// Reads what is missing if a message stays ahead of its predecessors.
    pub(super) fn catch_up_later(&mut self, ctx: &mut Context<Self>) {
        let Ok(live) = self.live() else { return };
        if live.catching_up || !live.feed.has_gap() {
            return;
        }
        live.catching_up = true;
        ctx.run_later(CATCH_UP_AFTER, |session, ctx| {
            let Ok(live) = session.live() else { return };
            live.catching_up = false;
            if live.feed.has_gap() {
                let head = live.feed.head();
                session.read_on(head, ctx);
            }
        });
    }

    /// Asks storage which replies are owed, and has those written that nobody writes: their message was
    /// stored, but this session never learned of it.
    pub(super) fn reconcile_later(&mut self, after: Duration, ctx: &mut Context<Self>) {
        let Ok(live) = self.live() else { return };
        if live.reconciling {
            return;
        }
        live.reconciling = true;
        ctx.run_later(after, |session, ctx| {
            let (store, tenant, id) = (session.ports.store.clone(), session.tenant, session.id);
            let read = async move { store.load_session(tenant, id).await };
            ctx.spawn(read.into_actor(session).map(|read, session, ctx| {
                if let Ok(live) = session.live() {
                    live.reconciling = false;
                }
                match read {
                    Ok(Some(record)) => session.adopt(record, ctx),
                    Ok(None) => {}
                    Err(_away) => session.reconcile_later(END_RETRY, ctx),
                }
                session.stop_when_idle(ctx);
            }));
        });
    }

    fn adopt(&mut self, record: SessionRecord, ctx: &mut Context<Self>) {
        let node = self.ports.node;
        let Ok(live) = self.live() else { return };
        let fence = live.state.fence();
        for pending in record.pending {
            // Under a later claim it is being ended, by the lease keeper; under an older fence it is not
            // the bot's to answer any more.
            let is_ours =
                pending.node == node && pending.claim == Claim::FIRST && pending.fence == fence;
            if is_ours && !live.is_ending(pending.reply) {
                live.state.apply(SessionEvent::QuestionFound(Question {
                    reply: pending.reply,
                    to: pending.to,
                    asked_at: Instant::now(),
                    fence,
                }));
            }
        }
        let head = live.feed.head();
        if record.head > head {
            self.read_on(head, ctx);
        }
        self.begin_next_answer(ctx);
    }

    fn read_on(&mut self, after: Seq, ctx: &mut Context<Self>) {
        let read = self.read_after(after, PAGE);
        ctx.spawn(read.into_actor(self).map(|page, session, ctx| {
            if let Ok(page) = page {
                session.caught_up(page, ctx);
            }
            session.catch_up_later(ctx);
        }));
    }

    /// A page of the log, oldest first.
    pub(super) fn read_after(
        &self,
        after: Seq,
        size: PageSize,
    ) -> impl Future<Output = Result<Transcript, StoreError>> + use<> {
        let (store, tenant, id) = (self.ports.store.clone(), self.tenant, self.id);
        async move { store.list_after(tenant, id, after, size).await }
    }

    fn caught_up(&mut self, page: Transcript, ctx: &mut Context<Self>) {
        let Ok(live) = self.live() else { return };
        for message in page.messages {
            live.feed
                .post(message.seq, encode(&ServerFrame::Message(message)));
        }
        for ended in page.ended {
            self.tell_end(ended.reply, ended.to, ended.state);
        }
        self.flush_now(ctx);
    }
}

impl Live {
    /// Remembers that a reply has its end; `false` if it was known.
    pub(super) fn note_ended(&mut self, reply: ReplyId) -> bool {
        if self.ended.contains(&reply) {
            return false;
        }
        if self.ended.len() >= ENDS_REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(reply);
        true
    }

    /// Whether nothing is going on that must not be interrupted.
    pub(super) fn is_idle(&self) -> bool {
        self.state.is_idle() && !self.reconciling && self.record.pending.is_empty()
    }

    /// Whether a reply has its end, or is getting it.
    pub(super) fn is_ending(&self, reply: ReplyId) -> bool {
        let mut pending = self.record.pending.iter();
        self.ended.contains(&reply) || pending.any(|pending| pending.reply == reply)
    }
}
