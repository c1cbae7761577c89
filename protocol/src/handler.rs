//! Who handles a session: its bot, a person of the tenant, or nobody until a person comes.

use serde::{Deserialize, Serialize};

use crate::{SessionId, Timestamp};

/// Who answers in a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Spelling", into = "Spelling")]
pub enum Handler {
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

impl From<Spelling> for Handler {
    fn from(spelling: Spelling) -> Self {
        match spelling {
            Spelling::Word(Word::Bot) => Self::Bot,
            Spelling::Object(Object::Operator { id, name }) => Self::Operator { id, name },
            Spelling::Object(Object::Waiting { since, reason }) => Self::Waiting { since, reason },
        }
    }
}

impl From<Handler> for Spelling {
    fn from(handler: Handler) -> Self {
        match handler {
            Handler::Bot => Self::Word(Word::Bot),
            Handler::Operator { id, name } => Self::Object(Object::Operator { id, name }),
            Handler::Waiting { since, reason } => Self::Object(Object::Waiting { since, reason }),
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
    pub handler: Handler,
    /// Rises with every change of handler.
    pub fence: u64,
}
