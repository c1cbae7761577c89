//! What matters only now: somebody types, somebody has read. Told to everybody, stored nowhere.

use actix::prelude::*;
use hubbub_protocol::server::{ReadFrame, TypingFrame};
use hubbub_protocol::{ConnectionId, Seq, ServerFrame};

use super::live::{Flush, Live};
use super::{Answer, Session};
use crate::caller::Caller;
use crate::rejection::Rejection;

/// Something that matters only now.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Signal {
    pub(super) caller: Caller,
    pub(super) device: ConnectionId,
    pub(super) what: SignalKind,
    pub(super) answer: Answer<()>,
}

#[derive(Clone, Copy)]
pub(super) enum SignalKind {
    Typing(bool),
    Read(Seq),
}

impl Handler<Signal> for Session {
    type Result = ();

    fn handle(&mut self, signal: Signal, ctx: &mut Self::Context) {
        let Signal {
            caller,
            device,
            what,
            answer,
        } = signal;
        self.serve(&caller, answer, ctx, |live, answer, _| {
            drop(answer.send(live.signal(&caller, device, what)));
        });
    }
}

impl Live {
    /// Tells the other devices, if it comes from one that has joined: what is said before that, or in spite
    /// of a refusal, would be said in a conversation of other people.
    fn signal(
        &mut self,
        caller: &Caller,
        device: ConnectionId,
        what: SignalKind,
    ) -> Result<(), Rejection> {
        if !self.devices.iter().any(|joined| joined.id == device) {
            return Err(Rejection::not_joined());
        }
        if self.devices.len() == 1 {
            return Ok(());
        }
        let (session, who) = (self.record.session, caller.principal());
        let frame = match what {
            SignalKind::Typing(on) => ServerFrame::Typing(TypingFrame { session, who, on }),
            // Nobody has read what is not written.
            SignalKind::Read(seq) => ServerFrame::Read(ReadFrame {
                session,
                who,
                seq: seq.min(self.feed.head()),
            }),
        };
        self.mention(frame, Flush::Soon);
        Ok(())
    }
}
