//! Refusals that a client may read. No constructor takes a `Display`: an inner error cannot leak.

use std::time::Duration;

use hubbub_protocol::ErrorCode;
use hubbub_protocol::reply::ErrorBody;

use crate::ports::{AppendRefusal, StoreError};

/// Why a command was refused. What was refused was not stored; a repeat with the same id is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct Rejection {
    /// For a program.
    pub code: ErrorCode,
    /// For a person.
    pub message: &'static str,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Rejection {
    /// A refusal. Whether and when it passes, its code tells.
    pub const fn new(code: ErrorCode, message: &'static str) -> Self {
        Self {
            code,
            message,
            retry_after_ms: code.retry_after_ms(),
        }
    }

    /// A refusal that passes at a time that is known better.
    pub const fn later(code: ErrorCode, message: &'static str, retry_after_ms: u64) -> Self {
        Self {
            code,
            message,
            retry_after_ms: Some(retry_after_ms),
        }
    }

    /// More came than a rate allows; this long until it allows more.
    pub fn too_fast(message: &'static str, wait: Duration) -> Self {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self::later(ErrorCode::RateLimited, message, wait_ms.max(50))
    }

    /// The tenant has no such session, or the caller may not know of it.
    pub const fn no_session() -> Self {
        Self::new(ErrorCode::NotFound, "no such session")
    }

    /// The caller may know of the session, but this device is not in it.
    pub const fn not_joined() -> Self {
        Self::new(
            ErrorCode::NotFound,
            "this connection has not joined that session",
        )
    }

    /// The tenant has no such bot.
    pub const fn no_bot() -> Self {
        Self::new(ErrorCode::NotFound, "no such bot")
    }

    /// A mailbox or queue is full.
    pub const fn overloaded() -> Self {
        Self::later(
            ErrorCode::Overloaded,
            "the server is busy, try again shortly",
            1_000,
        )
    }

    /// Something the server needs is down, or did not answer in time.
    pub const fn unavailable() -> Self {
        Self::later(
            ErrorCode::Unavailable,
            "temporarily unavailable, try again shortly",
            2_000,
        )
    }

    /// A fault of ours; the log has it.
    pub const fn internal() -> Self {
        Self::new(ErrorCode::Internal, "something went wrong on the server")
    }

    /// As the part of a frame.
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(self.code, self.message).retry_after_ms(self.retry_after_ms)
    }
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable | StoreError::Down => Self::unavailable(),
            StoreError::NoBot => Self::no_bot(),
            StoreError::Internal => Self::internal(),
        }
    }
}

impl From<AppendRefusal> for Rejection {
    fn from(refusal: AppendRefusal) -> Self {
        match refusal {
            AppendRefusal::Conflict => {
                Self::new(ErrorCode::Conflict, "this id was used for another text")
            }
            AppendRefusal::NoSession => Self::no_session(),
            AppendRefusal::StaleFence | AppendRefusal::StaleClaim => {
                Self::new(ErrorCode::Conflict, "the reply has ended")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_says_when_however_it_is_refused() {
        for code in [
            ErrorCode::RateLimited,
            ErrorCode::Overloaded,
            ErrorCode::Unavailable,
        ] {
            let refused = Rejection::new(code, "not now");
            assert!(refused.retry_after_ms.is_some_and(|ms| ms > 0), "{code}");
            assert_eq!(refused.body().retry_after_ms, refused.retry_after_ms);
            let known_better = Rejection::later(code, "not now", 7).body();
            assert_eq!(known_better.retry_after_ms, Some(7));
        }
        let never = Rejection::new(ErrorCode::Conflict, "never");
        assert_eq!(never.body().retry_after_ms, None);
        let passes = Rejection::later(ErrorCode::Forbidden, "when another leaves", 7);
        assert_eq!(passes.body().retry_after_ms, Some(7));
    }
}
