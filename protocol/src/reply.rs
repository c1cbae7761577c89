//! Replies: how far one is, how it ended, and what it took.

use serde::{Deserialize, Serialize};

use crate::{ErrorCode, ReplyId, Seq, SessionId};

/// What a reply took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Of the prompt's, those that the upstream read from its cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_input_tokens: u64,
    /// Counted by the server from the texts, because the model did not tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

/// `reply`: how far an answer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyFrame {
    /// The session.
    pub session: SessionId,
    /// The reply.
    pub reply: ReplyId,
    /// The seq it answers.
    pub to: Seq,
    /// How far it is.
    #[serde(flatten)]
    pub state: ReplyState,
}

/// States of a reply. The last two are ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReplyState {
    /// Waiting for a free slot.
    Queued {
        /// Place in the queue; 1 is next.
        position: u32,
        /// Expected wait, in milliseconds.
        eta_ms: u64,
        /// No model takes requests now; `eta_ms` tells when one is tried again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        paused: bool,
    },
    /// The model writes.
    Started {
        /// Which model.
        model: String,
        /// It is at work, and has nothing to show yet.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        thinking: bool,
    },
    /// No answer came of it.
    Failed {
        /// Why.
        error: ErrorBody,
    },
    /// Somebody stopped it.
    Cancelled,
}

/// The part of an error that a client acts on. Only made by [`ErrorBody::new`], so that no refusal that
/// passes by itself goes without a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ErrorBody {
    /// For a program.
    pub code: ErrorCode,
    /// For a person; says nothing of the server's inside.
    pub message: String,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What became of the answer; only a reply's error has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
}

/// Why a reply came to no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The answer broke off before its end.
    Cut,
    /// A content filter refused the question or stopped the answer.
    Filtered,
    /// The model ended without a word.
    Empty,
    /// The answer grew longer than the server keeps.
    TooLong,
}

impl FailureReason {
    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Filtered => "filtered",
            Self::Empty => "empty",
            Self::TooLong => "too_long",
        }
    }
}

impl ErrorBody {
    /// With the time at which to try again that its code stands for, if any.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: code.retry_after_ms(),
            reason: None,
        }
    }

    /// With a better known time.
    pub fn retry_after_ms(self, retry_after_ms: Option<u64>) -> Self {
        Self {
            retry_after_ms: retry_after_ms.or(self.retry_after_ms),
            ..self
        }
    }

    /// With what became of the answer.
    pub fn reason(self, reason: Option<FailureReason>) -> Self {
        Self { reason, ..self }
    }
}

/// The reply being written, as `joined` tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningReply {
    /// The reply.
    pub reply: ReplyId,
    /// The seq it answers.
    pub to: Seq,
    /// `queued` or `started`.
    #[serde(flatten)]
    pub state: ReplyState,
    /// Its text so far, or the beginning of a long one, which goes on in deltas.
    pub text: String,
}

/// A reply that ended without a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedReply {
    /// The reply.
    pub reply: ReplyId,
    /// The seq it answered.
    pub to: Seq,
    /// `failed` or `cancelled`.
    #[serde(flatten)]
    pub state: ReplyState,
    /// What was written before it ended, or only its beginning.
    pub text: String,
    /// Bytes of all that was written, where `text` is only its beginning: HTTP pages carry the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_bytes: Option<u64>,
}

/// Why an answer that was stored is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// It reached the most tokens that the model may write.
    Length,
}

impl Cut {
    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Length => "length",
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}
