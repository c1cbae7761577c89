//! How a reply ends that was answered, well or not, in the words that its devices read. Pure.

use hubbub_protocol::{Cut, ErrorCode, FailureReason};

use crate::ports::{Exhausted, Finish, ReplyEnd, ReplyFailure, UpstreamError};
use crate::rejection::Rejection;

/// No upstream answered.
pub(super) fn no_answer() -> Rejection {
    Rejection::later(
        ErrorCode::Unavailable,
        "the assistant could not answer",
        1_000,
    )
}

/// A budget has not enough left.
pub(super) fn over_budget(exhausted: Exhausted) -> Rejection {
    let wait_ms = u64::try_from(exhausted.resets_in.as_millis()).unwrap_or(u64::MAX);
    Rejection::later(
        ErrorCode::QuotaExceeded,
        "the assistant has reached its limit for now, please try again later",
        wait_ms.max(1_000),
    )
}

/// The question is longer than any upstream can read.
pub(super) fn too_large() -> Rejection {
    Rejection::new(
        ErrorCode::TooLarge,
        "the message is too long for this assistant",
    )
}

/// The answer is there, whole or cut at the model's bound.
pub(super) fn finished(finish: Finish) -> ReplyEnd {
    let cut = match finish {
        Finish::Complete => None,
        Finish::Length => Some(Cut::Length),
    };
    ReplyEnd::Completed { cut }
}

/// The model ended without a word. That is its answer to this question, so nobody else is asked.
pub(super) fn empty() -> ReplyEnd {
    failed(
        ErrorCode::Unavailable,
        "the assistant ended without a word, please ask again",
        FailureReason::Empty,
    )
}

/// The answer grew beyond what is kept.
pub(super) fn too_long() -> ReplyEnd {
    failed(
        ErrorCode::TooLarge,
        "the answer grew too long and was ended",
        FailureReason::TooLong,
    )
}

/// A content filter refused the question or stopped the answer.
pub(super) fn filtered() -> ReplyEnd {
    failed(
        ErrorCode::Invalid,
        "a content filter stopped this answer",
        FailureReason::Filtered,
    )
}

/// The answer broke off after its first word.
pub(super) fn broken(error: UpstreamError) -> ReplyEnd {
    match error {
        UpstreamError::Filtered => filtered(),
        _ => failed(
            ErrorCode::Unavailable,
            "the answer broke off, please ask again",
            FailureReason::Cut,
        ),
    }
}

fn failed(code: ErrorCode, message: &str, reason: FailureReason) -> ReplyEnd {
    ReplyEnd::Failed(ReplyFailure {
        code,
        message: message.to_owned(),
        reason: Some(reason),
        retry_after_ms: None,
    })
}
