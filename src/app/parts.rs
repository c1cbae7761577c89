//! From the configuration's words to the parts' own.

use std::sync::Arc;

use anyhow::Context as _;
use hubbub_actors::ports::Upstream;
use hubbub_actors::{DefaultLimits, HubConfig, PoolConfig, SessionSettings, VisitorLimits};
use hubbub_protocol::NodeId;
use hubbub_protocol::server::Limits;

use crate::admission::Allowances;
use crate::admission::address::Proxies;
use crate::config::{Config, ServerConfig, StrangersConfig};
use crate::llm::{LocalModel, RemoteUpstream};
use crate::realtime::sockets::SocketBounds;
use crate::realtime::{ConnectionConfig, InboundRate};
use hubbub_storage::private::{JoinedCluster, PrivateCluster, PrivateError, PrivateOptions};
use hubbub_storage::{DatabaseUrl, StorageConfig};

/// The database, and who runs it.
pub struct Database {
    /// How to reach it.
    pub config: StorageConfig,
    /// Whether nobody else can be using it: it was started here, and for nobody else.
    pub is_ours: bool,
    server: Server,
}

/// Who runs the database.
enum Server {
    /// Somebody else, as configured.
    Configured,
    /// We do, as long as we live.
    Private(PrivateCluster),
    /// Another hubbub on the same data folder.
    Joined(#[expect(dead_code, reason = "keeps the way to the socket open")] JoinedCluster),
}

impl Database {
    /// Looks whether a private PostgreSQL can be started, if one is needed, and changes nothing.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(config: &Config) -> anyhow::Result<()> {
        if config.database.url.is_none() {
            PrivateCluster::check(&config.server.data_dir).context(NOT_STARTED)?;
        }
        Ok(())
    }

    /// Starts a private PostgreSQL if none is configured.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        if let Some(configured) = Self::configured(config) {
            return Ok(configured);
        }
        let cluster = start_private(config).await.context(NOT_STARTED)?;
        Ok(Self::private(config, cluster))
    }

    /// As [`start`](Self::start), or uses the private PostgreSQL of a server that is running.
    ///
    /// # Errors
    /// It can neither be started nor reached.
    pub async fn start_or_join(config: &Config) -> anyhow::Result<Self> {
        if let Some(configured) = Self::configured(config) {
            return Ok(configured);
        }
        match start_private(config).await {
            Err(PrivateError::InUse(_)) => {
                let cluster = JoinedCluster::find(&config.server.data_dir)
                    .await
                    .context("the private PostgreSQL of the running server cannot be used")?;
                Ok(Self {
                    config: settle(config, cluster.database_config()),
                    is_ours: false,
                    server: Server::Joined(cluster),
                })
            }
            started => Ok(Self::private(config, started.context(NOT_STARTED)?)),
        }
    }

    fn private(config: &Config, cluster: PrivateCluster) -> Self {
        Self {
            config: settle(config, cluster.database_config()),
            is_ours: true,
            server: Server::Private(cluster),
        }
    }

    fn configured(config: &Config) -> Option<Self> {
        let settings = &config.database;
        let mut base = StorageConfig::new(DatabaseUrl::new(settings.url.as_ref()?.expose()));
        base.migration_url = settings
            .migration_url
            .as_ref()
            .map(|url| DatabaseUrl::new(url.expose()));
        Some(Self {
            config: settle(config, base),
            is_ours: false,
            server: Server::Configured,
        })
    }

    /// Stops the private one.
    pub async fn stop(self) {
        if let Server::Private(cluster) = self.server {
            cluster.stop().await;
        }
    }
}

const NOT_STARTED: &str = "the private PostgreSQL cannot be started";

async fn start_private(config: &Config) -> Result<PrivateCluster, PrivateError> {
    let mut options = PrivateOptions::new(&config.server.data_dir);
    match std::env::current_exe() {
        Ok(program) => options = options.guarded_by(program),
        Err(error) => {
            tracing::warn!(%error, "this program is unknown: a killed server leaves its PostgreSQL behind");
        }
    }
    PrivateCluster::start(options).await
}

/// With the waits and bounds that are configured.
fn settle(config: &Config, base: StorageConfig) -> StorageConfig {
    let settings = &config.database;
    StorageConfig {
        app_connections: settings.app_connections,
        writer_connections: settings.writer_connections,
        wait_timeout: settings.timeouts.acquire,
        connect_timeout: settings.timeouts.connect,
        recycle_timeout: settings.timeouts.recycle,
        statement_timeout: settings.timeouts.statement,
        lock_timeout: settings.timeouts.lock,
        ca_file: settings.ca_file.clone(),
        ..base
    }
}

/// Who answers.
pub(super) struct Upstreams {
    /// Every upstream there is.
    pub(super) all: Vec<Arc<dyn Upstream>>,
    /// The embedded model's process, if it is one of them.
    pub(super) model: Option<LocalModel>,
}

/// Prepares every configured upstream, and starts the embedded model if it is one of them.
pub(super) fn upstreams(config: &Config) -> anyhow::Result<Upstreams> {
    let mut all: Vec<Arc<dyn Upstream>> = Vec::new();
    for upstream in &config.upstreams {
        let name = upstream.name.clone();
        let upstream = RemoteUpstream::new(upstream.clone())
            .with_context(|| format!("the upstream {name} cannot be set up"))?;
        all.push(Arc::new(upstream));
    }
    let model = config
        .model
        .enabled
        .then(|| LocalModel::start(config.model.clone(), &config.server.data_dir));
    if let Some(model) = &model {
        all.push(Arc::new(RemoteUpstream::new(model.upstream_config())?));
    }
    Ok(Upstreams { all, model })
}

pub(super) fn hub_config(
    config: &Config,
    node: NodeId,
    upstreams: Vec<Arc<dyn Upstream>>,
) -> HubConfig {
    let limits = &config.limits;
    HubConfig {
        node,
        session: SessionSettings {
            idle_timeout: config.session.idle_timeout,
            flush_interval: config.session.flush,
            stalled_device: config.session.stalled_device,
            max_devices: limits.devices_per_session,
            max_questions: limits.pending_replies_per_session,
        },
        pool: PoolConfig {
            upstreams,
            default_route: config.llm.default_route.clone(),
            queue_len: config.llm.queue_len,
            queue_wait: config.llm.queue_wait,
            first_sign_wait: config.llm.first_sign_wait,
            hedge_after: config.llm.hedge_after,
        },
        tenant: DefaultLimits {
            connections: limits.connections_per_tenant,
            sessions: u32::try_from(limits.sessions).unwrap_or(u32::MAX),
            messages_per_second: limits.messages_per_second_per_tenant,
        },
        visitor: VisitorLimits {
            messages_per_second: limits.rates.messages_per_second,
            messages_burst: limits.rates.messages_burst,
            connections: limits.connections_per_visitor,
            replies: limits.replies_per_visitor,
        },
        max_sessions: limits.sessions,
    }
}

/// Who may speak for others.
pub(super) fn proxies(server: &ServerConfig) -> Proxies {
    Proxies {
        trusted: server.trusted_proxies.clone(),
        header: server.forwarded_header,
    }
}

/// What strangers may ask for.
pub(super) fn allowances(strangers: StrangersConfig) -> Allowances {
    Allowances {
        tickets_per_address: strangers.tickets_per_minute_per_ip,
        tickets_per_bot: strangers.tickets_per_minute_per_bot,
        sessions_per_address: strangers.sessions_per_minute_per_ip,
        sessions_per_visitor: strangers.sessions_per_minute_per_visitor,
    }
}

/// Files that are neither sockets of clients, nor connections to the database or to upstreams: standard streams,
/// the log, the listener, what the runtime needs for itself.
const OTHER_FILES: usize = 64;

/// Places that WebSockets leave to requests: a sixteenth of all, but no more than this.
const REQUEST_PLACES: usize = 512;

/// How many sockets there may be, and how many of them WebSockets, with so many open files.
pub(super) fn socket_bounds(config: &Config, files: usize) -> (SocketBounds, usize) {
    let limits = &config.limits;
    let slots = config.upstreams.iter().map(|upstream| upstream.slots.end());
    let slots: u32 = slots.sum();
    let database = &config.database;
    let ours =
        OTHER_FILES + slots as usize + database.app_connections + database.writer_connections;
    let all = files - ours.min(files / 4);
    let bounds = SocketBounds {
        all,
        waiting: limits.strangers.waiting_sockets,
        // Room for requests beside as many WebSockets as there may be: those are refused with a word.
        per_network: limits
            .connections_per_ip
            .saturating_add(limits.connections_per_ip / 4 + 16),
    };
    let for_requests = (all / 16).clamp(16, REQUEST_PLACES);
    let websockets = limits.connections.min(all.saturating_sub(for_requests));
    (bounds, websockets)
}

/// How many files this process may have open.
pub(super) fn open_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = limit.current.and_then(|files| usize::try_from(files).ok());
    files.unwrap_or(usize::MAX)
}

pub(super) fn connection_config(config: &Config) -> ConnectionConfig {
    let limits = &config.limits;
    ConnectionConfig {
        limits: Limits {
            frame_bytes: limits.frame_bytes,
            text_chars: limits.text_chars,
        },
        heartbeat: config.session.heartbeat,
        max_sessions: limits.sessions_per_connection,
        inbound: InboundRate {
            frame_bytes: limits.frame_bytes,
            bytes_per_second: limits.rates.bytes_per_second,
            // Messages have a limit of their own, which is not to be met here first.
            frames_per_second: limits
                .rates
                .frames_per_second
                .max(limits.rates.messages_per_second.saturating_mul(2)),
        },
        messages_per_second: limits.rates.messages_per_second,
        messages_burst: limits.rates.messages_burst,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Inputs;

    #[test]
    fn storage_and_configuration_have_the_same_defaults() {
        let (config, _) = Config::load(&Inputs::none()).unwrap();
        let defaults = || StorageConfig::new(DatabaseUrl::new("postgresql://u@h/db"));
        let settled = settle(&config, defaults());
        assert_eq!(format!("{settled:?}"), format!("{:?}", defaults()));
    }
}
