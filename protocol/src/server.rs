//! Server → client frames.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::reply::{Cut, EndedReply, ErrorBody, ReplyFrame, RunningReply, Usage};
use crate::tagged::tagged;
use crate::{
    BotId, ClientMessageId, ConnectionId, Epoch, HandlerFrame, Metadata, NoteFrame, Principal,
    ReplyId, Seq, SessionHandler, SessionId, TenantId, Timestamp,
};

/// What the server says. A client ignores types and fields it does not know.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The first frame of every connection.
    Welcome(Welcome),
    /// Answer to `join`; sent again, without `ref`, when the server had to rebuild the session.
    Joined(Box<Joined>),
    /// The message is committed.
    Ack(Ack),
    /// A durable message, to every device.
    Message(MessageFrame),
    /// The state of a reply.
    Reply(ReplyFrame),
    /// A piece of the running reply.
    Delta(Delta),
    /// Somebody is typing.
    Typing(TypingFrame),
    /// Somebody has read up to a message.
    Read(ReadFrame),
    /// A device joined or left.
    Presence(Presence),
    /// Somebody else handles the session from now on.
    Handler(HandlerFrame),
    /// An operator's note, to operators.
    Note(NoteFrame),
    /// Answer to `leave`.
    Left(Left),
    /// A frame was refused; the connection stays open.
    Error(ErrorFrame),
    /// The server is about to close.
    Bye(Bye),
}

tagged!(
    ServerFrame: Welcome, Joined, Ack, Message, Reply, Delta, Typing, Read, Presence, Handler, Note,
    Left, Error, Bye,
);

/// `welcome`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// This connection.
    pub connection: ConnectionId,
    /// The tenant of the credentials.
    pub tenant: TenantId,
    /// Who the connection speaks for.
    pub principal: Principal,
    /// The server pings this often; a client that hears nothing for twice as long reconnects.
    pub heartbeat_ms: u64,
    /// What the server accepts.
    pub limits: Limits,
}

/// What the server accepts from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest inbound frame, in bytes.
    pub frame_bytes: usize,
    /// Longest message text, in characters.
    pub text_chars: usize,
}

/// `joined`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// Echo.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
    /// Its bot.
    pub bot: BotId,
    /// The newest seq.
    pub head: Seq,
    /// The log that seqs belong to.
    pub epoch: Epoch,
    /// The log is not the one the client knew: drop what is held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resync: bool,
    /// Oldest first.
    pub messages: Vec<MessageFrame>,
    /// Some seq lies between what was asked for and what was sent; page it over HTTP.
    pub more: bool,
    /// The reply being written now, whole so far.
    pub replying: Option<RunningReply>,
    /// Replies to these messages that failed or were cancelled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<EndedReply>,
    /// Who answers.
    pub handler: SessionHandler,
}

/// `ack`: the message, or the note, is committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Echo.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
    /// The client's id of the message.
    pub id: ClientMessageId,
    /// Its number; 0 for a note, which has none and says none.
    #[serde(default, skip_serializing_if = "Seq::is_none")]
    pub seq: Seq,
    /// When it was stored.
    pub at: Timestamp,
    /// It had been stored before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// `message`: durable, numbered, final.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageFrame {
    /// The session.
    pub session: SessionId,
    /// Its number.
    pub seq: Seq,
    /// The id its writer gave it.
    pub id: ClientMessageId,
    /// In which role it was written.
    pub role: Role,
    /// Who wrote it, for people to read.
    pub author: String,
    /// What it says.
    pub text: String,
    /// Files; none are supported yet, so the list is empty.
    #[serde(default)]
    pub attachments: Vec<Value>,
    /// Whatever the client sent along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// When it was stored.
    pub at: Timestamp,
    /// The reply this message ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<ReplyId>,
    /// The model that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// From the question's commit to the answer's end, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// The answer is not whole, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

/// Roles of a message's writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person who chats.
    Visitor,
    /// The bot.
    Assistant,
    /// A person of the tenant.
    Operator,
    /// The server.
    System,
}

/// `delta`: a piece of the running reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// The session.
    pub session: SessionId,
    /// The reply.
    pub reply: ReplyId,
    /// UTF-16 code units of the reply before this piece.
    pub offset: u64,
    /// The piece.
    pub text: String,
}

/// `typing`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypingFrame {
    /// The session.
    pub session: SessionId,
    /// Who.
    pub who: Principal,
    /// Whether they are typing.
    pub on: bool,
}

/// `read`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadFrame {
    /// The session.
    pub session: SessionId,
    /// Who.
    pub who: Principal,
    /// The newest message they have seen.
    pub seq: Seq,
}

/// `presence`: how many devices somebody has in the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// The session.
    pub session: SessionId,
    /// Who.
    pub who: Principal,
    /// Whether any device of theirs is still joined.
    pub online: bool,
    /// Devices joined in all, on this node.
    pub devices: u32,
}

/// `left`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Left {
    /// Echo.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
}

/// `error`: a frame was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorFrame {
    /// Echo.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// What and why.
    #[serde(flatten)]
    pub error: ErrorBody,
}

/// `bye`: the server is about to close.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bye {
    /// Why, in the words of the close code.
    pub reason: String,
    /// Wait this long before reconnecting: spreads the rush.
    pub reconnect_after_ms: u64,
}

impl ServerFrame {
    /// Its `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Joined(_) => "joined",
            Self::Ack(_) => "ack",
            Self::Message(_) => "message",
            Self::Reply(_) => "reply",
            Self::Delta(_) => "delta",
            Self::Typing(_) => "typing",
            Self::Read(_) => "read",
            Self::Presence(_) => "presence",
            Self::Handler(_) => "handler",
            Self::Note(_) => "note",
            Self::Left(_) => "left",
            Self::Error(_) => "error",
            Self::Bye(_) => "bye",
        }
    }

    /// The frame as JSON text.
    pub fn encode(&self) -> String {
        // Serialising these types to a string cannot fail: no maps with keys that are not strings,
        // no custom errors. An empty object would still be a frame that clients ignore.
        serde_json::to_string(self).unwrap_or_else(|_| String::from("{}"))
    }
}
