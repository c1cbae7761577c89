//! What has to be done now and then, for as long as the server runs. Losing one turn harms nothing.

use std::sync::Arc;
use std::time::Duration;

use hubbub_protocol::NodeId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admission::Rates;
use crate::realtime::Connections;
use crate::realtime::sockets::Sockets;
use hubbub_storage::{Storage, StorageError};

/// How often to delete tickets that nobody redeemed, and visitors who never opened a session.
const STRANGER_SWEEP: Duration = Duration::from_mins(1);

/// How often to check for revoked keys, whose open connections are closed: within 5 s, even when the database
/// takes its full 2 s to answer.
const KEY_CHECK: Duration = Duration::from_secs(3);

/// How often to forget those whose allowance is whole again.
const FORGET: Duration = Duration::from_mins(1);

/// How often to look for sockets that have waited for a request for too long.
const SILENCE_CHECK: Duration = Duration::from_secs(5);

/// How often to make the coming months' partitions, twelve ahead: a long-lived server needs them.
const PARTITIONS: Duration = Duration::from_hours(24);

/// Keeps asking whether the database takes writes, until it is told to stop.
pub(super) async fn watch_database(storage: Storage, node: NodeId, stop: CancellationToken) {
    storage.watch(node, stop).await;
}

/// Starts them all; each ends when it is told to stop.
pub(super) fn start(
    storage: &Storage,
    connections: &Connections,
    rates: &Arc<Rates>,
    sockets: &Sockets,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    vec![
        actix_rt::spawn(sweep_strangers(storage.clone(), stop.clone())),
        actix_rt::spawn(forget_rates(rates.clone(), stop.clone())),
        actix_rt::spawn(cut_silent(sockets.clone(), stop.clone())),
        actix_rt::spawn(make_partitions(storage.clone(), stop.clone())),
        actix_rt::spawn(close_revoked(
            storage.clone(),
            connections.clone(),
            stop.clone(),
        )),
    ]
}

/// Deletes what strangers left behind, until it is told to stop: tickets that nobody redeemed, and
/// visitors who never opened a session.
async fn sweep_strangers(storage: Storage, stop: CancellationToken) {
    while pause(STRANGER_SWEEP, &stop).await {
        match delete_strangers(&storage, &stop).await {
            Ok(()) => {}
            Err(error) if error.is_unavailable() => {
                tracing::debug!(%error, "expired tickets and visitors were not deleted");
            }
            Err(error) => {
                tracing::warn!(%error, "expired tickets and visitors were not deleted");
            }
        }
    }
}

/// Until there are none left: at the rate they may come, one portion a minute would not keep up.
async fn delete_strangers(storage: &Storage, stop: &CancellationToken) -> Result<(), StorageError> {
    while storage.delete_expired_tickets().await? > 0 && !stop.is_cancelled() {}
    while storage.delete_expired_visitors().await? > 0 && !stop.is_cancelled() {}
    Ok(())
}

/// Frees what is kept of strangers who have been gone for a while, until it is told to stop.
async fn forget_rates(rates: Arc<Rates>, stop: CancellationToken) {
    while pause(FORGET, &stop).await {
        rates.forget_unused();
    }
}

/// Cuts sockets whose client has been silent for too long, until it is told to stop.
async fn cut_silent(sockets: Sockets, stop: CancellationToken) {
    while pause(SILENCE_CHECK, &stop).await {
        sockets.cut_silent();
    }
}

/// Makes partitions before they are needed, until it is told to stop.
async fn make_partitions(storage: Storage, stop: CancellationToken) {
    while pause(PARTITIONS, &stop).await {
        if let Err(error) = storage.make_partitions().await {
            tracing::warn!(%error, "the coming months' partitions were not made");
        }
    }
}

/// Closes connections whose API key was revoked, until it is told to stop. Requests over HTTP look at the
/// key each time; a connection looked at it only when it was opened.
async fn close_revoked(storage: Storage, connections: Connections, stop: CancellationToken) {
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
