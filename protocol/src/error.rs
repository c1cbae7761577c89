//! Error codes: the same closed set in `error` frames, in failed replies and in HTTP problem bodies.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong, for a program to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a JSON object with a known `type`.
    BadFrame,
    /// Understood, but a field is missing or out of range.
    Invalid,
    /// No valid credentials.
    Unauthorized,
    /// Valid credentials that do not allow this.
    Forbidden,
    /// No such thing, or none the caller may know of.
    NotFound,
    /// The route has no such method (HTTP only).
    MethodNotAllowed,
    /// A body of a kind that is not understood (HTTP only).
    UnsupportedMedia,
    /// The rest of the request did not come in time (HTTP only).
    Timeout,
    /// Another version of WebSocket than this server's (HTTP only).
    UpgradeRequired,
    /// Contradicts what is stored.
    Conflict,
    /// Larger than a limit.
    TooLarge,
    /// The caller is too fast; `retry_after_ms` tells when to try again.
    RateLimited,
    /// The server is too busy; `retry_after_ms` tells when to try again.
    Overloaded,
    /// A budget is used up.
    QuotaExceeded,
    /// Something the server needs is down.
    Unavailable,
    /// A fault of the server.
    Internal,
}

impl ErrorCode {
    /// Every code there is.
    pub const ALL: [Self; 16] = [
        Self::BadFrame,
        Self::Invalid,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::UnsupportedMedia,
        Self::Timeout,
        Self::UpgradeRequired,
        Self::Conflict,
        Self::TooLarge,
        Self::RateLimited,
        Self::Overloaded,
        Self::QuotaExceeded,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The code as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "bad_frame",
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnsupportedMedia => "unsupported_media",
            Self::Timeout => "timeout",
            Self::UpgradeRequired => "upgrade_required",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// When to try again, in milliseconds, where nobody knows better. `None`: what is refused with this
    /// code is refused again, until something else has changed.
    pub const fn retry_after_ms(self) -> Option<u64> {
        match self {
            Self::RateLimited | Self::Overloaded | Self::Timeout => Some(1_000),
            Self::Unavailable => Some(2_000),
            Self::BadFrame
            | Self::Invalid
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::UnsupportedMedia
            | Self::UpgradeRequired
            | Self::Conflict
            | Self::TooLarge
            | Self::QuotaExceeded
            | Self::Internal => None,
        }
    }

    /// The HTTP status of a problem body with this code.
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadFrame | Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMedia => 415,
            Self::UpgradeRequired => 426,
            Self::RateLimited | Self::QuotaExceeded => 429,
            Self::Overloaded | Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
