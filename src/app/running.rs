//! The parts of a server that runs, from when it listens until all of it has stopped.

use std::time::Duration;

use actix_rt::task::JoinHandle;
use actix_server::ServerHandle;
use anyhow::Context as _;
use hubbub_actors::Hub;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use crate::http::requests::Requests;
use crate::llm::LocalModel;
use crate::realtime::Connections;

/// What a drain leaves for stopping the rest.
const DRAIN_RESERVE: Duration = Duration::from_secs(5);

/// How long the last answers have to be written once every reply has ended: what takes longer is a client
/// that does not send its request's rest, or does not read.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How long connections have for their `bye` before they are cut.
const BYE_DEADLINE: Duration = Duration::from_secs(4);

/// What runs.
pub(super) struct Running {
    pub(super) hub: Hub,
    pub(super) connections: Connections,
    pub(super) requests: Requests,
    /// The way to tell the workers.
    pub(super) handle: ServerHandle,
    pub(super) server: JoinHandle<std::io::Result<()>>,
    pub(super) chores: Vec<JoinHandle<()>>,
    pub(super) model: Option<LocalModel>,
    /// Ends the chores.
    pub(super) stop: CancellationToken,
}

/// Why it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A signal said so.
    Told,
    /// A permanent actor could not be kept alive.
    Failed,
}

impl Running {
    /// Waits for a reason to stop, drains within the time given, and stops everything. A signal meanwhile
    /// cuts the drain short.
    ///
    /// # Errors
    /// A task failed.
    pub(super) async fn until_stopped(
        self,
        within: Duration,
        signals: &mut Signals,
    ) -> anyhow::Result<Ended> {
        let ended = tokio::select! {
            () = signals.told() => Ended::Told,
            () = self.hub.failed() => Ended::Failed,
        };
        let drained = drain(
            within,
            &self.connections,
            &self.requests,
            &self.hub,
            self.handle.clone(),
        );
        if signals.unless_told(drained).await.is_none() {
            tracing::warn!("stopping at once: replies that still run are ended by the next start");
            self.chores.iter().for_each(JoinHandle::abort);
            self.handle.stop(false).await;
        }
        self.stop.cancel();
        self.server.await.context("the server's task failed")??;
        for chore in self.chores {
            match chore.await {
                Err(error) if !error.is_cancelled() => {
                    return Err(error).context("a chore's task failed");
                }
                Ok(()) | Err(_) => {}
            }
        }
        if let Some(model) = self.model {
            model.stop().await;
        }
        Ok(ended)
    }
}

/// Refuses new work, says `bye` to the connections there are, lets replies finish or ends them, and
/// returns within the time given. Until all is done whoever asks is still answered: a balancer that finds
/// a closed port cannot tell a server that stops from one that is gone.
async fn drain(
    within: Duration,
    connections: &Connections,
    requests: &Requests,
    hub: &Hub,
    server: ServerHandle,
) {
    let started = Instant::now();
    tracing::info!(
        connections = connections.count(),
        sessions = hub.session_count(),
        "draining"
    );
    connections.start_draining();
    let budget = within.saturating_sub(DRAIN_RESERVE);
    let ((), is_clean) = tokio::join!(
        connections.close_all(started + BYE_DEADLINE.min(budget)),
        hub.drain(budget / 2, budget),
    );
    // What is asked from now on nobody can answer any more; what was asked before is answered.
    server.pause().await;
    let last_answers = (started + budget).min(Instant::now() + LAST_ANSWERS);
    let unanswered = requests.finished(last_answers).await;
    server.stop(false).await;
    tracing::info!(is_clean, unanswered, took = ?started.elapsed(), "drained");
}
