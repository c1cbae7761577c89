//! Whether the database does what the server needs of it: take writes. A state, not a string of failures:
//! its beginning is one error in the log and its end one line, however many operations fail between them.
//!
//! Kept by [`Storage`](crate::Storage), whose [`watch`](crate::Storage::watch) asks every second by writing.
//! A batch that is refused for a reason that will hold says so at once. Lost with the process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hubbub_protocol::NodeId;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cause::Outage;
use crate::scope::Transaction;
use crate::tables::leases::renew_lease;
use crate::{Storage, StorageError};

/// How often the database is asked.
const ASK: Duration = Duration::from_secs(1);

/// The pause that is kept even when operations fail one after the other.
const ASK_SOON: Duration = Duration::from_millis(200);

/// Longest wait for an answer. Twice without one is an outage: once may be a slow disk.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

/// How long operations still try a database that cannot be reached, because it may only be starting again.
const BRIDGED: Duration = Duration::from_secs(3);

/// Takes a megabyte of the disk and gives it back. Renewing a lease may find room where a batch would not:
/// it takes no new page.
const TAKE_ROOM: &str = "CREATE TEMPORARY TABLE hubbub_room ON COMMIT DROP AS \
    SELECT repeat('x', 1000) AS filling FROM generate_series(1, 1000)";

/// The state; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    outage: Mutex<Option<(Outage, Instant)>>,
    suspicion: Notify,
}

impl Health {
    /// Why the database takes no writes; `None` while it does, as far as is known.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.current().map(|(outage, _)| outage)
    }

    /// Why a write need not even be tried.
    pub(crate) fn refuses_writes(&self) -> Option<Outage> {
        self.current()
            .filter(|(outage, since)| *outage != Outage::Unreachable || since.elapsed() >= BRIDGED)
            .map(|(outage, _)| outage)
    }

    /// Why nothing need be tried: reading goes on as long as somebody is there to read from.
    pub(crate) fn refuses_all(&self) -> Option<Outage> {
        self.refuses_writes()
            .filter(|outage| *outage == Outage::Unreachable)
    }

    /// Takes note of an operation's failure.
    pub(crate) fn note(&self, error: &StorageError) {
        match error.outage() {
            Some(outage @ (Outage::ReadOnly | Outage::DiskFull)) => self.begin(outage, error),
            // One connection may have been broken, one statement slow.
            Some(Outage::Unreachable) => self.0.suspicion.notify_one(),
            None if error.is_unavailable() => self.0.suspicion.notify_one(),
            None => {}
        }
    }

    fn begin(&self, outage: Outage, error: &StorageError) {
        {
            let mut current = self.0.outage.lock().unwrap_or_else(PoisonError::into_inner);
            if current.is_some_and(|(known, _)| known == outage) {
                return;
            }
            *current = Some((outage, Instant::now()));
        }
        metrics::gauge!("hubbub_db_up").set(0.0);
        metrics::counter!("hubbub_db_outages_total", "reason" => outage.as_str()).increment(1);
        tracing::error!(
            reason = outage.as_str(),
            %error,
            "{}: nothing new is accepted until it takes writes",
            outage.explanation()
        );
    }

    /// Takes note of a write that went through.
    pub(crate) fn end(&self) {
        let ended = {
            let mut current = self.0.outage.lock().unwrap_or_else(PoisonError::into_inner);
            current.take()
        };
        metrics::gauge!("hubbub_db_up").set(1.0);
        if let Some((outage, since)) = ended {
            tracing::info!(
                reason = outage.as_str(),
                lasted = ?since.elapsed(),
                "the database takes writes again"
            );
        }
    }

    fn current(&self) -> Option<(Outage, Instant)> {
        *self.0.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage {
    /// Why the database takes no writes; `None` while it does.
    pub fn outage(&self) -> Option<Outage> {
        self.health.outage()
    }

    /// Keeps asking the database, by renewing the lease of this node, until `stop`.
    pub async fn watch(&self, node: NodeId, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_asking(node)).await;
    }

    async fn keep_asking(&self, node: NodeId) {
        let mut unanswered = 0;
        loop {
            match timeout(ASK_DEADLINE, self.ask(node)).await {
                Ok(Ok(())) => {
                    unanswered = 0;
                    self.health.end();
                }
                Ok(Err(error)) => {
                    unanswered = 0;
                    self.found(&error, node).await;
                }
                Err(_) => {
                    unanswered += 1;
                    if unanswered > 1 {
                        let error = StorageError::Deadline(ASK_DEADLINE);
                        self.health.begin(Outage::Unreachable, &error);
                    }
                }
            }
            sleep(ASK_SOON).await;
            let suspicion = self.health.0.suspicion.notified();
            // Either way it is time to ask again.
            let _waited = timeout(ASK.saturating_sub(ASK_SOON), suspicion).await;
        }
    }

    async fn found(&self, error: &StorageError, node: NodeId) {
        match error.outage() {
            // A connection that was kept may be an old server's: the next one is new.
            Some(Outage::Unreachable) if self.health.outage().is_none() => {
                let again = timeout(ASK_DEADLINE, self.ask(node)).await;
                if let Ok(Err(error)) = again
                    && error.outage() == Some(Outage::Unreachable)
                {
                    self.health.begin(Outage::Unreachable, &error);
                }
            }
            Some(outage) => self.health.begin(outage, error),
            // Another schema, or a lock that was held: not for this state to tell.
            None => tracing::debug!(%error, "the database could not be asked"),
        }
    }

    async fn ask(&self, node: NodeId) -> Result<(), StorageError> {
        if self.health.outage() == Some(Outage::DiskFull) {
            self.take_room().await?;
        }
        renew_lease(&self.writer, node).await
    }

    /// # Errors
    /// There is no room. A role that may make no temporary table cannot find that out, and tries.
    async fn take_room(&self) -> Result<(), StorageError> {
        let transaction = Transaction::on(&self.writer).await?;
        transaction.begin().await?;
        match transaction.execute(TAKE_ROOM, &[]).await {
            Err(error) if error.outage().is_some() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // H22
    #[test]
    fn a_database_that_may_only_be_starting_again_is_still_tried() {
        let health = Health::default();
        let error = StorageError::Deadline(ASK_DEADLINE);
        assert_eq!(health.refuses_writes(), None);
        health.begin(Outage::Unreachable, &error);
        assert_eq!(health.outage(), Some(Outage::Unreachable));
        assert_eq!(health.refuses_writes(), None);
        let long_ago = Instant::now().checked_sub(BRIDGED).unwrap();
        *health.0.outage.lock().unwrap() = Some((Outage::Unreachable, long_ago));
        assert_eq!(health.refuses_writes(), Some(Outage::Unreachable));
        assert_eq!(health.refuses_all(), Some(Outage::Unreachable));
        health.begin(Outage::DiskFull, &error);
        assert_eq!(health.refuses_writes(), Some(Outage::DiskFull));
        assert_eq!(health.refuses_all(), None, "it can be read");
        health.end();
        assert_eq!(health.outage(), None);
    }
}
