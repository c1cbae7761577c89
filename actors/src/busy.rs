//! How many sessions have something to do that a drain must wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The count of busy sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy(Arc<AtomicUsize>);

/// One busy session, for as long as this lives.
pub(crate) struct BusyMark(Busy);

impl Busy {
    pub(crate) fn mark(&self) -> BusyMark {
        self.0.fetch_add(1, Ordering::Relaxed);
        BusyMark(self.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for BusyMark {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
