//! SessionPlaces for live sessions: a node holds only so many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places of a node. Clones count the same ones.
#[derive(Clone, Debug)]
pub(crate) struct SessionPlaces {
    taken: Arc<AtomicUsize>,
    max: usize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct SessionPlace(SessionPlaces);

impl SessionPlaces {
    pub(crate) fn new(max: usize) -> Self {
        let taken = Arc::default();
        Self { taken, max }
    }

    /// A place, if there is one left.
    pub(crate) fn take(&self) -> Option<SessionPlace> {
        let fits = |taken| (taken < self.max).then_some(taken + 1);
        let before = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .ok()?;
        gauge(before + 1);
        Some(SessionPlace(self.clone()))
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        gauge(self.0.taken.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; the count is small"
)]
fn gauge(count: usize) {
    metrics::gauge!("hubbub_sessions_live").set(count as f64);
}
