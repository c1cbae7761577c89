//! A device that is a channel: what a session hands over can be read frame by frame.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use hubbub_protocol::{CloseCode, ServerFrame, SessionId};
use tokio::sync::mpsc;

use crate::device::{Delivery, Outlet, Undelivered};
use crate::encoded::EncodedFrame;

/// The session's end of a device.
#[derive(Debug)]
pub struct ChannelOutlet {
    deliveries: mpsc::Sender<Delivery>,
    told: Arc<Mutex<Told>>,
}

/// What a device was told besides frames.
#[derive(Debug, Default)]
struct Told {
    cuts: Vec<CloseCode>,
    lost: Vec<SessionId>,
}

/// The test's end of a device. It takes nothing from the session until it is read.
#[derive(Debug)]
pub struct DeviceLog {
    deliveries: mpsc::Receiver<Delivery>,
    unread: VecDeque<ServerFrame>,
    told: Arc<Mutex<Told>>,
}

/// A device that holds at most `capacity` deliveries (at least one) until they are read.
pub fn channel_outlet(capacity: usize) -> (ChannelOutlet, DeviceLog) {
    let (sender, deliveries) = mpsc::channel(capacity.max(1));
    let told = Arc::<Mutex<Told>>::default();
    let outlet = ChannelOutlet {
        deliveries: sender,
        told: told.clone(),
    };
    let log = DeviceLog {
        deliveries,
        unread: VecDeque::new(),
        told,
    };
    (outlet, log)
}

impl Outlet for ChannelOutlet {
    fn try_deliver(&self, delivery: Delivery) -> Result<(), Undelivered> {
        self.deliveries
            .try_send(delivery)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Undelivered::Full,
                mpsc::error::TrySendError::Closed(_) => Undelivered::Gone,
            })
    }

    fn cut(&self, code: CloseCode) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.cuts.push(code);
    }

    fn session_lost(&self, session: SessionId) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.lost.push(session);
    }
}

impl DeviceLog {
    /// The next frame, waited for; `None` once the session let go of the device and all is read.
    ///
    /// # Panics
    /// If the session handed over something that is no [`ServerFrame`].
    pub async fn next(&mut self) -> Option<ServerFrame> {
        while self.unread.is_empty() {
            let delivery = self.deliveries.recv().await?;
            self.unread.extend(decode(&delivery));
        }
        self.unread.pop_front()
    }

    /// The frames of the next delivery, waited for; `None` once the session let go of the device.
    ///
    /// # Panics
    /// If the session handed over something that is no [`ServerFrame`].
    pub async fn next_delivery(&mut self) -> Option<Vec<ServerFrame>> {
        let delivery = self.deliveries.recv().await?;
        Some(decode(&delivery))
    }

    /// Deliveries that wait to be read.
    pub fn waiting(&self) -> usize {
        self.deliveries.len()
    }

    /// The codes it was cut with, oldest first: at most one from a correct session.
    pub fn cuts(&self) -> Vec<CloseCode> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.cuts.clone()
    }

    /// How often a session died under it.
    pub fn times_lost(&self) -> usize {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.lost.len()
    }
}

fn decode(delivery: &Delivery) -> Vec<ServerFrame> {
    // From its JSON, which is what a client reads.
    let frame = |frame: &EncodedFrame| {
        let json = frame.json();
        serde_json::from_str(json)
            .unwrap_or_else(|error| super::panic_as_asked(&format!("not a frame: {error}: {json}")))
    };
    delivery.frames.iter().map(frame).collect()
}
