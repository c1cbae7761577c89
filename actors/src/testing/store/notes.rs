//! Notes, as storage keeps them.

use std::collections::HashMap;

use hubbub_protocol::{NoteFrame, Seq, SessionId, Timestamp};

use crate::ports::{NewNote, Noted};

/// By session and id, with who wrote each.
#[derive(Default)]
pub(super) struct Notes(HashMap<(SessionId, String), (String, NoteFrame)>);

impl Notes {
    pub(super) fn add(&mut self, new: NewNote, head: Seq) -> Noted {
        let note = NoteFrame {
            session: new.session,
            follows: head,
            id: new.id,
            author: new.author,
            text: new.text,
            at: Timestamp::now(),
        };
        let key = (new.session, new.id.uuid().to_string());
        match self.0.get(&key) {
            Some((author, known)) if *author == new.author_id && known.text == note.text => {
                Noted::Stored {
                    note: known.clone(),
                    duplicate: true,
                }
            }
            Some(_) => Noted::Conflict,
            None => {
                self.0.insert(key, (new.author_id, note.clone()));
                let duplicate = false;
                Noted::Stored { note, duplicate }
            }
        }
    }
}
