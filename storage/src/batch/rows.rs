//! Entries as the rows they become, with text as PostgreSQL can hold it.

use hubbub_actors::ports::{
    Attempt, FinishedReply, NewMessage, OwedReply, ReplyEnd, ReplyFailure, StoredMessage,
};
use hubbub_protocol::{
    ClientMessageId, Cut, Metadata, ReplyId, Role, Seq, SessionId, TenantId, Timestamp, Usage,
};

use super::text::{self, Digest};
use crate::tables::ledger::AttemptRow;

/// A session, as a key.
pub(super) type SessionKey = (TenantId, SessionId);

/// A message to insert.
#[derive(Debug)]
pub(super) struct MessageRow {
    pub key: SessionKey,
    /// 0 until it has one.
    pub seq: u64,
    pub id: ClientMessageId,
    pub role: Role,
    pub author: String,
    pub text: String,
    pub digest: Digest,
    pub metadata: Option<Metadata>,
    pub reply: Option<ReplyId>,
    pub model: Option<String>,
    pub usage: Option<Usage>,
    pub latency_ms: Option<u64>,
    pub cut: Option<Cut>,
    /// The pending reply stored with it.
    pub asks: Option<OwedReply>,
}

impl MessageRow {
    pub(super) fn of(new: NewMessage) -> Self {
        let text = text::storable(new.text);
        Self {
            key: (new.tenant, new.session),
            seq: 0,
            id: new.id,
            role: new.role,
            author: text::storable(new.author),
            digest: text::digest(&text),
            text,
            metadata: new.metadata,
            reply: None,
            model: None,
            usage: None,
            latency_ms: None,
            cut: None,
            asks: new.reply,
        }
    }

    /// The message as stored at `at`.
    pub(super) fn stored(&self, at: Timestamp) -> StoredMessage {
        StoredMessage {
            session: self.key.1,
            seq: Seq(self.seq),
            id: self.id,
            role: self.role,
            author: self.author.clone(),
            text: self.text.clone(),
            attachments: Vec::new(),
            metadata: self.metadata.clone(),
            at,
            reply: self.reply,
            model: self.model.clone(),
            usage: self.usage,
            latency_ms: self.latency_ms,
            cut: self.cut,
        }
    }
}

/// A reply to end.
#[derive(Debug)]
pub(super) struct EndRow {
    pub end: FinishedReply,
    pub state: &'static str,
}

impl EndRow {
    /// The end, and the attempts it took, which are written whatever becomes of it.
    pub(super) fn of(mut end: FinishedReply) -> (Self, Vec<AttemptRow>) {
        let attempts = std::mem::take(&mut end.attempts);
        let attempts = (1..).zip(attempts).map(|(number, attempt)| AttemptRow {
            tenant: end.tenant,
            session: end.session,
            reply: end.reply,
            claim: end.claim,
            number,
            attempt: Attempt {
                model: text::storable(attempt.model),
                ..attempt
            },
        });
        let attempts = attempts.collect();
        let state = match end.end {
            ReplyEnd::Completed { .. } => "completed",
            ReplyEnd::Failed(..) => "failed",
            ReplyEnd::Cancelled => "cancelled",
        };
        let end = FinishedReply {
            text: text::storable(end.text),
            author: text::storable(end.author),
            model: end.model.map(text::storable),
            end: match end.end {
                ReplyEnd::Failed(failure) => ReplyEnd::Failed(ReplyFailure {
                    message: text::storable(failure.message),
                    ..failure
                }),
                other => other,
            },
            ..end
        };
        (Self { end, state }, attempts)
    }

    /// The message that a completed reply becomes.
    pub(super) fn message(&self) -> Option<MessageRow> {
        let end = &self.end;
        let ReplyEnd::Completed { cut } = end.end else {
            return None;
        };
        Some(MessageRow {
            key: (end.tenant, end.session),
            seq: 0,
            id: end.reply.into(),
            role: Role::Assistant,
            author: end.author.clone(),
            text: end.text.clone(),
            digest: text::digest(&end.text),
            metadata: None,
            reply: Some(end.reply),
            model: end.model.clone(),
            usage: end.usage,
            latency_ms: Some(end.latency_ms),
            cut,
            asks: None,
        })
    }

    /// Why it failed, if it did.
    pub(super) fn failure(&self) -> Option<&ReplyFailure> {
        match &self.end.end {
            ReplyEnd::Failed(failure) => Some(failure),
            ReplyEnd::Completed { .. } | ReplyEnd::Cancelled => None,
        }
    }

    /// What is kept of its text with it: a completed reply's is its message.
    pub(super) fn kept_text(&self) -> &str {
        match self.end.end {
            ReplyEnd::Completed { .. } => "",
            ReplyEnd::Failed(..) | ReplyEnd::Cancelled => &self.end.text,
        }
    }
}
