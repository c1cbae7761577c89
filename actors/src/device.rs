//! What a session knows of a device: where to hand frames to, and how far it got.

use hubbub_protocol::{CloseCode, ConnectionId, Principal, PrincipalKind, Seq, SessionId};

use crate::encoded::EncodedFrame;

/// Frames handed to a device in one go, oldest first.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The session they are of.
    pub session: SessionId,
    /// The newest seq the device holds once it has these.
    pub through: Seq,
    /// Shared with the other devices that get them.
    pub frames: Vec<EncodedFrame>,
}

/// Why a delivery did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The device's queue is full: it does not read fast enough. Try again later.
    Full,
    /// The device is gone.
    Gone,
}

/// The way from a session to one device: a WebSocket's mailbox, an event stream, a test's channel.
///
/// None of these may block, and all are called from the session's thread.
pub trait Outlet: Send + 'static {
    /// Hands over frames without waiting.
    fn try_deliver(&self, delivery: Delivery) -> Result<(), Undelivered>;

    /// Ends the device from outside, whether or not it listens.
    fn cut(&self, code: CloseCode);

    /// The session died under the device, which should join again after the last seq it was given.
    fn session_lost(&self, session: SessionId);
}

/// A position in the running reply, in both units that are needed: bytes to slice our text, UTF-16
/// code units to tell the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextPosition {
    /// Bytes of UTF-8.
    pub bytes: usize,
    /// Code units of UTF-16.
    pub utf16: u64,
}

/// One device of a session. A few numbers are all it costs: no queue is kept for it.
pub(crate) struct Device {
    pub(crate) id: ConnectionId,
    pub(crate) who: Principal,
    /// The next entry of the session's feed to hand over.
    pub(crate) cursor: u64,
    /// The newest seq handed over; older ones are skipped.
    pub(crate) seen: Seq,
    /// How much of the running reply was handed over.
    pub(crate) reply: TextPosition,
    /// Since when its cursor stands still although there is something to hand over.
    pub(crate) stalled_since: Option<tokio::time::Instant>,
    /// Set while its page of history is read; nothing is handed over until `joined` was.
    pub(crate) joining: bool,
    /// Messages that the feed does not hold any more, read for it, until they are handed over.
    pub(crate) fetched: Vec<(Seq, EncodedFrame)>,
    /// Set while they are read from storage; nothing is handed over until they were.
    pub(crate) fetching: bool,
    session: SessionId,
    outlet: Box<dyn Outlet>,
    dismissed: bool,
}

impl Device {
    pub(crate) fn is_operators(&self) -> bool {
        self.who.kind == PrincipalKind::Operator
    }

    pub(crate) fn new(
        id: ConnectionId,
        who: Principal,
        session: SessionId,
        cursor: u64,
        outlet: Box<dyn Outlet>,
    ) -> Self {
        Self {
            id,
            who,
            cursor,
            seen: Seq::ZERO,
            reply: TextPosition::default(),
            stalled_since: None,
            joining: true,
            fetched: Vec::new(),
            fetching: false,
            session,
            outlet,
            dismissed: false,
        }
    }

    /// Hands over frames; `through` is the newest seq the device holds once it has them.
    pub(crate) fn try_deliver(
        &self,
        frames: Vec<EncodedFrame>,
        through: Seq,
    ) -> Result<(), Undelivered> {
        self.outlet.try_deliver(Delivery {
            session: self.session,
            through,
            frames,
        })
    }

    /// A message read for it alone.
    pub(crate) fn fetched(&self, seq: Seq) -> Option<&EncodedFrame> {
        let found = self.fetched.iter().find(|(fetched, _)| *fetched == seq);
        found.map(|(_, frame)| frame)
    }

    pub(crate) fn cut(mut self, code: CloseCode) {
        self.dismissed = true;
        self.outlet.cut(code);
    }

    /// Lets go of the device without telling it: it left, or it is gone.
    pub(crate) fn dismiss(mut self) {
        self.dismissed = true;
    }
}

impl Drop for Device {
    /// Dropped without being dismissed: the session's actor died.
    fn drop(&mut self) {
        if !self.dismissed {
            self.outlet.session_lost(self.session);
        }
    }
}
