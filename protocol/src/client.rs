//! Client → server frames, and the decoder that turns text into one of them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::content::message_violation;
use crate::note::Note;
use crate::tagged::tagged;
use crate::{
    BotId, ClientMessageId, Epoch, ErrorCode, Metadata, Seq, SessionHandler, SessionId, limits,
};

/// What a device may say. Unknown fields are ignored; unknown types are `bad_frame`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// Join a session, or open a new one.
    Join(Join),
    /// Say something.
    Send(Send),
    /// Stop the running reply.
    Stop(Stop),
    /// The person is typing, or no longer.
    Typing(Typing),
    /// The person has seen everything up to a message.
    Read(Read),
    /// An operator handles the session from now on.
    Takeover(Takeover),
    /// The bot handles it again.
    Release(Release),
    /// Somebody else does.
    Transfer(Transfer),
    /// The visitor asks for a person.
    Escalate(Escalate),
    /// Something for the other operators.
    Note(Note),
    /// Leave a session; the connection stays.
    Leave(Leave),
}

tagged!(
    ClientFrame: Join, Send, Stop, Typing, Read, Takeover, Release, Transfer, Escalate, Note,
    Leave,
);

/// `join`: answered by `joined`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// Echoed in the answer.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session to join; `None` opens a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The bot of a new session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bot: Option<BotId>,
    /// The last seq held; `None` asks for the newest messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Seq>,
    /// The log that `after` belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Most messages in the answer: 1 to 200, 50 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `send`: answered by `ack` once it is committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Send {
    /// Echoed in the answer.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
    /// The client's own id of this message: sending it again never makes a second message.
    pub id: ClientMessageId,
    /// What is said: 1 to `limits.text_chars` characters.
    pub text: String,
    /// Anything the client wants kept with the message: at most 4 KiB of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// What becomes of the reply that is being written.
    #[serde(default, skip_serializing_if = "SendMode::is_queue")]
    pub mode: SendMode,
}

/// What becomes of the reply that is being written when a message comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendMode {
    /// It goes on, and the message has its turn after it.
    #[default]
    Queue,
    /// It ends as cancelled, and the message is answered next.
    Interrupt,
}

impl SendMode {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature serde asks for"
    )]
    pub(crate) fn is_queue(&self) -> bool {
        *self == Self::Queue
    }
}

/// `stop`: answered by `reply` with state `cancelled`, to every device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// Echoed if the answer is an error.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
}

/// `typing`: not stored, not answered, may be dropped under load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Typing {
    /// The session.
    pub session: SessionId,
    /// Whether the person is typing.
    pub on: bool,
}

/// `read`: not answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// The session.
    pub session: SessionId,
    /// The newest message seen.
    pub seq: Seq,
}

/// `takeover`, of operators: answered by `handler`, to every device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Takeover {
    /// Echoed if the answer is an error.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
    /// Who is expected to handle it now; another one is a `conflict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SessionHandler>,
}

/// `release`, of operators: answered by `handler`, to every device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Echoed if the answer is an error.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
    /// What the bot is told, and nobody else: what was agreed, and how to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

/// `transfer`, of operators: answered by `handler`, to every device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Echoed if the answer is an error.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
    /// An operator's id, or `waiting`.
    pub to: String,
}

/// `escalate`, of visitors and users: answered by `handler`, to every device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Escalate {
    /// Echoed if the answer is an error.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
    /// Why, in the visitor's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `leave`: answered by `left`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leave {
    /// Echoed in the answer.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
}

/// Why a frame was not understood, ready to become an `error` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// `bad_frame`, `invalid` or `too_large`.
    pub code: ErrorCode,
    /// For a person.
    pub message: &'static str,
    /// The `ref` of the frame, where one could be read.
    pub reference: Option<String>,
    /// The session of the frame, where one could be read.
    pub session: Option<SessionId>,
}

/// The fields an error answer can echo even when the rest of the frame is wrong.
#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(rename = "type", default)]
    kind: Option<Value>,
    #[serde(rename = "ref", default)]
    reference: Option<Value>,
    #[serde(default)]
    session: Option<Value>,
}

const KINDS: [&str; 11] = [
    "join", "send", "stop", "typing", "read", "takeover", "release", "transfer", "escalate",
    "note", "leave",
];

impl ClientFrame {
    /// Decodes one text frame and checks every limit that needs no state.
    pub fn decode(text: &str, text_chars: usize) -> Result<Self, FrameError> {
        let frame = Self::from_json(text).map_err(|_| explain(text))?;
        match frame.violation(text_chars) {
            None => Ok(frame),
            Some((code, message)) => Err(FrameError {
                code,
                message,
                reference: frame
                    .reference()
                    .filter(|r| is_reference(r))
                    .map(str::to_owned),
                session: frame.session(),
            }),
        }
    }

    /// The client's `ref`, echoed in the answer.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::Join(Join { reference, .. })
            | Self::Send(Send { reference, .. })
            | Self::Stop(Stop { reference, .. })
            | Self::Takeover(Takeover { reference, .. })
            | Self::Release(Release { reference, .. })
            | Self::Transfer(Transfer { reference, .. })
            | Self::Escalate(Escalate { reference, .. })
            | Self::Note(Note { reference, .. })
            | Self::Leave(Leave { reference, .. }) => reference.as_deref(),
            Self::Typing(_) | Self::Read(_) => None,
        }
    }

    /// The session this frame is about; `None` only for a `join` that opens one.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Join(frame) => frame.session,
            Self::Send(Send { session, .. })
            | Self::Stop(Stop { session, .. })
            | Self::Typing(Typing { session, .. })
            | Self::Read(Read { session, .. })
            | Self::Takeover(Takeover { session, .. })
            | Self::Release(Release { session, .. })
            | Self::Transfer(Transfer { session, .. })
            | Self::Escalate(Escalate { session, .. })
            | Self::Note(Note { session, .. })
            | Self::Leave(Leave { session, .. }) => Some(*session),
        }
    }

    fn violation(&self, text_chars: usize) -> Option<(ErrorCode, &'static str)> {
        if self.reference().is_some_and(|r| !is_reference(r)) {
            return Some((ErrorCode::Invalid, "ref is longer than 64 characters"));
        }
        match self {
            Self::Join(join) => join.violation(),
            Self::Send(send) => send.violation(text_chars),
            Self::Release(release) => release.violation(),
            Self::Transfer(transfer) => transfer.violation(),
            Self::Escalate(escalate) => escalate.violation(),
            Self::Note(note) => note.violation(text_chars),
            _ => None,
        }
    }
}

impl Join {
    fn violation(&self) -> Option<(ErrorCode, &'static str)> {
        if self.session.is_none() && self.bot.is_none() {
            return Some((
                ErrorCode::Invalid,
                "join needs a session, or a bot to open one with",
            ));
        }
        if self
            .limit
            .is_some_and(|limit| limit == 0 || limit > limits::JOIN_MESSAGES)
        {
            return Some((ErrorCode::Invalid, "limit must be 1 to 200"));
        }
        None
    }
}

impl Send {
    fn violation(&self, text_chars: usize) -> Option<(ErrorCode, &'static str)> {
        message_violation(&self.text, self.metadata.as_ref(), text_chars)
    }
}

/// Whether a `ref` is short enough to be echoed.
fn is_reference(text: &str) -> bool {
    text.chars().count() <= limits::REF_CHARS
}

/// Second look at a frame that did not decode: what can be said about it, and to whom.
fn explain(text: &str) -> FrameError {
    let is_object = text.trim_start().starts_with('{');
    let Some(envelope) = serde_json::from_str::<Envelope>(text)
        .ok()
        .filter(|_| is_object)
    else {
        return FrameError {
            code: ErrorCode::BadFrame,
            message: "not a JSON object",
            reference: None,
            session: None,
        };
    };
    let kind = envelope.kind.as_ref().and_then(Value::as_str);
    let (code, message) = match kind {
        None => (ErrorCode::BadFrame, "the frame has no type"),
        Some(kind) if KINDS.contains(&kind) => {
            (ErrorCode::Invalid, "a field is missing or not of its type")
        }
        Some(_) => (ErrorCode::BadFrame, "unknown frame type"),
    };
    FrameError {
        code,
        message,
        reference: envelope
            .reference
            .as_ref()
            .and_then(Value::as_str)
            .filter(|r| is_reference(r))
            .map(str::to_owned),
        session: envelope
            .session
            .as_ref()
            .and_then(Value::as_str)
            .and_then(|s| s.parse().ok()),
    }
}

#[cfg(test)]
mod tests;
