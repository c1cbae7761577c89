//! Bodies of the HTTP API, version 1, as far as clients in this workspace share them.

use serde::{Deserialize, Serialize};

use crate::client::SendMode;
use crate::{
    BotId, ClientMessageId, EndedReply, ErrorCode, Escalation, MessageFrame, Metadata, ReplyClass,
    ReplyId, Seq, SessionHandler, SessionId, Timestamp,
};

/// An RFC 9457 problem: the body of every refused request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:hubbub:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// For a person; says nothing of the server's inside.
    pub detail: String,
    /// For a program.
    pub code: ErrorCode,
    /// Finds the request in the server's log.
    pub request_id: String,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What is wrong with the request, part by part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
}

/// What is wrong with one part of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldProblem {
    /// A field of the body, as a JSON pointer (RFC 6901).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// A parameter of the path or of the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// A header field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// What is wrong with it, for a person: a sentence whose subject is the part.
    pub detail: String,
}

impl FieldProblem {
    /// Of a field of the body; the pointer of the whole body is empty.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: Some(pointer.into()),
            parameter: None,
            header: None,
            detail: detail.into(),
        }
    }

    /// Of a parameter of the path or of the query.
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: None,
            parameter: Some(name.into()),
            header: None,
            detail: detail.into(),
        }
    }

    /// Of a header field.
    pub fn header(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: None,
            parameter: None,
            header: Some(name.into()),
            detail: detail.into(),
        }
    }

    /// The whole sentence, such as "name is missing".
    pub fn sentence(&self) -> String {
        let part = self.header.as_deref().or(self.parameter.as_deref());
        let part = part.or_else(|| self.pointer.as_deref()?.strip_prefix('/'));
        format!("{} {}", part.unwrap_or("the body"), self.detail)
    }
}

/// `demo.json` in the data folder: what `hubbub serve --demo` made at its first start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demo {
    /// The demo tenant.
    pub tenant: crate::TenantId,
    /// Its bot.
    pub bot: BotId,
    /// An API key of the tenant.
    pub api_key: String,
    /// Where the server listens.
    pub url: String,
}

/// A bot as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bot {
    /// Its id.
    pub id: BotId,
    /// Shown as the author of its messages.
    pub name: String,
    /// The system prompt; may be empty.
    pub prompt: String,
    /// Upstreams to try, in order, by their configured names; empty means the server's default route.
    pub route: Vec<String>,
    /// The model to ask for; `None` means each upstream's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether the bot answers. Sessions of a bot that does not are plain human chat.
    pub replies: bool,
    /// Most tokens in one answer.
    pub max_output_tokens: u32,
    /// Origins that may embed the widget; the server's own is always allowed.
    pub allowed_origins: Vec<String>,
    /// When a person is called by itself.
    #[serde(default, skip_serializing_if = "Escalation::is_empty")]
    pub escalation: Escalation,
    /// Seconds for which the answer to a conversation's first question is given to whoever asks the same; 0 is
    /// never.
    #[serde(default)]
    pub answer_cache_s: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A session as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its bot.
    pub bot: BotId,
    /// Who opened it; `None` for a session opened with an API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visitor: Option<crate::VisitorId>,
    /// Who handles it.
    #[serde(default)]
    pub handler: SessionHandler,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When something was last said, give or take two seconds.
    pub last_activity_at: Timestamp,
}

/// `GET /v1/…` lists: keyset pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// This page.
    pub items: Vec<T>,
    /// Pass as `cursor` for the next page; `None` at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /v1/sessions/{id}/messages`: oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessagePage {
    /// Messages, oldest first.
    pub messages: Vec<MessageFrame>,
    /// Replies to these messages that failed or were cancelled.
    #[serde(default)]
    pub ended: Vec<EndedReply>,
    /// Whether there are more in the direction asked for.
    pub more: bool,
}

/// `POST /v1/sessions/{id}/messages`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PostMessage {
    /// The client's id of the message; makes a repeat harmless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ClientMessageId>,
    /// What is said.
    pub text: String,
    /// Kept with the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// What becomes of the reply that is being written.
    #[serde(default, skip_serializing_if = "SendMode::is_queue")]
    pub mode: SendMode,
    /// How soon the answer is wanted; `live` for whoever has no API key.
    #[serde(default, skip_serializing_if = "ReplyClass::is_live")]
    pub class: ReplyClass,
    /// Answer with server-sent events until the reply ends.
    #[serde(default)]
    pub stream: bool,
}

/// Answer to `POST /v1/sessions/{id}/messages` without `stream`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PostedMessage {
    /// The session.
    pub session: SessionId,
    /// The client's id of the message.
    pub id: ClientMessageId,
    /// Its number.
    pub seq: Seq,
    /// When it was stored.
    pub at: Timestamp,
    /// It had been stored before.
    #[serde(default)]
    pub duplicate: bool,
    /// The reply that will answer it, if the bot replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<ReplyId>,
}
