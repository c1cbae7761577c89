//! A session's part in answering: one reply at a time is written, and every end is committed before
//! anybody is told of it.

use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::server::ReplyFrame;
use hubbub_protocol::{ErrorCode, ReplyId, ReplyState, Seq, ServerFrame, Usage};
use tokio::time::Instant;

use super::state::{Question, SessionEvent};
use super::{Session, encode};
use crate::ending::{END_RETRY, end_state, failed, lost, without_text};
use crate::ports::{
    Append, AppendRefusal, Appended, BotConfig, Claim, Fence, FinishedReply, PendingReply, ReplyEnd,
};
use crate::rejection::Rejection;
use crate::reply::messages::{ReplyProgress, ReplyStep};
use crate::reply::{CancelReply, Reply, ReplyTask, usage};
use crate::writer::{AppendError, AppendResult};

impl Session {
    /// Has the next question answered, if there is one and nothing else is being written.
    pub(super) fn begin_next_answer(&mut self, ctx: &mut Context<Self>) {
        let (tenant, id) = (self.tenant, self.id);
        let Ok(live) = self.live() else { return };
        let Some(question) = live.state.next_question().cloned() else {
            return;
        };
        let bot = live.bot.borrow().clone();
        live.state.apply(SessionEvent::AnswerBegun);
        for device in &mut live.devices {
            device.reply = crate::device::TextPosition::default();
        }
        let Some(bot) = bot else {
            let gone = Rejection::new(
                ErrorCode::NotFound,
                "this assistant does not exist any more",
            );
            self.end_answer(failed(&gone), None, ctx);
            return;
        };
        let task = ReplyTask {
            tenant,
            session: id,
            to: question.to,
            bot,
            absence: live.attendance.absence(),
        };
        let (reply, fence) = (question.reply, question.fence);
        let (ports, told) = (self.ports.clone(), ctx.address().recipient());
        let (child, died) = Reply::spawn(reply, fence, task, ports, told);
        if let Ok(live) = self.live() {
            live.writing.insert(reply, child);
        }
        let watch = died.into_actor(self).map(move |ended, session, ctx| {
            if let Ok(live) = session.live() {
                live.writing.remove(&reply);
            }
            if ended.is_err() {
                metrics::counter!("hubbub_actor_panics_total", "actor" => "reply").increment(1);
                tracing::error!(%reply, "a reply's actor died");
                let end = failed(&Rejection::internal());
                session.ended_by_child(reply, fence, end, None, ctx);
            }
        });
        ctx.spawn(watch);
    }

    pub(super) fn progressed(&mut self, progress: ReplyProgress, ctx: &mut Context<Self>) {
        let ReplyProgress { reply, fence, step } = progress;
        let Ok(live) = self.live() else { return };
        if !live.state.accepts_from(reply, fence) {
            metrics::counter!("hubbub_stale_reply_steps_total").increment(1);
            return;
        }
        match step {
            ReplyStep::Queued(place) => self.tell_phase(
                ReplyState::Queued {
                    position: place.position,
                    eta_ms: u64::try_from(place.eta.as_millis()).unwrap_or(u64::MAX),
                    paused: place.paused,
                },
                ctx,
            ),
            ReplyStep::Started {
                model,
                prompt_tokens,
            } => {
                live.state.apply(SessionEvent::ModelAsked(prompt_tokens));
                let thinking = false;
                self.tell_phase(ReplyState::Started { model, thinking }, ctx);
            }
            ReplyStep::Thinking => {
                let phase = live.state.answer().map(|answer| answer.phase.clone());
                if let Some(ReplyState::Started { model, .. }) = phase {
                    let thinking = true;
                    self.tell_phase(ReplyState::Started { model, thinking }, ctx);
                }
            }
            ReplyStep::Text(text) => {
                let is_first = live.state.answer().is_some_and(|a| a.text.is_empty());
                live.state
                    .apply(SessionEvent::TextWritten(text, Instant::now()));
                if is_first {
                    self.flush_now(ctx);
                } else {
                    self.flush_soon(ctx);
                }
            }
            ReplyStep::Ended { end, usage } => self.ended_by_child(reply, fence, end, usage, ctx),
        }
    }

    /// Stops the running answer; what was written is kept with the cancelled reply.
    pub(super) fn cancel_answer(&mut self, ctx: &mut Context<Self>) {
        self.end_answer(ReplyEnd::Cancelled, None, ctx);
    }

    /// Ends what is being answered and everything that waits, because the node is about to stop.
    pub(super) fn end_all(&mut self, ctx: &mut Context<Self>) {
        let stopping = Rejection::later(
            ErrorCode::Unavailable,
            "the server is restarting, please ask again",
            1_000,
        );
        let can_end = self
            .live()
            .is_ok_and(|live| live.state.decide_stop().is_ok());
        if can_end {
            self.end_answer(failed(&stopping), None, ctx);
        }
    }

    fn tell_phase(&mut self, phase: ReplyState, ctx: &mut Context<Self>) {
        let session = self.id;
        let Ok(live) = self.live() else { return };
        live.state
            .apply(SessionEvent::AnswerProgressed(phase.clone()));
        let Some(answer) = live.state.answer() else {
            return;
        };
        let Question { reply, to, .. } = answer.question;
        let frame = ReplyFrame {
            session,
            reply,
            to,
            state: phase,
        };
        live.feed.tell(encode(&ServerFrame::Reply(frame)));
        self.flush_now(ctx);
    }

    fn ended_by_child(
        &mut self,
        reply: ReplyId,
        fence: Fence,
        end: ReplyEnd,
        usage: Option<Usage>,
        ctx: &mut Context<Self>,
    ) {
        if self
            .live()
            .is_ok_and(|live| live.state.accepts_from(reply, fence))
        {
            self.end_answer(end, usage, ctx);
        }
    }

    /// Commits the end of the running answer.
    fn end_answer(&mut self, end: ReplyEnd, usage: Option<Usage>, ctx: &mut Context<Self>) {
        // What devices have not seen yet goes out before the end does.
        self.flush_now(ctx);
        let (tenant, session, node) = (self.tenant, self.id, self.ports.node);
        let Ok(live) = self.live() else { return };
        live.state.apply(SessionEvent::AnswerEnding);
        let Some(answer) = live.state.answer() else {
            return;
        };
        if let Some(child) = live.writing.remove(&answer.question.reply) {
            // Its mailbox holds nothing but this; if it is gone there is nothing to cancel.
            drop(child.try_send(CancelReply));
        }
        let bot = live.bot.borrow().clone();
        let asked_at = answer.question.asked_at;
        // What was shown is paid for, whether or not the model told how much it was.
        let was_shown = !answer.text.is_empty();
        let usage = usage
            .or_else(|| was_shown.then(|| usage::estimated(answer.prompt_tokens, &answer.text)));
        let finished = FinishedReply {
            tenant,
            session,
            reply: answer.question.reply,
            node,
            claim: Claim::FIRST,
            end,
            text: answer.text.clone(),
            author: bot
                .map(|bot: std::sync::Arc<BotConfig>| bot.name.clone())
                .unwrap_or_default(),
            model: match &answer.phase {
                ReplyState::Started { model, .. } => Some(model.clone()),
                _ => None,
            },
            usage,
            first_token_ms: answer.first_text_at.map(|at| millis(at - asked_at)),
            latency_ms: millis(asked_at.elapsed()),
        };
        record(&finished);
        self.commit_end(finished, ctx);
    }

    fn commit_end(&mut self, finished: FinishedReply, ctx: &mut Context<Self>) {
        let appended = self.ports.writer.append(Append::Reply(finished.clone()));
        let committed = appended
            .into_actor(self)
            .map(move |result, session, ctx| session.end_committed(finished, result, ctx));
        ctx.spawn(committed);
    }

    fn end_committed(
        &mut self,
        finished: FinishedReply,
        result: AppendResult,
        ctx: &mut Context<Self>,
    ) {
        let Ok(live) = self.live() else { return };
        let running = live.state.answer().map(|answer| &answer.question);
        let running = running.filter(|question| question.reply == finished.reply);
        let is_running = running.is_some();
        let mut lost = live.record.pending.iter();
        let to = running.map(|question| question.to).or_else(|| {
            let lost = lost.find(|pending| pending.reply == finished.reply);
            lost.map(|pending| pending.to)
        });
        match result {
            Ok(Ok(Appended::Message { message, .. })) => {
                live.note_ended(finished.reply);
                live.feed
                    .post(message.seq, encode(&ServerFrame::Message(message)));
            }
            Ok(Ok(Appended::ReplyEnded)) => {
                if let (Some(to), Some(state)) = (to, end_state(&finished.end)) {
                    self.tell_end(finished.reply, to, state);
                }
            }
            Ok(Err(AppendRefusal::StaleClaim)) => {
                tracing::warn!(reply = %finished.reply, "a reply was ended by somebody else");
                if let Some(to) = to {
                    self.tell_foreign_end(to, ctx);
                }
            }
            Ok(Err(AppendRefusal::NoSession | AppendRefusal::Conflict)) => {
                tracing::error!(reply = %finished.reply, "the end of a reply was refused");
            }
            Err(error) => {
                let finished = if error == AppendError::Failed {
                    without_text(finished)
                } else {
                    finished
                };
                ctx.run_later(END_RETRY, |session, ctx| session.commit_end(finished, ctx));
                return;
            }
        }
        if let Ok(live) = self.live()
            && is_running
        {
            live.state.apply(SessionEvent::AnswerEnded);
        }
        if let Ok(live) = self.live() {
            live.shares.remove(&finished.reply);
            live.record
                .pending
                .retain(|pending| pending.reply != finished.reply);
        }
        self.flush_now(ctx);
        self.catch_up_later(ctx);
        self.begin_next_answer(ctx);
        self.stop_when_idle(ctx);
    }

    /// Tells devices how a reply ended without a message, unless they were told before.
    pub(super) fn tell_end(&mut self, reply: ReplyId, to: Seq, state: ReplyState) {
        let session = self.id;
        let Ok(live) = self.live() else { return };
        if live.note_ended(reply) {
            let frame = ReplyFrame {
                session,
                reply,
                to,
                state,
            };
            live.feed.tell(encode(&ServerFrame::Reply(frame)));
        }
    }

    /// Ends a reply that nobody writes any more.
    pub(super) fn end_lost(&mut self, reply: &PendingReply, ctx: &mut Context<Self>) {
        let (tenant, node) = (self.tenant, self.ports.node);
        let Ok(live) = self.live() else { return };
        let known = live
            .record
            .pending
            .iter_mut()
            .find(|pending| pending.reply == reply.reply);
        match known {
            Some(pending) => *pending = reply.clone(),
            None => live.record.pending.push(reply.clone()),
        }
        let finished = lost(node, tenant, reply);
        record(&finished);
        self.commit_end(finished, ctx);
    }
}

fn record(finished: &FinishedReply) {
    let end = match finished.end {
        ReplyEnd::Completed { .. } => "completed",
        ReplyEnd::Failed(..) => "failed",
        ReplyEnd::Cancelled => "cancelled",
    };
    metrics::counter!("hubbub_replies_total", "end" => end).increment(1);
    metrics::histogram!("hubbub_reply_seconds").record(Duration::from_millis(finished.latency_ms));
    if let Some(usage) = &finished.usage {
        metrics::counter!("hubbub_llm_tokens_total", "type" => "input")
            .increment(usage.input_tokens);
        metrics::counter!("hubbub_llm_tokens_total", "type" => "output")
            .increment(usage.output_tokens);
    }
    if let Some(first) = finished.first_token_ms {
        metrics::histogram!("hubbub_reply_first_token_seconds")
            .record(Duration::from_millis(first));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
