//! What a batch comes to, given what is stored: pure, decided while the batch's sessions are locked.
//!
//! Numbers are given here, after deduplication, so a duplicate or a refusal leaves no gap.

use std::collections::{HashMap, HashSet};

use hubbub_actors::ports::{
    Append, AppendRefusal, Attempt, Claim, Fence, FinishedReply, NewMessage, OwedReply, ReplyEnd,
    ReplyFailure,
};
use hubbub_protocol::{
    ClientMessageId, Cut, Metadata, NodeId, ReplyId, Role, Seq, SessionId, TenantId, Usage,
};
use uuid::Uuid;

use super::text::{self, Digest};
use crate::fields::Fields;
use crate::tables::ledger::AttemptRow;
use crate::{StorageError, messages};
use hubbub_actors::ports::StoredMessage;

/// A session, as a key.
pub(super) type SessionKey = (TenantId, SessionId);

/// What the database holds that the batch touches.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// The sessions that exist, locked, with their newest seq.
    pub heads: HashMap<SessionKey, u64>,
    /// Under which fence each of them is.
    pub fences: HashMap<SessionKey, Fence>,
    /// Stored messages by client id.
    pub messages: HashMap<(SessionKey, Uuid), Known>,
    /// Stored replies by id.
    pub replies: HashMap<(TenantId, Uuid), KnownReply>,
}

/// A message that has its place.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// Stored by an earlier transaction.
    Stored(Box<Stored>),
    /// The n-th of [`Plan::messages`].
    Planned(usize),
}

/// A stored message without its text, which the writer cannot read.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    message: StoredMessage,
    digest: Vec<u8>,
    asked: Option<ReplyId>,
}

impl Stored {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, StorageError> {
        Ok(Self {
            message: messages::read_with(fields, String::new())?,
            digest: fields.get("body_sha256")?,
            asked: fields.get::<Option<Uuid>>("asked_reply")?.map(ReplyId),
        })
    }
}

/// A reply as far as ending it needs.
#[derive(Clone, Debug)]
pub(super) struct KnownReply {
    pub session: SessionId,
    pub state: String,
    pub node: NodeId,
    pub fence: Fence,
    pub claim: Claim,
}

/// A message to insert.
#[derive(Debug)]
pub(super) struct MessageRow {
    pub key: SessionKey,
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

/// A reply to end.
#[derive(Debug)]
pub(super) struct EndRow {
    pub end: FinishedReply,
    pub state: &'static str,
}

/// What becomes of an entry once the plan is committed.
#[derive(Debug)]
pub(super) enum AppendOutcome {
    Refused(AppendRefusal),
    /// The n-th planned message.
    Planned {
        index: usize,
        duplicate: bool,
    },
    Duplicate {
        message: Box<StoredMessage>,
        reply: Option<ReplyId>,
    },
    Ended,
}

/// The batch, decided.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub messages: Vec<MessageRow>,
    pub ends: Vec<EndRow>,
    /// Of every end, also of one that is refused: what was used was used.
    pub attempts: Vec<AttemptRow>,
    pub outcomes: Vec<AppendOutcome>,
}

/// Decides a batch.
pub(super) fn plan(batch: Vec<Append>, snapshot: Snapshot) -> Plan {
    let mut planner = Planner {
        snapshot,
        plan: Plan::default(),
        taken: HashSet::new(),
    };
    for entry in batch {
        let outcome = match entry {
            Append::Message(message) => planner.message(message),
            Append::Reply(end) => planner.end(end),
        };
        planner
            .plan
            .outcomes
            .push(outcome.unwrap_or_else(AppendOutcome::Refused));
    }
    planner.plan
}

struct Planner {
    snapshot: Snapshot,
    plan: Plan,
    /// Replies that planned messages ask for.
    taken: HashSet<(TenantId, Uuid)>,
}

impl Planner {
    fn message(&mut self, new: NewMessage) -> Result<AppendOutcome, AppendRefusal> {
        let key = (new.tenant, new.session);
        if !self.snapshot.heads.contains_key(&key) {
            return Err(AppendRefusal::NoSession);
        }
        let text = text::storable(new.text);
        let digest = text::digest(&text);
        if let Some(known) = self.snapshot.messages.get(&(key, new.id.uuid())) {
            return self.repeated(known, text, digest, None);
        }
        // An id that is some reply's would stand in the way of that reply's own message.
        let is_reply = |id: Uuid| {
            self.snapshot.replies.contains_key(&(new.tenant, id))
                || self.taken.contains(&(new.tenant, id))
        };
        if is_reply(new.id.uuid()) {
            return Err(AppendRefusal::Conflict);
        }
        if let Some(OwedReply { reply, .. }) = new.reply {
            let taken = is_reply(reply.0)
                || reply.0 == new.id.uuid()
                || self.snapshot.messages.contains_key(&(key, reply.0));
            if taken {
                return Err(AppendRefusal::Conflict);
            }
            self.taken.insert((new.tenant, reply.0));
        }
        self.store(MessageRow {
            key,
            seq: 0,
            id: new.id,
            role: new.role,
            author: text::storable(new.author),
            text,
            digest,
            metadata: new.metadata,
            reply: None,
            model: None,
            usage: None,
            latency_ms: None,
            cut: None,
            asks: new.reply,
        })
    }

    /// The answer to an entry whose id has its message already.
    fn repeated(
        &self,
        known: &Known,
        text: String,
        digest: Digest,
        answers: Option<ReplyId>,
    ) -> Result<AppendOutcome, AppendRefusal> {
        match known {
            Known::Stored(stored)
                if stored.digest == digest.as_slice() && stored.message.reply == answers =>
            {
                let message = Box::new(StoredMessage {
                    text,
                    ..stored.message.clone()
                });
                Ok(AppendOutcome::Duplicate {
                    message,
                    reply: stored.asked,
                })
            }
            Known::Planned(index)
                if self
                    .plan
                    .messages
                    .get(*index)
                    .is_some_and(|row| row.digest == digest && row.reply == answers) =>
            {
                Ok(AppendOutcome::Planned {
                    index: *index,
                    duplicate: true,
                })
            }
            _ => Err(AppendRefusal::Conflict),
        }
    }

    fn end(&mut self, mut end: FinishedReply) -> Result<AppendOutcome, AppendRefusal> {
        let key = (end.tenant, end.session);
        let attempts = std::mem::take(&mut end.attempts);
        self.plan
            .attempts
            .extend((1..).zip(attempts).map(|(number, attempt)| AttemptRow {
                tenant: end.tenant,
                session: end.session,
                reply: end.reply,
                claim: end.claim,
                number,
                attempt: Attempt {
                    model: text::storable(attempt.model),
                    ..attempt
                },
            }));
        if !self.snapshot.heads.contains_key(&key) {
            return Err(AppendRefusal::NoSession);
        }
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
        let state = match end.end {
            ReplyEnd::Completed { .. } => "completed",
            ReplyEnd::Failed(..) => "failed",
            ReplyEnd::Cancelled => "cancelled",
        };
        let reply = self
            .snapshot
            .replies
            .get_mut(&(end.tenant, end.reply.0))
            .filter(|reply| {
                reply.session == end.session && reply.node == end.node && reply.claim == end.claim
            })
            .ok_or(AppendRefusal::StaleClaim)?;
        if reply.state != "pending" {
            // Ended by this very node under this claim: the batch is sent again. Only the same end
            // is a repeat.
            return if reply.state == state {
                self.ended_again(key, end)
            } else {
                Err(AppendRefusal::StaleClaim)
            };
        }
        // Somebody else came to handle the session: what the bot wrote is not to be said any more.
        let is_current = self.snapshot.fences.get(&key) == Some(&reply.fence);
        if matches!(end.end, ReplyEnd::Completed { .. }) && !is_current {
            return Err(AppendRefusal::StaleFence);
        }
        state.clone_into(&mut reply.state);
        let outcome = match end.end {
            ReplyEnd::Completed { cut } => self.store(answer(key, &end, cut)),
            ReplyEnd::Failed(..) | ReplyEnd::Cancelled => Ok(AppendOutcome::Ended),
        };
        self.plan.ends.push(EndRow { end, state });
        outcome
    }

    fn ended_again(
        &self,
        key: SessionKey,
        end: FinishedReply,
    ) -> Result<AppendOutcome, AppendRefusal> {
        if !matches!(end.end, ReplyEnd::Completed { .. }) {
            return Ok(AppendOutcome::Ended);
        }
        let digest = text::digest(&end.text);
        let known = self
            .snapshot
            .messages
            .get(&(key, end.reply.0))
            .ok_or(AppendRefusal::StaleClaim)?;
        self.repeated(known, end.text, digest, Some(end.reply))
    }

    /// Gives the message the next number.
    fn store(&mut self, row: MessageRow) -> Result<AppendOutcome, AppendRefusal> {
        let index = self.plan.messages.len();
        let head = self
            .snapshot
            .heads
            .get_mut(&row.key)
            .ok_or(AppendRefusal::NoSession)?;
        *head += 1;
        let seq = *head;
        self.snapshot
            .messages
            .insert((row.key, row.id.uuid()), Known::Planned(index));
        self.plan.messages.push(MessageRow { seq, ..row });
        Ok(AppendOutcome::Planned {
            index,
            duplicate: false,
        })
    }
}

fn answer(key: SessionKey, end: &FinishedReply, cut: Option<Cut>) -> MessageRow {
    MessageRow {
        key,
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
    }
}

impl MessageRow {
    /// The message as stored at `at`.
    pub(super) fn stored(&self, at: hubbub_protocol::Timestamp) -> StoredMessage {
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
