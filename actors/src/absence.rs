//! Absence: whether anybody is still there to read an answer. A session tells it to the reply that is
//! being written; whoever has left does not stand in the way of those who wait.

use std::time::Duration;

use tokio::sync::watch;

/// How long everybody may be gone before that counts: a page that is loaded anew, or a telephone that
/// changes networks, is back by then.
const GRACE: Duration = Duration::from_secs(5);

/// Told by the session.
#[derive(Debug, Default)]
pub(crate) struct Attendance(watch::Sender<bool>);

/// Heard by its reply.
#[derive(Clone, Debug)]
pub(crate) struct Absence(watch::Receiver<bool>);

impl Attendance {
    /// Whether everybody who waited for an answer has left.
    pub(crate) fn set_absent(&self, is_absent: bool) {
        self.0.send_if_modified(|told| {
            let changed = *told != is_absent;
            *told = is_absent;
            changed
        });
    }

    pub(crate) fn absence(&self) -> Absence {
        Absence(self.0.subscribe())
    }
}

impl Absence {
    /// Completes when everybody has been gone for a while; again and again if it is asked again.
    pub(crate) async fn lasts(&mut self) {
        loop {
            let left = self.0.wait_for(|is_absent| *is_absent).await.is_ok();
            if !left {
                // The session is gone, and with it whoever could tell.
                return std::future::pending().await;
            }
            let back = self.0.wait_for(|is_absent| !is_absent);
            if tokio::time::timeout(GRACE, back).await.is_err() {
                return;
            }
        }
    }
}
