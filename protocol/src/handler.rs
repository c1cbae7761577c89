//! Who handles a session: its bot, a person of the tenant, or nobody until a person comes.

use serde::{Deserialize, Serialize};

use crate::client::{Escalate, Release, Transfer};
use crate::{ErrorCode, SessionId, Timestamp, limits};

/// Who answers in a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Spelling", into = "Spelling")]
pub enum SessionHandler {
    /// The bot.
    #[default]
    Bot,
    /// A person of the tenant.
    Operator {
        /// As the tenant knows them.
        id: String,
        /// For people to read; may be empty.
        name: String,
    },
    /// Nobody: it waits for a person.
    Waiting {
        /// Since when.
        since: Timestamp,
        /// Why, in the words of whoever asked for a person.
        reason: Option<String>,
    },
}

/// As it stands on the wire: a word, or an object with a kind.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Spelling {
    Word(Word),
    Object(Object),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Bot,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Object {
    Operator {
        id: String,
        #[serde(default)]
        name: String,
    },
    Waiting {
        since: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

impl From<Spelling> for SessionHandler {
    fn from(spelling: Spelling) -> Self {
        match spelling {
            Spelling::Word(Word::Bot) => Self::Bot,
            Spelling::Object(Object::Operator { id, name }) => Self::Operator { id, name },
            Spelling::Object(Object::Waiting { since, reason }) => Self::Waiting { since, reason },
        }
    }
}

impl From<SessionHandler> for Spelling {
    fn from(handler: SessionHandler) -> Self {
        match handler {
            SessionHandler::Bot => Self::Word(Word::Bot),
            SessionHandler::Operator { id, name } => Self::Object(Object::Operator { id, name }),
            SessionHandler::Waiting { since, reason } => {
                Self::Object(Object::Waiting { since, reason })
            }
        }
    }
}

/// `handler`: somebody else handles the session from now on. No text of a reply that was begun under a smaller
/// `fence` is shown after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandlerFrame {
    /// The session.
    pub session: SessionId,
    /// Who handles it now.
    pub handler: SessionHandler,
    /// Rises with every change of handler.
    pub fence: u64,
}

impl Transfer {
    pub(crate) fn violation(&self) -> Option<(ErrorCode, &'static str)> {
        let is_id = (1..=limits::NAME_CHARS).contains(&self.to.chars().count())
            && !self.to.chars().any(char::is_control);
        (!is_id).then_some((
            ErrorCode::Invalid,
            "to must be 1 to 200 characters, none of them a control character",
        ))
    }
}

impl Release {
    pub(crate) fn violation(&self) -> Option<(ErrorCode, &'static str)> {
        let summary = self.summary.as_deref().unwrap_or_default();
        if summary.contains('\0') {
            return Some((ErrorCode::Invalid, "summary contains a NUL character"));
        }
        let is_long = summary.chars().count() > limits::SUMMARY_CHARS;
        is_long.then_some((
            ErrorCode::TooLarge,
            "summary is longer than 2000 characters",
        ))
    }
}

impl Escalate {
    pub(crate) fn violation(&self) -> Option<(ErrorCode, &'static str)> {
        let reason = self.reason.as_deref().unwrap_or_default();
        if reason.contains('\0') {
            return Some((ErrorCode::Invalid, "reason contains a NUL character"));
        }
        let is_long = reason.chars().count() > limits::REASON_CHARS;
        is_long.then_some((ErrorCode::TooLarge, "reason is longer than 500 characters"))
    }
}
