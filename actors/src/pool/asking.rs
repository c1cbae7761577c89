//! Who waits for a slot, and what it is told of its place.

use std::time::Duration;

use hubbub_protocol::{ReplyClass, SessionId};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::handle::Permit;
use crate::rejection::Rejection;

/// How often places in the queue are told to those who wait.
pub(super) const PLACE_INTERVAL: Duration = Duration::from_millis(500);

/// Where a waiting reply stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// 1 is next.
    pub position: u32,
    /// Expected wait; while every upstream of the route pauses, until one is tried again.
    pub eta: Duration,
    /// Every upstream of the route pauses after failures.
    pub paused: bool,
}

/// Who waits, and what it was told.
pub(super) struct Asking {
    pub(super) since: Instant,
    pub(super) class: ReplyClass,
    pub(super) session: SessionId,
    pub(super) model: Option<String>,
    pub(super) place: watch::Sender<Option<Place>>,
    /// When what was told last will have passed.
    pub(super) promised: Instant,
    pub(super) told_at: Instant,
    pub(super) grant: oneshot::Sender<Result<Permit, Rejection>>,
}

impl Asking {
    /// Tells a place that says something new: also when the time told last has passed without a slot. Nobody is
    /// told more often than places are told at all.
    pub(super) fn tell(&mut self, now: Instant, place: Place) {
        if self.place.borrow().is_some() && now < self.told_at + PLACE_INTERVAL {
            return;
        }
        let promised = self.promised;
        let is_new = self.place.send_if_modified(|told| {
            let is_known = told.is_some_and(|told| {
                told.position == place.position && told.paused == place.paused && now <= promised
            });
            if !is_known {
                *told = Some(place);
            }
            !is_known
        });
        if is_new {
            self.promised = now + place.eta;
            self.told_at = now;
        }
    }
}
