//! Identifiers. Each is its own type, so a bot's id cannot be passed where a session's is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh UUIDv7: unique, and ordered by the millisecond it was made in.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    )*};
}

ids! {
    /// A customer organisation: the boundary of isolation.
    TenantId;
    /// A configured assistant of a tenant.
    BotId;
    /// The person who chats; may be anonymous.
    VisitorId;
    /// One conversation with its numbered messages.
    SessionId;
    /// One WebSocket.
    ConnectionId;
    /// One answer being generated. The final message carries the same id as `reply`.
    ReplyId;
    /// One running server process, from start to exit.
    NodeId;
    /// The log that sequence numbers belong to: changes when a database is restored from backup.
    Epoch;
}

/// The number of a durable message in its session: 1, 2, 3, … without gaps. 0 is "before the first".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Whether it is no message's.
    pub fn is_none(&self) -> bool {
        self.0 == 0
    }

    /// The position before the first message.
    pub const ZERO: Self = Self(0);

    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
