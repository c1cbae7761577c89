//! The words of Hubbub's wire contract: frames, ids, close codes, problem types.
//!
//! Nothing here does anything: the server, the load harness and the tests share these types so that
//! a frame is spelled in one place. `protocol/examples` holds one golden JSON document per frame,
//! read by this crate's tests and by the widget's.

pub mod class;
pub mod client;
pub mod close;
pub mod content;
pub mod error;
pub mod escalation;
pub mod handler;
pub mod http;
pub mod id;
pub mod message_id;
pub mod metadata;
pub mod note;
pub mod principal;
pub mod reply;
pub mod server;
mod tagged;
pub mod time;
pub mod usage;

pub use class::ReplyClass;
pub use client::{ClientFrame, FrameError};
pub use close::CloseCode;
pub use error::ErrorCode;
pub use escalation::Escalation;
pub use handler::{HandlerFrame, SessionHandler};
pub use id::{BotId, ConnectionId, Epoch, NodeId, ReplyId, Seq, SessionId, TenantId, VisitorId};
pub use message_id::ClientMessageId;
pub use metadata::Metadata;
pub use note::NoteFrame;
pub use principal::{Principal, PrincipalKind};
pub use reply::{Cut, EndedReply, FailureReason, ReplyState, RunningReply, Usage};
pub use server::{MessageFrame, Role, ServerFrame};
pub use time::Timestamp;

/// The WebSocket subprotocol every connection speaks.
pub const SUBPROTOCOL: &str = "hubbub.v1";

/// Prefix of the second offered subprotocol, which carries a single-use ticket.
pub const TICKET_SUBPROTOCOL_PREFIX: &str = "ticket.";

/// Limits of the contract itself. Deployments may set lower ones; `welcome` tells the effective ones.
pub mod limits {
    /// Longest message text, in Unicode scalar values.
    pub const TEXT_CHARS: usize = 16_000;
    /// Largest inbound frame, in bytes: the longest text in its widest spelling (two escapes of six bytes
    /// for each character), and 8 KiB for metadata, ids and names of fields.
    pub const FRAME_BYTES: usize = 12 * TEXT_CHARS + 8 * 1024;
    /// Longest id and name of a person, in Unicode scalar values.
    pub const NAME_CHARS: usize = 200;
    /// Longest reason somebody gives for asking for a person, in Unicode scalar values.
    pub const REASON_CHARS: usize = 500;
    /// Longest summary an operator leaves the bot, in Unicode scalar values.
    pub const SUMMARY_CHARS: usize = 2_000;
    /// Longest `ref`, in Unicode scalar values.
    pub const REF_CHARS: usize = 64;
    /// Most messages one `joined` carries.
    pub const JOIN_MESSAGES: u32 = 200;
    /// Messages one `joined` carries when the client names no limit.
    pub const JOIN_MESSAGES_DEFAULT: u32 = 50;
    /// Largest `metadata` object, in bytes of JSON as sent.
    pub const METADATA_BYTES: usize = 4 * 1024;
    /// Deepest nesting of a `metadata` object. Parsers stop at 128 levels and more; the frames around it
    /// need a few.
    pub const METADATA_DEPTH: usize = 100;
}
