//! WebSocket close codes: every close has a number, a reason, and a rule for what the client does next.

/// Why the server closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// 1000: the client was done.
    Done,
    /// 1001: the node is draining; reconnect now, another node takes over.
    Draining,
    /// 1002: the client broke the WebSocket protocol.
    Protocol,
    /// 1003: a binary frame, which this protocol does not use.
    Unsupported,
    /// 1007: a text frame that is not UTF-8.
    NotUtf8,
    /// 1008: the client broke a rule, and would break it again.
    Policy,
    /// 1009: a frame larger than `limits.frame_bytes`.
    TooBig,
    /// 1011: the server failed.
    Internal,
    /// 1013: the server cannot take this connection now; try again later.
    TryLater,
    /// 4001: signed out, or the key was revoked; do not reconnect with the same credentials.
    SignedOut,
    /// 4008: the device did not read; reconnect and `join` with `after`.
    Slow,
}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::Done => 1000,
            Self::Draining => 1001,
            Self::Protocol => 1002,
            Self::Unsupported => 1003,
            Self::NotUtf8 => 1007,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::TryLater => 1013,
            Self::SignedOut => 4001,
            Self::Slow => 4008,
        }
    }

    /// The reason on the wire, for a person who reads a browser's console.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Draining => "draining",
            Self::Protocol => "protocol error",
            Self::Unsupported => "only text frames are understood",
            Self::NotUtf8 => "not UTF-8",
            Self::Policy => "policy",
            Self::TooBig => "frame too big",
            Self::Internal => "internal error",
            Self::TryLater => "try again later",
            Self::SignedOut => "signed out",
            Self::Slow => "slow",
        }
    }
}
