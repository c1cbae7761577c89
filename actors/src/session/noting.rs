//! Notes: what operators write for each other. Stored first, then told to operators' devices alone.

use actix::prelude::*;
use hubbub_protocol::{ClientMessageId, ErrorCode, NoteFrame, ServerFrame};

use super::live::Live;
use super::{Answer, Session};
use crate::caller::{Caller, Permission};
use crate::ports::{NewNote, Noted};
use crate::rejection::Rejection;

/// Notes something. Answered once it is stored, with the note and whether it had been stored before.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct AddNote {
    pub(super) caller: Caller,
    pub(super) id: ClientMessageId,
    pub(super) text: String,
    pub(super) answer: Answer<(NoteFrame, bool)>,
}

impl Handler<AddNote> for Session {
    type Result = ();

    fn handle(&mut self, note: AddNote, ctx: &mut Self::Context) {
        let AddNote {
            caller,
            id,
            text,
            answer,
        } = note;
        self.serve(&caller, answer, ctx, |live, answer, ctx| {
            if let Err(rejection) = caller.check(Permission::Note) {
                drop(answer.send(Err(rejection)));
                return;
            }
            let note = NewNote {
                tenant: live.record.tenant,
                session: live.record.session,
                id,
                author_id: caller.operator().unwrap_or_default().to_owned(),
                author: caller.name.clone(),
                text,
            };
            let store = live.node.store.clone();
            let adding = async move { store.add_note(note).await };
            Live::spawn(ctx, adding, move |live, added, ctx| {
                drop(answer.send(live.noted(added)));
                live.settle(ctx);
            });
        });
    }
}

impl Live {
    fn noted(
        &mut self,
        added: Result<Noted, crate::ports::StoreError>,
    ) -> Result<(NoteFrame, bool), Rejection> {
        match added? {
            Noted::Stored { note, duplicate } => {
                if !duplicate {
                    self.tell_operators(ServerFrame::Note(note.clone()));
                }
                Ok((note, duplicate))
            }
            Noted::Conflict => Err(Rejection::new(
                ErrorCode::Conflict,
                "another note has this id",
            )),
        }
    }
}
