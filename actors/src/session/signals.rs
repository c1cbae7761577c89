//! What matters only now: somebody types, somebody has read. Told to everybody, stored nowhere.

use actix::prelude::*;
use hubbub_protocol::ServerFrame;
use hubbub_protocol::server::{ReadFrame, TypingFrame};

use super::messages::{Signal, SignalKind};
use super::{Session, encode};
use crate::rejection::Rejection;

impl Session {
    /// Tells the other devices, if it comes from one that has joined: what is said before that, or in spite
    /// of a refusal, would be said in a conversation of other people.
    pub(super) fn signal(
        &mut self,
        signal: &Signal,
        ctx: &mut Context<Self>,
    ) -> Result<(), Rejection> {
        let session = self.id;
        let live = self.live_for(&signal.caller)?;
        if !live.devices.iter().any(|d| d.id == signal.device) {
            return Err(Rejection::not_joined());
        }
        let who = signal.caller.principal();
        let frame = match signal.what {
            SignalKind::Typing(on) => ServerFrame::Typing(TypingFrame { session, who, on }),
            // Nobody has read what is not written.
            SignalKind::Read(seq) => ServerFrame::Read(ReadFrame {
                session,
                who,
                seq: seq.min(live.feed.head()),
            }),
        };
        if live.devices.len() > 1 && live.feed.mention(encode(&frame)) {
            self.flush_soon(ctx);
        }
        Ok(())
    }
}
