//! What a batch comes to, given what is stored: pure, decided while the batch's sessions are locked.
//!
//! Numbers are given here, after deduplication, so a duplicate or a refusal leaves no gap.

use std::collections::{HashMap, HashSet};

use hubbub_actors::ports::{
    Append, AppendRefusal, Claim, Fence, FinishedReply, NewMessage, OwedReply, ReplyEnd,
    StoredMessage,
};
use hubbub_protocol::{NodeId, ReplyId, SessionId, TenantId};
use uuid::Uuid;

use super::rows::{EndRow, MessageRow, SessionKey};
use super::text::{self, Digest};
use crate::fields::Fields;
use crate::tables::ledger::AttemptRow;
use crate::{StorageError, messages};

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
        let row = MessageRow::of(new);
        if let Some(known) = self.snapshot.messages.get(&(key, row.id.uuid())) {
            return self.repeated(known, row.text, row.digest, None);
        }
        // An id that is some reply's would stand in the way of that reply's own message.
        let is_reply = |id: Uuid| {
            self.snapshot.replies.contains_key(&(key.0, id)) || self.taken.contains(&(key.0, id))
        };
        if is_reply(row.id.uuid()) {
            return Err(AppendRefusal::Conflict);
        }
        if let Some(OwedReply { reply, .. }) = row.asks {
            let taken = is_reply(reply.0)
                || reply.0 == row.id.uuid()
                || self.snapshot.messages.contains_key(&(key, reply.0));
            if taken {
                return Err(AppendRefusal::Conflict);
            }
            self.taken.insert((key.0, reply.0));
        }
        self.store(row)
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

    fn end(&mut self, end: FinishedReply) -> Result<AppendOutcome, AppendRefusal> {
        let key = (end.tenant, end.session);
        let (row, attempts) = EndRow::of(end);
        self.plan.attempts.extend(attempts);
        if !self.snapshot.heads.contains_key(&key) {
            return Err(AppendRefusal::NoSession);
        }
        let EndRow { end, state } = &row;
        let state = *state;
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
                self.ended_again(key, row.end)
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
        let outcome = match row.message() {
            Some(message) => self.store(message),
            None => Ok(AppendOutcome::Ended),
        };
        self.plan.ends.push(row);
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
