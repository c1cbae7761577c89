//! What has to be done now and then, for as long as the server runs. Losing one turn harms nothing.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::realtime::Connections;
use crate::storage::Storage;

/// How often tickets that nobody redeemed are deleted.
const TICKET_SWEEP: Duration = Duration::from_mins(1);

/// How often it is looked whether keys of open connections were revoked, which ends them: within 5 s, also
/// when the database takes its 2 s to answer.
const KEY_CHECK: Duration = Duration::from_secs(3);

/// How often the coming months' partitions are made, twelve ahead: what a long-lived server needs.
const PARTITIONS: Duration = Duration::from_hours(24);

/// Deletes tickets that nobody redeemed, until it is told to stop.
pub(super) async fn sweep_tickets(storage: Storage, stop: CancellationToken) {
    while pause(TICKET_SWEEP, &stop).await {
        if let Err(error) = storage.delete_expired_tickets().await {
            tracing::warn!(%error, "expired tickets were not deleted");
        }
    }
}

/// Makes partitions before they are needed, until it is told to stop.
pub(super) async fn make_partitions(storage: Storage, stop: CancellationToken) {
    while pause(PARTITIONS, &stop).await {
        if let Err(error) = storage.make_partitions().await {
            tracing::warn!(%error, "the coming months' partitions were not made");
        }
    }
}

/// Closes connections whose API key was revoked, until it is told to stop. Requests over HTTP look at the
/// key each time; a connection looked at it only when it was opened.
pub(super) async fn close_revoked(
    storage: Storage,
    connections: Connections,
    stop: CancellationToken,
) {
    while pause(KEY_CHECK, &stop).await {
        let keys: Vec<Box<str>> = connections.api_keys().into_iter().collect();
        if keys.is_empty() {
            continue;
        }
        match storage.list_unusable_keys(&keys).await {
            Ok(unusable) => {
                for key in unusable {
                    let closed = connections.sign_out(&key);
                    tracing::info!(closed, "connections of a revoked key are closed");
                }
            }
            // Nobody is signed out because the database is away.
            Err(error) => {
                tracing::debug!(%error, "keys of open connections were not looked at");
            }
        }
    }
}

/// Waits; `false` when it is time to stop.
async fn pause(length: Duration, stop: &CancellationToken) -> bool {
    stop.run_until_cancelled(tokio::time::sleep(length))
        .await
        .is_some()
}
