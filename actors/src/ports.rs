//! The ports: what the behaviour needs from the world. `src` implements them over PostgreSQL and HTTP,
//! [`crate::testing`] in memory, so every rule is tested on virtual time and without I/O.

pub mod append;
pub mod error;
pub mod fencing;
pub mod ledger;
pub mod notes;
pub mod store;
pub mod upstream;

pub use append::{
    Append, AppendRefusal, Appended, FinishedReply, NewMessage, OwedReply, ReplyEnd, ReplyFailure,
    StoredMessage,
};
pub use error::StoreError;
pub use fencing::{Claim, Fence};
pub use ledger::{Attempt, AttemptOutcome, Exhausted, Reservation, UsageLedger, UsageSource};
pub use notes::{NewNote, Noted};
pub use store::{
    BotConfig, Conversation, ENDED_LOOK_BACK, HandlerChange, MessageStore, NewSession, PageSize,
    PendingReply, Said, SessionRecord, TenantLimits, Transcript,
};
pub use upstream::{
    ALIVE_EVERY, ChatRequest, ChatTurn, Finish, TurnRole, Upstream, UpstreamError, UpstreamEvent,
};
