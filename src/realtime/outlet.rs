//! The way from a session to a connection: its mailbox, which is the backpressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::prelude::*;
use hubbub_actors::{Delivery, EncodedFrame, Outlet, Undelivered, capacity};
use hubbub_protocol::{CloseCode, SessionId};

use super::cut::Cut;

/// Frames for the client, and the room they take in its mailbox.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Deliver {
    pub(super) delivery: Delivery,
    _room: Room,
}

/// Bytes that wait in one connection's mailbox, whichever session they are of.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// Bytes taken from a [`Waiting`], given back when the delivery is taken out, or dropped.
#[derive(Debug)]
struct Room {
    waiting: Waiting,
    bytes: usize,
}

impl Waiting {
    /// Room for so many bytes. One delivery has room whatever its size.
    fn take(&self, bytes: usize) -> Option<Room> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let room = Room {
            waiting: self.clone(),
            bytes,
        };
        (before == 0 || before + bytes <= capacity::CONNECTION_BYTES).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A session died under its devices.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct SessionLost(pub(super) SessionId);

/// One session's outlet to one connection. The recipient is stored and never cloned: a clone would
/// have a slot of its own in the mailbox, and the mailbox would have no bound.
pub(super) struct MailboxOutlet {
    pub(super) deliver: Recipient<Deliver>,
    pub(super) lost: Recipient<SessionLost>,
    pub(super) waiting: Waiting,
    pub(super) cut: Cut,
}

impl Outlet for MailboxOutlet {
    fn try_deliver(&self, delivery: Delivery) -> Result<(), Undelivered> {
        let bytes = delivery.frames.iter().map(EncodedFrame::held_bytes).sum();
        let room = self.waiting.take(bytes).ok_or(Undelivered::Full)?;
        self.deliver
            .try_send(Deliver {
                delivery,
                _room: room,
            })
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
