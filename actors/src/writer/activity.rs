//! When sessions were last active, written behind: updating an indexed column in every batch would cost more
//! than the messages themselves.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hubbub_protocol::{SessionId, TenantId};

use crate::capacity;
use crate::ports::MessageStore;

/// How long activity is gathered. It is written over as long again, so that sessions' `last_activity_at` is twice
/// this imprecise.
pub(super) const GATHER: Duration = Duration::from_secs(1);

/// Sessions written at once: a few milliseconds of the database's work, which messages may have to wait for.
const AT_ONCE: usize = 64;

/// A session, as a key.
pub(super) type SessionKey = (TenantId, SessionId);

/// What is not written yet.
#[derive(Debug, Default)]
pub(super) struct Activity {
    noted: HashSet<SessionKey>,
    under_way: bool,
}

impl Activity {
    /// Notes active sessions. Of more than there is room for, the next message is noted.
    pub(super) fn note(&mut self, sessions: Vec<SessionKey>) {
        let room = capacity::TOUCHED_SESSIONS.saturating_sub(self.noted.len());
        self.noted.extend(sessions.into_iter().take(room));
    }

    /// Whether a round is to begin, which is under way then until [`Activity::end`].
    pub(super) fn begin(&mut self) -> bool {
        let is_due = !self.under_way && !self.noted.is_empty();
        self.under_way |= is_due;
        is_due
    }

    /// What the round writes.
    pub(super) fn take(&mut self) -> Vec<SessionKey> {
        self.noted.drain().collect()
    }

    pub(super) fn end(&mut self) {
        self.under_way = false;
    }
}

/// Writes a round, spread over time.
pub(super) async fn write(store: Arc<dyn MessageStore>, sessions: Vec<SessionKey>) {
    let rounds = sessions.len().div_ceil(AT_ONCE);
    let pause = GATHER / u32::try_from(rounds).unwrap_or(u32::MAX).max(1);
    for some in sessions.chunks(AT_ONCE) {
        if store.touch(some.to_vec()).await.is_err() {
            // Why, storage has told.
            tracing::debug!("activity of some sessions was not written");
        }
        tokio::time::sleep(pause).await;
    }
}
