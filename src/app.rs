//! Composition: builds every part from the configuration, starts them in order, and stops them in the
//! reverse order. Decides nothing else.

mod accept;
mod chores;
pub mod demo;
mod node;
mod parts;
mod waiting;

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hubbub_actors::Hub;
use hubbub_actors::ports::MessageStore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Rates;
use crate::config::{Config, ServerConfig};
use crate::http::requests::Requests;
use crate::http::too_fast::TooFast;
use crate::http::{AppState, origin};
use crate::realtime::Connections;
use crate::realtime::sockets::Sockets;
use crate::storage::{PostgresMessageStore, Storage};
use crate::telemetry::Metrics;
use node::Node;
pub use parts::Database;
use waiting::Waited;

/// What a drain leaves for stopping the rest.
const DRAIN_RESERVE: Duration = Duration::from_secs(5);

/// How long the last answers have to be written once every reply has ended: what takes longer is a client
/// that does not send its request's rest, or does not read.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How long connections have for their `bye` before they are cut.
const BYE_DEADLINE: Duration = Duration::from_secs(4);

/// How the server is to run, beside its configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServeOptions {
    /// Make a demo tenant at the first start, and serve its page at `/`.
    pub demo: bool,
}

/// Runs the server until it is told to stop. Must be called within an actix system, whose arbiters the
/// workers are.
///
/// # Errors
/// Something it needs is missing or fails at start; or a permanent actor could not be kept alive.
pub async fn serve(config: Config, options: ServeOptions, metrics: Metrics) -> anyhow::Result<()> {
    // First, so that a taken port is known before a database is started for nothing.
    let listener = accept::bind(config.server.listen)?;
    // Then what can be seen of the data folder, so that a start that must fail changes nothing in it.
    Database::check(&config)?;
    let mut node = Node::take(&config.server.data_dir)?;
    let database = Database::start(&config).await?;
    let served = serve_with(&config, options, metrics, listener, &database, &mut node).await;
    database.stop().await;
    served
}

async fn serve_with(
    config: &Config,
    options: ServeOptions,
    metrics: Metrics,
    listener: TcpListener,
    database: &Database,
    node: &mut Node,
) -> anyhow::Result<()> {
    let storage = Storage::connect(&database.config)
        .await
        .context("the database cannot be used")?;
    let address = listener.local_addr()?;
    let told = || announce(&config.server, address);
    let waited = waiting::for_schema(&storage, &listener, told).await?;
    if waited == Waited::Stopped {
        return Ok(());
    }
    let store = storage.message_store();
    take_lease(&store, node)
        .await
        .context("this node's lease cannot be stored")?;
    let parts::Upstreams {
        all: upstreams,
        model,
    } = parts::upstreams(config)?;
    let names = upstreams
        .iter()
        .map(|upstream| upstream.name().to_owned())
        .collect();
    let hub = Hub::start(
        parts::hub_config(config, node.id, upstreams),
        Arc::new(store),
    );
    let demo_bot = if options.demo {
        let url = own_url(&config.server, address);
        Some(
            demo::seed(&storage, &config.server.data_dir, &url)
                .await?
                .bot,
        )
    } else {
        None
    };
    let limits = &config.limits;
    let rates = Arc::new(Rates::new(parts::allowances(limits.strangers)));
    let (bounds, websockets) = parts::socket_bounds(config, parts::open_files());
    let sockets = Sockets::new(bounds);
    let connections = Connections::new(websockets, limits.connections_per_ip, &rates);
    let requests = Requests::default();
    let stop = CancellationToken::new();
    let state = Arc::new(AppState {
        hub: hub.clone(),
        storage: storage.clone(),
        connections: connections.clone(),
        requests: requests.clone(),
        too_fast: TooFast::default(),
        connection: parts::connection_config(config),
        proxies: parts::proxies(&config.server),
        rates: rates.clone(),
        metrics: Some(metrics.handle()),
        own_origins: origin::own(config.server.public_url.as_deref(), address),
        trusted_origins: config.server.trusted_origins.clone(),
        demo_bot,
        upstreams: names,
    });
    let mut chores = chores::start(&storage, &connections, &rates, &sockets, &stop);
    chores.push(actix_rt::spawn(metrics.run_upkeep(stop.clone())));
    let server = accept::start(listener, config.server.workers, state, &sockets, bounds.all)?;
    let handle = server.handle();
    let server = actix_rt::spawn(server);
    if waited == Waited::NotAtAll {
        announce(&config.server, address)?;
    }
    if options.demo {
        announce_demo(&config.server, address)?;
    }

    let failed = tokio::select! {
        () = told_to_stop()? => false,
        () = hub.failed() => true,
    };
    drain(
        config.server.shutdown,
        &connections,
        &requests,
        &hub,
        handle,
    )
    .await;
    stop.cancel();
    server.await.context("the server's task failed")??;
    for chore in chores {
        chore.await.context("a chore's task failed")?;
    }
    if let Some(model) = model {
        model.stop().await;
    }
    release_lease(&storage, node).await;
    storage.close();
    tracing::info!("stopped");
    anyhow::ensure!(
        !failed,
        "a permanent actor could not be kept alive; see the log"
    );
    Ok(())
}

/// Takes this node's lease, without which it would count as dead, and ends its predecessor's.
async fn take_lease(store: &PostgresMessageStore, node: &mut Node) -> anyhow::Result<()> {
    store.renew_lease(node.id).await?;
    if let Some(predecessor) = node.predecessor {
        store.release_lease(predecessor).await?;
    }
    Ok(node.note()?)
}

/// Nobody has to wait for the lease of a node that has ended everything: a migration may follow at once.
async fn release_lease(storage: &Storage, node: &Node) {
    if let Err(error) = storage.message_store().release_lease(node.id).await {
        tracing::warn!(%error, "this node's lease was not given back and runs out by itself");
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
    server: actix_server::ServerHandle,
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

/// Completes at the first SIGTERM or SIGINT.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Where a person on this machine reaches the server.
fn own_url(server: &ServerConfig, address: std::net::SocketAddr) -> String {
    server.public_url.clone().unwrap_or_else(|| {
        let host = if address.ip().is_unspecified() {
            "127.0.0.1".to_owned()
        } else {
            match address.ip() {
                std::net::IpAddr::V4(ip) => ip.to_string(),
                std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            }
        };
        format!("http://{host}:{}", address.port())
    })
}

/// The one thing a person who starts the server waits for.
fn announce(server: &ServerConfig, address: std::net::SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "Hubbub listens on {}", own_url(server, address))?;
    Ok(out.flush()?)
}

fn announce_demo(server: &ServerConfig, address: std::net::SocketAddr) -> anyhow::Result<()> {
    let url = own_url(server, address);
    let mut out = std::io::stdout().lock();
    writeln!(out, "Open {url}/ in a browser to chat with the demo")?;
    writeln!(
        out,
        "The demo's bot and API key are in {}",
        demo_file(&server.data_dir)
    )?;
    Ok(out.flush()?)
}

fn demo_file(data_dir: &Path) -> String {
    demo::file(data_dir).display().to_string()
}
