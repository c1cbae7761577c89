//! Notes in the store.

use hubbub_protocol::{ClientMessageId, NoteFrame, SessionId, TenantId};

/// A note to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNote {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its session.
    pub session: SessionId,
    /// The client's id of it.
    pub id: ClientMessageId,
    /// The id of the operator who writes it.
    pub author_id: String,
    /// Their name.
    pub author: String,
    /// What is noted.
    pub text: String,
}

/// What became of a note.
#[derive(Clone, Debug, PartialEq)]
pub enum Noted {
    /// It is stored, now or (`duplicate`) earlier.
    Stored {
        /// As it is stored.
        note: NoteFrame,
        /// It had been stored before.
        duplicate: bool,
    },
    /// The same id is taken by another note.
    Conflict,
}
