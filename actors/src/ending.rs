//! How a reply ends that ends without a message: as storage keeps it, and as devices are told.

use std::time::Duration;

use hubbub_protocol::{ErrorCode, NodeId, ReplyState, TenantId, Timestamp};

use crate::ports::{FinishedReply, PendingReply, ReplyEnd, ReplyFailure};
use crate::rejection::Rejection;

/// Pause before an end that could not be committed is tried again. It is tried until it is committed
/// or somebody else has ended the reply: an answer without an end would break a promise. Devices are told
/// of no end meanwhile: an attempt whose answer was lost may have stored this one all the same, and then
/// an end made up for them would be the first of two.
pub(crate) const END_RETRY: Duration = Duration::from_secs(1);

/// The end of a reply that nobody writes any more: its session or its node died.
pub(crate) fn lost(node: NodeId, tenant: TenantId, reply: &PendingReply) -> FinishedReply {
    let asked_ms = Timestamp::now().unix_ms() - reply.asked_at.unix_ms();
    FinishedReply {
        tenant,
        session: reply.session,
        reply: reply.reply,
        node,
        claim: reply.claim,
        end: failed(&Rejection::later(
            ErrorCode::Unavailable,
            "the answer was interrupted, please ask again",
            1_000,
        )),
        text: String::new(),
        author: String::new(),
        model: None,
        usage: None,
        attempts: Vec::new(),
        first_token_ms: None,
        latency_ms: u64::try_from(asked_ms).unwrap_or(0),
    }
}

/// An end that storage cannot store, perhaps for what it says: the reply fails instead. An answer without
/// an end would be worse.
pub(crate) fn without_text(finished: FinishedReply) -> FinishedReply {
    FinishedReply {
        end: failed(&Rejection::internal()),
        text: String::new(),
        ..finished
    }
}

/// A failed end, as a client may read it.
pub(crate) fn failed(rejection: &Rejection) -> ReplyEnd {
    ReplyEnd::Failed(ReplyFailure {
        code: rejection.code,
        message: rejection.message.to_owned(),
        reason: None,
        retry_after_ms: rejection.retry_after_ms,
    })
}

/// An end as devices are told of it; `None` for one that is a message.
pub(crate) fn end_state(end: &ReplyEnd) -> Option<ReplyState> {
    match end {
        ReplyEnd::Completed { .. } => None,
        ReplyEnd::Cancelled => Some(ReplyState::Cancelled),
        ReplyEnd::Failed(failure) => Some(ReplyState::Failed {
            error: failure.body(),
        }),
    }
}
