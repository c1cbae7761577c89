//! Posting: a message is checked against the session's rules, given to the writer, and told to devices once it
//! is committed.

use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::client::SendMode;
use hubbub_protocol::{
    ClientMessageId, ErrorCode, Metadata, ReplyClass, ReplyId, Role, Seq, Timestamp,
};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::live::Live;
use super::turn::Question;
use super::{Answer, Session};
use crate::caller::{Caller, Permission};
use crate::ending::END_RETRY;
use crate::ports::{Append, Appended, NewMessage, OwedReply, ReplyEnd, StoredMessage};
use crate::rejection::Rejection;
use crate::writer::{AppendError, AppendResult};

/// Stores a message.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PostMessage {
    pub(super) caller: Caller,
    pub(super) post: Post,
    pub(super) span: Span,
    pub(super) answer: Answer<Posted>,
}

/// A message to store.
#[derive(Clone, Debug)]
pub struct Post {
    /// The writer's id of it.
    pub id: ClientMessageId,
    /// What it says.
    pub text: String,
    /// Kept with it.
    pub metadata: Option<Metadata>,
    /// What becomes of the reply that is being written.
    pub mode: SendMode,
    /// How soon the answer is wanted.
    pub class: ReplyClass,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Its number.
    pub seq: Seq,
    /// When it was stored.
    pub at: Timestamp,
    /// It had been stored before.
    pub duplicate: bool,
    /// The reply that answers it.
    pub reply: Option<ReplyId>,
}

impl Handler<PostMessage> for Session {
    type Result = ();

    fn handle(&mut self, command: PostMessage, ctx: &mut Self::Context) {
        let PostMessage {
            caller,
            post,
            span,
            answer,
        } = command;
        self.serve(&caller, answer, ctx, |live, answer, ctx| {
            let (mode, class) = (post.mode, post.class);
            match live.admit_post(&caller, post) {
                Ok(message) => live.post(message, (mode, class), span, answer, ctx),
                Err(rejection) => drop(answer.send(Err(rejection))),
            }
        });
    }
}

impl Live {
    fn admit_post(&mut self, caller: &Caller, post: Post) -> Result<NewMessage, Rejection> {
        let (tenant, session) = (self.record.tenant, self.record.session);
        let Some(bot) = self.bot.borrow().clone() else {
            return Err(Rejection::new(
                ErrorCode::NotFound,
                "this assistant does not exist any more",
            ));
        };
        caller.check(Permission::Chat)?;
        if post.class != ReplyClass::Live {
            caller.check(Permission::ChooseClass)?;
        }
        let role = caller.role();
        let asks = bot.replies && role == Role::Visitor && self.turns.is_bots();
        self.turns.decide_post(asks)?;
        let visitor = caller.visitor().filter(|_| asks);
        let visitors = &self.node.visitors;
        let share = visitor.map(|visitor| visitors.admit_reply((tenant, visitor)));
        let share = share.transpose()?;
        self.permit.tenant().admit_message()?;
        self.turns.post();
        self.is_followed = !self.devices.is_empty();
        let owed = asks.then(|| OwedReply {
            reply: ReplyId::generate(),
            node: self.node.id,
            fence: self.turns.fence(),
        });
        self.shares.extend(owed.map(|owed| owed.reply).zip(share));
        Ok(NewMessage {
            tenant,
            session,
            id: post.id,
            role,
            author: caller.name.clone(),
            text: post.text,
            metadata: post.metadata,
            reply: owed,
        })
    }

    fn post(
        &mut self,
        message: NewMessage,
        how: (SendMode, ReplyClass),
        span: Span,
        answer: Answer<Posted>,
        ctx: &mut Context<Session>,
    ) {
        let proposed = message.reply;
        let appended = self.node.writer.append(Append::Message(message));
        Self::spawn(
            ctx,
            appended.instrument(span),
            move |live, appended, ctx| {
                let posted = live.appended(appended, proposed, how, ctx);
                // Held on only if it is this very post that is to be answered.
                if let Some(owed) = proposed.filter(|owed| !live.turns.knows(owed.reply)) {
                    live.shares.remove(&owed.reply);
                }
                // Devices have it before its writer knows.
                live.settle(ctx);
                drop(answer.send(posted));
            },
        );
    }

    fn appended(
        &mut self,
        appended: AppendResult,
        proposed: Option<OwedReply>,
        (mode, class): (SendMode, ReplyClass),
        ctx: &mut Context<Session>,
    ) -> Result<Posted, Rejection> {
        let refused = match appended {
            Ok(Ok(Appended::Message {
                message,
                duplicate,
                reply,
                has_budget,
            })) => {
                // Our own reply is stored with it: it was this very entry that was stored, by an attempt
                // whose answer was lost.
                let own = proposed.filter(|owed| reply == Some(owed.reply));
                let duplicate = duplicate && own.is_none();
                let question = own.map(|owed| Question {
                    reply: owed.reply,
                    to: message.seq,
                    asked_at: Instant::now(),
                    class,
                    fence: owed.fence,
                    has_budget,
                });
                let posted = self.stored(message, duplicate, reply, question, ctx);
                if let Some(owed) = own
                    && mode == SendMode::Interrupt
                {
                    self.interrupt_for(owed.reply, ctx);
                }
                return Ok(posted);
            }
            Ok(Ok(Appended::ReplyEnded)) => Rejection::internal(),
            Ok(Err(refusal)) => refusal.into(),
            Err(AppendError::Overloaded) => Rejection::overloaded(),
            Err(error @ (AppendError::Unavailable | AppendError::Failed)) => {
                // Perhaps it is stored all the same, and its writer never asks again.
                self.reconcile_later(END_RETRY, ctx);
                match error {
                    AppendError::Failed => Rejection::internal(),
                    _ => Rejection::unavailable(),
                }
            }
        };
        self.turns.posted(None);
        Err(refused)
    }

    /// Ends the reply that is being written, for this one to have its turn next.
    fn interrupt_for(&mut self, reply: ReplyId, ctx: &mut Context<Session>) {
        if self.turns.put_first(reply) {
            // Nothing is being answered: its turn comes anyway.
            drop(self.end_answer(ReplyEnd::Cancelled, ctx));
        }
    }

    fn stored(
        &mut self,
        message: StoredMessage,
        duplicate: bool,
        reply: Option<ReplyId>,
        question: Option<Question>,
        ctx: &mut Context<Session>,
    ) -> Posted {
        let (seq, at) = (message.seq, message.at);
        // A repeat's reply was begun when it was first stored, unless nobody learned of that; its answer may
        // be long finished.
        let is_unheard = |reply| !self.turns.knows(reply) && !self.turns.is_over(reply);
        if duplicate && reply.is_some_and(is_unheard) {
            self.reconcile_later(Duration::ZERO, ctx);
        }
        let (asked, late) = match question {
            // Somebody else came to handle the session while it was being stored.
            Some(question) if question.fence != self.turns.fence() => (None, Some(question)),
            question => (question, None),
        };
        let asks = asked.is_some().then(|| message.text.clone());
        self.turns.posted(asked);
        self.recall.message(&message, None);
        self.tell_message(message);
        if let Some(text) = asks {
            self.escalate_for(&text, ctx);
        }
        if let Some(question) = late.filter(|late| !self.turns.is_over(late.reply)) {
            self.end_unanswered(&question, ctx);
        }
        Posted {
            seq,
            at,
            duplicate,
            reply,
        }
    }
}
