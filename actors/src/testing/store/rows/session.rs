//! One session's rows.

use super::{ReplyRow, SessionRow};
use hubbub_protocol::{
    ClientMessageId, EndedReply, FailureReason, ReplyState, Role, Seq, Timestamp,
};

use crate::ports::{
    AppendRefusal, Appended, Claim, FinishedReply, NewMessage, OwedReply, PendingReply, ReplyEnd,
    Said, StoredMessage,
};

impl SessionRow {
    pub(super) fn head(&self) -> Seq {
        self.messages
            .last()
            .map_or(Seq::ZERO, |message| message.seq)
    }

    pub(super) fn find(&self, id: ClientMessageId) -> Option<&StoredMessage> {
        self.messages.iter().find(|message| message.id == id)
    }

    pub(super) fn said(&self, message: &StoredMessage) -> Said {
        let mut replies = self.replies.values();
        let question = replies.find(|row| Some(row.pending.reply) == message.reply);
        Said {
            at: question.map_or(message.seq, |row| row.pending.to),
            role: message.role,
            answers: question.is_some(),
            filtered: false,
            text: message.text.clone(),
        }
    }

    pub(super) fn store(
        &mut self,
        new: NewMessage,
        has_budget: bool,
    ) -> Result<Appended, AppendRefusal> {
        if let Some(stored) = self.find(new.id) {
            if stored.text != new.text || stored.reply.is_some() {
                return Err(AppendRefusal::Conflict);
            }
            let reply = self.replies.get(&stored.seq);
            return Ok(Appended::Message {
                message: stored.clone(),
                duplicate: true,
                reply: reply.map(|row| row.pending.reply),
                has_budget: None,
            });
        }
        let seq = self.head().next();
        let at = Timestamp::now();
        let message = StoredMessage {
            session: new.session,
            seq,
            id: new.id,
            role: new.role,
            author: new.author,
            text: new.text,
            attachments: Vec::new(),
            metadata: new.metadata,
            at,
            reply: None,
            model: None,
            usage: None,
            latency_ms: None,
            cut: None,
        };
        self.messages.push(message.clone());
        if let Some(OwedReply { reply, node, fence }) = new.reply {
            let pending = PendingReply {
                session: new.session,
                reply,
                to: seq,
                node,
                fence,
                claim: Claim::FIRST,
                asked_at: at,
            };
            self.replies.insert(seq, ReplyRow { pending, end: None });
        }
        Ok(Appended::Message {
            message,
            duplicate: false,
            reply: new.reply.map(|owed| owed.reply),
            has_budget: Some(has_budget),
        })
    }

    pub(super) fn end(&mut self, end: &FinishedReply) -> Result<Appended, AppendRefusal> {
        let (head, fence) = (self.head(), self.fence);
        let row = self
            .replies
            .values_mut()
            .find(|row| row.pending.reply == end.reply)
            .filter(|row| row.pending.node == end.node && row.pending.claim == end.claim)
            .ok_or(AppendRefusal::StaleClaim)?;
        let is_repeat = match &row.end {
            // The same batch, sent again: the same answer. Any other end is too late.
            Some(known) if known.end == end.end && known.text == end.text => true,
            Some(_) => return Err(AppendRefusal::StaleClaim),
            None => false,
        };
        let is_whole = matches!(end.end, ReplyEnd::Completed { .. });
        if !is_repeat && is_whole && row.pending.fence != fence {
            return Err(AppendRefusal::StaleFence);
        }
        if !is_repeat {
            row.end = Some(end.clone());
        }
        if !matches!(end.end, ReplyEnd::Completed { .. }) {
            return Ok(Appended::ReplyEnded);
        }
        if !is_repeat {
            self.messages.push(answer(end, head.next()));
        }
        let message = self.find(end.reply.into()).cloned();
        Ok(Appended::Message {
            message: message.ok_or(AppendRefusal::StaleClaim)?,
            duplicate: is_repeat,
            reply: None,
            has_budget: None,
        })
    }
}

impl ReplyRow {
    /// What was shown of a reply that ended without a message.
    pub(super) fn said(&self) -> Option<Said> {
        let end = self.end.as_ref()?;
        let filtered = match &end.end {
            ReplyEnd::Completed { .. } => return None,
            ReplyEnd::Cancelled => false,
            ReplyEnd::Failed(failure) => failure.reason == Some(FailureReason::Filtered),
        };
        Some(Said {
            at: self.pending.to,
            role: Role::Assistant,
            answers: true,
            filtered,
            text: end.text.clone(),
        })
    }

    pub(super) fn ended(&self) -> Option<EndedReply> {
        let end = self.end.as_ref()?;
        let state = match &end.end {
            ReplyEnd::Completed { .. } => return None,
            ReplyEnd::Cancelled => ReplyState::Cancelled,
            ReplyEnd::Failed(failure) => ReplyState::Failed {
                error: failure.body(),
            },
        };
        Some(EndedReply {
            reply: end.reply,
            to: self.pending.to,
            state,
            text: end.text.clone(),
            text_bytes: None,
        })
    }
}

pub(super) fn answer(end: &FinishedReply, seq: Seq) -> StoredMessage {
    StoredMessage {
        session: end.session,
        seq,
        id: end.reply.into(),
        role: Role::Assistant,
        author: end.author.clone(),
        text: end.text.clone(),
        attachments: Vec::new(),
        metadata: None,
        at: Timestamp::now(),
        reply: Some(end.reply),
        model: end.model.clone(),
        usage: end.usage,
        latency_ms: Some(end.latency_ms),
        cut: match end.end {
            ReplyEnd::Completed { cut } => cut,
            _ => None,
        },
    }
}
