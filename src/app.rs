//! Composition: builds every part from the configuration, starts them in order, and stops them in the
//! reverse order. Decides nothing else.

mod accept;
mod announce;
mod chores;
pub mod demo;
mod node;
mod parts;
mod running;
mod signals;
mod waiting;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context as _;
use hubbub_actors::Hub;
use hubbub_protocol::BotId;
use tokio_util::sync::CancellationToken;

use crate::admission::Rates;
use crate::config::Config;
use crate::http::requests::Requests;
use crate::http::too_fast::TooFast;
use crate::http::{self, AppState, origin};
use crate::realtime::Connections;
use crate::realtime::sockets::Sockets;
use crate::telemetry::Metrics;
use hubbub_storage::{Storage, StorageError};
use node::Node;
pub use parts::Database;
use running::{Ended, Running};
use signals::Signals;
use waiting::Waited;

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
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // First, so that a taken port is known before a database is started for nothing.
    let listener = accept::bind(config.server.listen)?;
    // Then what can be seen of the data folder, so that a start that must fail changes nothing in it.
    Database::check(&config)?;
    let mut node = Node::take(&config.server.data_dir)?;
    let mut signals = Signals::listen()?;
    let Some(database) = signals.unless_told(Database::start(&config)).await else {
        return Ok(());
    };
    let database = database?;
    let given = Given {
        config: &config,
        options,
        database: &database,
    };
    let served = serve_with(given, metrics, listener, &mut node, &mut signals).await;
    database.stop().await;
    served
}

/// What the server is made from.
#[derive(Clone, Copy)]
struct Given<'a> {
    config: &'a Config,
    options: ServeOptions,
    database: &'a Database,
}

async fn serve_with(
    given: Given<'_>,
    metrics: Metrics,
    listener: TcpListener,
    node: &mut Node,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let Given {
        config, options, ..
    } = given;
    let Some(storage) = signals.unless_told(open(given.database)).await else {
        return Ok(());
    };
    let storage = storage?;
    let address = listener.local_addr()?;
    let told = || announce::listening(config, address);
    let waited = waiting::for_schema(&storage, &listener, told, signals).await?;
    if waited == Waited::Stopped {
        return Ok(());
    }
    take_lease(&storage, node).await?;
    let running = start(given, metrics, listener, node, &storage).await?;
    if waited == Waited::NotAtAll {
        announce::listening(config, address);
    }
    if options.demo {
        announce::demo(&config.server, address);
    }

    let ended = running
        .until_stopped(config.server.shutdown, signals)
        .await?;
    release_lease(&storage, node).await;
    storage.close();
    tracing::info!("stopped");
    anyhow::ensure!(
        ended == Ended::Told,
        "a permanent actor could not be kept alive; see the log"
    );
    Ok(())
}

/// Starts everything that serves.
async fn start(
    given: Given<'_>,
    metrics: Metrics,
    listener: TcpListener,
    node: &Node,
    storage: &Storage,
) -> anyhow::Result<Running> {
    let config = given.config;
    let address = listener.local_addr()?;
    let parts::Upstreams {
        all: upstreams,
        model,
    } = parts::upstreams(config)?;
    let names: Vec<String> = upstreams
        .iter()
        .map(|upstream| upstream.name().to_owned())
        .collect();
    metrics.know_upstreams(&names);
    metrics.know_routes(&http::ROUTES);
    let hub = Hub::start(
        parts::hub_config(config, node.id, upstreams),
        Arc::new(storage.message_store()),
    );
    let demo_bot = demo_bot(given, storage, address).await?;
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
        own_origins: origin::own(config.server.public_origin(), address),
        base_path: config.server.base_path().to_owned(),
        trusted_origins: config.server.trusted_origins.clone(),
        demo_bot,
        upstreams: names,
    });
    let mut chores = chores::start(storage, &connections, &rates, &sockets, &stop);
    chores.push(actix_rt::spawn(metrics.run_upkeep(stop.clone())));
    let watch = chores::watch_database(storage.clone(), node.id, stop.clone());
    chores.push(actix_rt::spawn(watch));
    let server = accept::start(listener, config.server.workers, state, &sockets, bounds.all)?;
    let handle = server.handle();
    let server = actix_rt::spawn(server);
    Ok(Running {
        hub,
        connections,
        requests,
        handle,
        server,
        chores,
        model,
        stop,
    })
}

/// The demo's bot, if there is to be a demo.
async fn demo_bot(
    given: Given<'_>,
    storage: &Storage,
    address: SocketAddr,
) -> anyhow::Result<Option<BotId>> {
    if !given.options.demo {
        return Ok(None);
    }
    let server = &given.config.server;
    let url = announce::reached_at(server, address);
    let demo = demo::seed(storage, &server.data_dir, &url).await?;
    Ok(Some(demo.bot))
}

async fn open(database: &Database) -> anyhow::Result<Storage> {
    Storage::connect(&database.config)
        .await
        .map_err(explained)
        .context("the database cannot be used")
}

/// Takes this node's lease, without which it would count as dead, and ends its predecessor's.
async fn take_lease(storage: &Storage, node: &mut Node) -> anyhow::Result<()> {
    storage
        .message_store()
        .take_lease(node.id, node.predecessor)
        .await
        .map_err(explained)
        .context("this node's lease cannot be stored")?;
    Ok(node.note()?)
}

/// An error with what it says about the database's state, if it does.
fn explained(error: StorageError) -> anyhow::Error {
    match error.outage() {
        Some(outage) => anyhow::Error::new(error).context(outage.explanation()),
        None => error.into(),
    }
}

/// Nobody has to wait for the lease of a node that has ended everything: a migration may follow at once.
async fn release_lease(storage: &Storage, node: &Node) {
    if let Err(error) = storage.message_store().release_lease(node.id).await {
        tracing::warn!(%error, "this node's lease was not given back and runs out by itself");
    }
}
