//! A session's part in storing messages: it checks its rules, gives them to the writer, and tells devices
//! once they are committed.

use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::{ErrorCode, ReplyId, Role, ServerFrame};
use tokio::time::Instant;
use tracing::Instrument;

use super::messages::PostMessage;
use super::state::{Question, SessionEvent};
use super::{Post, Posted, Session, encode};
use crate::caller::{Caller, Permission};
use crate::ending::END_RETRY;
use crate::ports::{Append, Appended, NewMessage, OwedReply, StoredMessage};
use crate::rejection::Rejection;
use crate::writer::AppendError;

impl Session {
    pub(super) fn post(&mut self, command: PostMessage, ctx: &mut Context<Self>) {
        let PostMessage {
            caller,
            post,
            span,
            answer,
        } = command;
        let append = match self.admit_post(&caller, post) {
            Ok(append) => append,
            Err(rejection) => {
                drop(answer.send(Err(rejection)));
                return;
            }
        };
        self.mark_busy();
        let proposed = append.reply.map(|owed| owed.reply);
        let appended = self
            .ports
            .writer
            .append(Append::Message(append))
            .instrument(span);
        let posted = appended
            .into_actor(self)
            .map(move |appended, session, ctx| {
                let posted = match appended {
                    Ok(Ok(Appended::Message {
                        message,
                        duplicate,
                        reply,
                    })) => {
                        // Our own reply is stored with it: it was this very entry that was stored,
                        // by an attempt whose answer was lost.
                        let is_own = reply.is_some() && reply == proposed;
                        Ok(session.posted(&message, duplicate && !is_own, reply, ctx))
                    }
                    Ok(Err(refusal)) => Err(refusal.into()),
                    Err(AppendError::Overloaded) => Err(Rejection::overloaded()),
                    Ok(Ok(Appended::ReplyEnded)) => Err(Rejection::internal()),
                    Err(error @ (AppendError::Unavailable | AppendError::Failed)) => {
                        // Perhaps it is stored all the same, and its writer never asks again.
                        session.reconcile_later(END_RETRY, ctx);
                        Err(match error {
                            AppendError::Failed => Rejection::internal(),
                            _ => Rejection::unavailable(),
                        })
                    }
                };
                if let Ok(live) = session.live() {
                    if posted.is_err() {
                        live.state.apply(SessionEvent::PostFinished(None));
                    }
                    // Held on only if it is this very post that is to be answered.
                    if let Some(reply) = proposed.filter(|reply| !live.state.knows(*reply)) {
                        live.shares.remove(&reply);
                    }
                }
                drop(answer.send(posted));
                session.begin_next_answer(ctx);
                session.stop_when_idle(ctx);
            });
        ctx.spawn(posted);
    }

    fn admit_post(&mut self, caller: &Caller, post: Post) -> Result<NewMessage, Rejection> {
        let (node, tenant, session) = (self.ports.node, self.tenant, self.id);
        let ports = self.ports.clone();
        let live = self.live_for(caller)?;
        let Some(bot) = live.bot.borrow().clone() else {
            return Err(Rejection::new(
                ErrorCode::NotFound,
                "this assistant does not exist any more",
            ));
        };
        caller.check(Permission::Chat)?;
        let role = caller.role();
        let asks = bot.replies && role == Role::Visitor;
        live.state.decide_post(asks)?;
        let visitor = caller.visitor().filter(|_| asks);
        let share = visitor.map(|visitor| ports.visitors.admit_reply((tenant, visitor)));
        let share = share.transpose()?;
        live.permit.tenant().admit_message()?;
        live.state.apply(SessionEvent::PostStarted);
        live.idle_since = None;
        live.is_followed = !live.devices.is_empty();
        let (reply, fence) = (asks.then(ReplyId::generate), live.state.fence());
        live.shares.extend(reply.zip(share));
        Ok(NewMessage {
            tenant,
            session,
            id: post.id,
            role,
            author: caller.name.clone(),
            text: post.text,
            metadata: post.metadata,
            reply: reply.map(|reply| OwedReply { reply, node, fence }),
        })
    }

    fn posted(
        &mut self,
        message: &StoredMessage,
        duplicate: bool,
        reply: Option<ReplyId>,
        ctx: &mut Context<Self>,
    ) -> Posted {
        let seq = message.seq;
        if let Ok(live) = self.live() {
            // A repeat's reply was begun when it was first stored, unless nobody learned of that; its
            // answer may be long finished.
            let is_unheard = duplicate
                && reply.is_some_and(|reply| !live.state.knows(reply) && !live.is_ending(reply));
            let question = reply.filter(|_| !duplicate).map(|reply| Question {
                reply,
                to: seq,
                asked_at: Instant::now(),
                fence: live.state.fence(),
            });
            live.state.apply(SessionEvent::PostFinished(question));
            live.feed
                .post(seq, encode(&ServerFrame::Message(message.clone())));
            if is_unheard {
                self.reconcile_later(Duration::ZERO, ctx);
            }
        }
        self.flush_now(ctx);
        self.catch_up_later(ctx);
        Posted {
            seq,
            at: message.at,
            duplicate,
            reply,
        }
    }
}
