//! The way from a session to a connection: its mailbox, which is the backpressure.

use actix::prelude::*;
use hubbub_actors::{Delivery, Outlet, Undelivered};
use hubbub_protocol::{CloseCode, SessionId};

use super::wire::Cut;

/// Frames for the client.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Deliver(pub(super) Delivery);

/// A session died under its devices.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct SessionLost(pub(super) SessionId);

/// One session's outlet to one connection. The recipient is stored and never cloned: a clone would
/// have a slot of its own in the mailbox, and the mailbox would have no bound.
pub(super) struct MailboxOutlet {
    pub(super) deliver: Recipient<Deliver>,
    pub(super) lost: Recipient<SessionLost>,
    pub(super) cut: Cut,
}

impl Outlet for MailboxOutlet {
    fn try_deliver(&self, delivery: Delivery) -> Result<(), Undelivered> {
        self.deliver
            .try_send(Deliver(delivery))
            .map_err(|error| match error {
                SendError::Full(_) => Undelivered::Full,
                SendError::Closed(_) => Undelivered::Gone,
            })
    }

    fn cut(&self, _code: CloseCode) {
        // Only a connection whose socket is blocked gets here, and it can be told nothing any more:
        // it learns by the reset that it was too slow.
        self.cut.cut();
    }

    fn session_lost(&self, session: SessionId) {
        if let Err(SendError::Full(_)) = self.lost.try_send(SessionLost(session)) {
            // It would wait for a session that is gone: better that it comes back.
            self.cut.cut();
        }
    }
}
