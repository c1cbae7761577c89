//! What is appended to a session's log: messages of people, and ends of replies.

use hubbub_protocol::reply::ErrorBody;
use hubbub_protocol::{
    ClientMessageId, Cut, ErrorCode, FailureReason, MessageFrame, Metadata, NodeId, ReplyId, Role,
    SessionId, TenantId, Usage,
};

use super::fencing::{Claim, Fence};
use super::ledger::Attempt;

/// One entry of a batch.
#[derive(Clone, Debug)]
pub enum Append {
    /// A message of a person, with the reply it asks for.
    Message(NewMessage),
    /// The end of a reply.
    Reply(FinishedReply),
}

impl Append {
    /// The session the entry belongs to.
    pub fn session(&self) -> SessionId {
        match self {
            Self::Message(message) => message.session,
            Self::Reply(end) => end.session,
        }
    }

    /// The tenant the entry belongs to.
    pub fn tenant(&self) -> TenantId {
        match self {
            Self::Message(message) => message.tenant,
            Self::Reply(end) => end.tenant,
        }
    }
}

/// A message to store.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its session.
    pub session: SessionId,
    /// The writer's id of it: unique in the session.
    pub id: ClientMessageId,
    /// In which role it was written.
    pub role: Role,
    /// Who wrote it, for people to read.
    pub author: String,
    /// What it says.
    pub text: String,
    /// Kept with it.
    pub metadata: Option<Metadata>,
    /// The pending reply to store with it.
    pub reply: Option<OwedReply>,
}

/// A reply that a message asks for. Its first claim is its node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwedReply {
    /// Its id.
    pub reply: ReplyId,
    /// Who is going to write it.
    pub node: NodeId,
    /// The session's fence when it was asked for.
    pub fence: Fence,
}

/// The end of a reply: stored only while the reply is pending and `node`'s, under `claim`.
#[derive(Clone, Debug)]
pub struct FinishedReply {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its session.
    pub session: SessionId,
    /// The reply.
    pub reply: ReplyId,
    /// Who wrote it.
    pub node: NodeId,
    /// Under which claim.
    pub claim: Claim,
    /// How it ended.
    pub end: ReplyEnd,
    /// Everything that was written, also when it was cancelled.
    pub text: String,
    /// The bot's name.
    pub author: String,
    /// The model that wrote it, if any was reached.
    pub model: Option<String>,
    /// What the last attempt took, as far as known.
    pub usage: Option<Usage>,
    /// Every attempt, oldest first. They reach the ledger exactly once, whatever becomes of the end.
    pub attempts: Vec<Attempt>,
    /// Milliseconds from the question's commit to the first token.
    pub first_token_ms: Option<u64>,
    /// Milliseconds from the question's commit to the end.
    pub latency_ms: u64,
}

/// How a reply ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyEnd {
    /// With a message, which may have been cut at a bound.
    Completed {
        /// Why the message is not whole, if it is not.
        cut: Option<Cut>,
    },
    /// Typed.
    Failed(ReplyFailure),
    /// Stopped by a person.
    Cancelled,
}

/// Why a reply failed, as a client may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyFailure {
    /// For a program.
    pub code: ErrorCode,
    /// For a person.
    pub message: String,
    /// What became of the answer, if there was one.
    pub reason: Option<FailureReason>,
    /// When to try again, in milliseconds, where that is known better than from the code. Not stored: later it
    /// means nothing.
    pub retry_after_ms: Option<u64>,
}

impl ReplyFailure {
    /// As the part of a frame.
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(self.code, &self.message)
            .reason(self.reason)
            .retry_after_ms(self.retry_after_ms)
    }
}

/// What became of an entry.
#[derive(Clone, Debug)]
pub enum Appended {
    /// The message is stored, now or (`duplicate`) earlier.
    Message {
        /// As stored.
        message: StoredMessage,
        /// It had been stored before; `message` is what was stored then.
        duplicate: bool,
        /// The pending reply stored with it, now or earlier.
        reply: Option<ReplyId>,
        /// Whether its tenant has a budget; `None` if nobody looked.
        has_budget: Option<bool>,
    },
    /// The reply is ended without a message.
    ReplyEnded,
}

/// Why an entry was not stored; the rest of its batch was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefusal {
    /// The same id with another text is stored.
    #[error("the id is taken by another text")]
    Conflict,
    /// The tenant has no such session.
    #[error("no such session")]
    NoSession,
    /// The reply was begun before somebody else came to handle the session: its text is not to be shown.
    #[error("the fence is stale")]
    StaleFence,
    /// The reply is not this node's to end: ended already, or taken over under a higher claim.
    #[error("the claim is stale")]
    StaleClaim,
}

/// A stored message, as a frame that can be sent.
pub type StoredMessage = MessageFrame;
