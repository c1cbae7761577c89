//! Notes: what operators write for each other. Durable, and no visitor's to see.

use serde::{Deserialize, Serialize};

use crate::content::message_violation;
use crate::{ClientMessageId, ErrorCode, Seq, SessionId, Timestamp};

/// `note`, of operators: answered by `ack` without `seq`, then `note` to every operator's device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Echoed in the answer.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The session.
    pub session: SessionId,
    /// The client's id of the note; makes a repeat harmless.
    pub id: ClientMessageId,
    /// What is noted.
    pub text: String,
}

impl Note {
    pub(crate) fn violation(&self, text_chars: usize) -> Option<(ErrorCode, &'static str)> {
        message_violation(&self.text, None, text_chars)
    }
}

/// `note` as operators get it, and as `GET /v1/sessions/{session}/notes` lists it. It has no number: a
/// visitor's numbering has no hole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoteFrame {
    /// The session.
    pub session: SessionId,
    /// The message it was written after; 0 before the first.
    pub follows: Seq,
    /// The client's id of the note.
    pub id: ClientMessageId,
    /// Who wrote it.
    pub author: String,
    /// What is noted.
    pub text: String,
    /// When it was stored.
    pub at: Timestamp,
}
