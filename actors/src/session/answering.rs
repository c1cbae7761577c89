//! Answering: one reply at a time is written, and every end is committed before anybody is told of it.

use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::reply::ReplyFrame;
use hubbub_protocol::{
    ErrorCode, FailureReason, ReplyId, ReplyState, Role, Seq, ServerFrame, Timestamp,
};
use tokio::time::Instant;

use super::Session;
use super::live::{Flush, Live};
use super::turn::Question;
use crate::device::TextPosition;
use crate::ending::{END_RETRY, end_state, failed, lost, without_text};
use crate::ports::{
    Append, AppendRefusal, Appended, Attempt, AttemptOutcome, Claim, Conversation, FinishedReply,
    PendingReply, ReplyEnd, ReplyFailure, Said,
};
use crate::rejection::Rejection;
use crate::reply::messages::{ReplyProgress, ReplyStep};
use crate::reply::tab::Tab;
use crate::reply::{CancelReply, Reply, ReplyTask};
use crate::writer::{AppendError, AppendResult};

impl Handler<ReplyProgress> for Session {
    type Result = ();

    fn handle(&mut self, progress: ReplyProgress, ctx: &mut Self::Context) {
        self.dispatch(ctx, |live, ctx| live.progressed(progress, ctx));
    }
}

impl Live {
    /// Has the next question answered, if there is one and nothing else is being answered.
    pub(super) fn begin_next_answer(&mut self, ctx: &mut Context<Session>) {
        let Some(question) = self.turns.begin() else {
            return;
        };
        for device in &mut self.devices {
            device.reply = TextPosition::default();
        }
        self.tab = Tab::default();
        let Some(bot) = self.bot.borrow().clone() else {
            let gone = Rejection::new(
                ErrorCode::NotFound,
                "this assistant does not exist any more",
            );
            self.end_as_failed(&gone, ctx);
            return;
        };
        let task = ReplyTask {
            tenant: self.record.tenant,
            class: question.class,
            weight: self.permit.tenant().weight(),
            session: self.record.session,
            visitor: self.record.visitor,
            to: question.to,
            bot,
            tab: self.tab.clone(),
            read_by: self.read_by.clone(),
            summary: self.record.summary.clone(),
            conversation: self.conversation(&question),
            absence: self.attendance.absence(),
        };
        let (reply, fence) = (question.reply, question.fence);
        let told = ctx.address().recipient();
        let (child, died) = Reply::spawn(reply, fence, task, self.node.clone(), told);
        self.writer = Some((reply, child));
        Self::spawn(ctx, died, move |live, ended, ctx| {
            live.writer.take_if(|(written, _)| *written == reply);
            if ended.is_err() {
                metrics::counter!("hubbub_actor_panics_total", "actor" => "reply").increment(1);
                tracing::error!(%reply, "a reply's actor died");
                if live.turns.writing(reply, fence).is_some() {
                    live.end_as_failed(&Rejection::internal(), ctx);
                }
            }
        });
    }

    /// What the question is to be answered with, if all of it is known.
    fn conversation(&self, question: &Question) -> Option<Conversation> {
        Some(Conversation {
            said: self.recall.up_to(question.to)?,
            has_budget: question.has_budget?,
        })
    }

    fn progressed(&mut self, progress: ReplyProgress, ctx: &mut Context<Session>) {
        let ReplyProgress { reply, fence, step } = progress;
        let Some(answer) = self.turns.writing(reply, fence) else {
            metrics::counter!("hubbub_stale_reply_steps_total").increment(1);
            return;
        };
        match step {
            ReplyStep::Queued(place) => {
                answer.phase = ReplyState::Queued {
                    position: place.position,
                    eta_ms: u64::try_from(place.eta.as_millis()).unwrap_or(u64::MAX),
                    paused: place.paused,
                };
                self.tell_phase();
            }
            ReplyStep::Started(model) => {
                let thinking = false;
                answer.phase = ReplyState::Started { model, thinking };
                self.tell_phase();
            }
            ReplyStep::Thinking => {
                if let ReplyState::Started { thinking, .. } = &mut answer.phase {
                    *thinking = true;
                    self.tell_phase();
                }
            }
            ReplyStep::Text(text) => {
                let is_first = answer.text.is_empty();
                answer.write(&text, Instant::now());
                self.owe(if is_first { Flush::Now } else { Flush::Soon });
            }
            ReplyStep::Scored(score) => self.scored = Some((reply, score)),
            ReplyStep::Ended(end) => {
                // It is being written, as was just seen.
                drop(self.end_answer(end, ctx));
            }
        }
    }

    fn tell_phase(&mut self) {
        let Some(answer) = self.turns.answer() else {
            return;
        };
        let (reply, to) = (answer.question.reply, answer.question.to);
        let frame = self.reply_frame(reply, to, answer.phase.clone());
        self.tell(frame);
    }

    fn end_as_failed(&mut self, rejection: &Rejection, ctx: &mut Context<Session>) {
        // Called only while something is being answered.
        drop(self.end_answer(failed(rejection), ctx));
    }

    /// Ends the running answer: what was written is kept, and its end committed.
    ///
    /// # Errors
    /// `conflict`: nothing is being answered.
    pub(super) fn end_answer(
        &mut self,
        end: ReplyEnd,
        ctx: &mut Context<Session>,
    ) -> Result<(), Rejection> {
        // What devices have not seen yet goes out before the end does.
        self.flush_now(ctx);
        let answer = self.turns.end()?;
        if let Some((_, child)) = self.writer.take() {
            // Its mailbox holds nothing but this; if it is gone there is nothing to cancel.
            drop(child.try_send(CancelReply));
        }
        let asked_at = answer.question.asked_at;
        let attempts = self.tab.settle();
        if let Some(attempt) = attempts.last()
            && attempt.outcome != AttemptOutcome::Failed
        {
            self.read_by = Some(attempt.upstream.clone());
        }
        let bot = self.bot.borrow();
        let finished = FinishedReply {
            tenant: self.record.tenant,
            session: self.record.session,
            reply: answer.question.reply,
            node: self.node.id,
            claim: Claim::FIRST,
            end,
            text: answer.text.clone(),
            author: bot.as_ref().map(|bot| bot.name.clone()).unwrap_or_default(),
            model: match &answer.phase {
                ReplyState::Started { model, .. } => Some(model.clone()),
                _ => None,
            },
            usage: attempts.last().and_then(Attempt::taken),
            attempts,
            first_token_ms: answer.first_text_at.map(|at| millis(at - asked_at)),
            latency_ms: millis(asked_at.elapsed()),
        };
        drop(bot);
        record(&finished);
        self.commit_end(finished, ctx);
        Ok(())
    }

    /// Ends a question that the bot is not to answer any more.
    pub(super) fn end_unanswered(&mut self, question: &Question, ctx: &mut Context<Session>) {
        let pending = PendingReply {
            session: self.record.session,
            reply: question.reply,
            to: question.to,
            node: self.node.id,
            fence: question.fence,
            claim: Claim::FIRST,
            asked_at: Timestamp::now(),
        };
        let finished = FinishedReply {
            end: ReplyEnd::Cancelled,
            latency_ms: millis(question.asked_at.elapsed()),
            ..lost(self.node.id, self.record.tenant, &pending)
        };
        self.end_unwritten(pending, finished, ctx);
    }

    /// Ends a reply that nobody writes any more.
    pub(super) fn end_lost(&mut self, reply: PendingReply, ctx: &mut Context<Session>) {
        let finished = lost(self.node.id, self.record.tenant, &reply);
        self.end_unwritten(reply, finished, ctx);
    }

    fn end_unwritten(
        &mut self,
        reply: PendingReply,
        finished: FinishedReply,
        ctx: &mut Context<Session>,
    ) {
        self.turns.lose(reply);
        record(&finished);
        self.commit_end(finished, ctx);
    }

    fn commit_end(&mut self, finished: FinishedReply, ctx: &mut Context<Session>) {
        let appended = self.node.writer.append(Append::Reply(finished.clone()));
        Self::spawn(ctx, appended, |live, result, ctx| {
            live.end_committed(finished, result, ctx);
        });
    }

    fn end_committed(
        &mut self,
        finished: FinishedReply,
        result: AppendResult,
        ctx: &mut Context<Session>,
    ) {
        if !matches!(result, Ok(Ok(_))) {
            // Perhaps somebody else ended it.
            self.recall.forget();
        }
        let appended = match result {
            Ok(appended) => appended,
            Err(error) => {
                let finished = if error == AppendError::Failed {
                    without_text(finished)
                } else {
                    finished
                };
                Self::later(END_RETRY, ctx, |live, ctx| live.commit_end(finished, ctx));
                return;
            }
        };
        if appended
            .as_ref()
            .is_err_and(|refusal| *refusal == AppendRefusal::StaleFence)
        {
            // Somebody else came to handle the session before it was stored.
            let cancelled = FinishedReply {
                end: ReplyEnd::Cancelled,
                ..finished
            };
            return self.commit_end(cancelled, ctx);
        }
        let to = self.turns.close(finished.reply);
        self.escalate_after(finished.reply, &finished.end, ctx);
        self.shares.remove(&finished.reply);
        match appended {
            Ok(Appended::Message { message, .. }) => {
                self.turns.note_told(finished.reply);
                self.recall.message(&message, to);
                self.tell_message(message);
            }
            Ok(Appended::ReplyEnded) => {
                if let (Some(to), Some(state)) = (to, end_state(&finished.end)) {
                    self.recall.ended(shown(to, &finished));
                    self.tell_end(finished.reply, to, state);
                }
            }
            Err(AppendRefusal::StaleClaim) => {
                tracing::warn!(reply = %finished.reply, "a reply was ended by somebody else");
                if let Some(to) = to {
                    self.tell_foreign_end(to, ctx);
                }
            }
            Err(AppendRefusal::NoSession | AppendRefusal::Conflict | AppendRefusal::StaleFence) => {
                tracing::error!(reply = %finished.reply, "the end of a reply was refused");
            }
        }
    }

    /// Tells devices how a reply ended without a message, unless they were told before.
    pub(super) fn tell_end(&mut self, reply: ReplyId, to: Seq, state: ReplyState) {
        if self.turns.note_told(reply) {
            let frame = self.reply_frame(reply, to, state);
            self.tell(frame);
        }
    }

    fn reply_frame(&self, reply: ReplyId, to: Seq, state: ReplyState) -> ServerFrame {
        ServerFrame::Reply(ReplyFrame {
            session: self.record.session,
            reply,
            to,
            state,
        })
    }
}

/// What was shown of an answer that ended without a message.
fn shown(to: Seq, finished: &FinishedReply) -> Said {
    let refused = |failure: &ReplyFailure| failure.reason == Some(FailureReason::Filtered);
    Said {
        at: to,
        role: Role::Assistant,
        answers: true,
        filtered: matches!(&finished.end, ReplyEnd::Failed(failure) if refused(failure)),
        text: finished.text.clone(),
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
