//! Connection pools: one for the server's role, a small one for the writer's. Every wait ends.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime,
    Timeouts,
};
use tokio_postgres::config::Config;

use crate::{StorageError, tls};

/// Which database, and as whom. May hold a password, so it never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Target);

#[derive(Clone, PartialEq, Eq)]
enum Target {
    /// `postgresql://…` or `key=value …`, as somebody wrote it.
    Text(String),
    /// On a socket of this machine. No text can name every folder: a comma parts hosts, and a path need
    /// not be UTF-8.
    Socket(Box<Config>),
}

impl DatabaseUrl {
    /// Takes the text as it is; [`crate::Storage::connect`] checks it.
    pub fn new(url: impl Into<String>) -> Self {
        Self(Target::Text(url.into()))
    }

    /// A database of the server whose socket is in `folder`.
    pub fn on_socket(folder: impl AsRef<Path>, user: &str, database: &str) -> Self {
        let mut config = Config::new();
        config.host_path(folder).user(user).dbname(database);
        Self(Target::Socket(Box::new(config)))
    }

    /// The parsed form.
    ///
    /// # Errors
    /// [`StorageError::Config`] if it is not a PostgreSQL URL; the text itself is not repeated.
    pub fn parse(&self) -> Result<Config, StorageError> {
        match &self.0 {
            Target::Socket(config) => Ok(Config::clone(config)),
            Target::Text(text) => Config::from_str(text)
                .map_err(|error| StorageError::Config(format!("the URL cannot be read: {error}"))),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(hidden)")
    }
}

/// How to reach the database, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// For the server itself: logs in as `hubbub_app`, which owns nothing.
    pub url: DatabaseUrl,
    /// For migrations: logs in as the schema's owner, who may create roles. `None`: somebody else
    /// migrates, and a schema of another version makes the server not ready.
    pub migration_url: Option<DatabaseUrl>,
    /// Most connections of the server's role.
    pub app_connections: usize,
    /// Most connections of the writer's role: one for its batch, and two for leases and activity.
    pub writer_connections: usize,
    /// Longest wait for a free connection.
    pub wait_timeout: Duration,
    /// Longest wait for a new connection.
    pub connect_timeout: Duration,
    /// Longest check of a used connection before it is handed out again.
    pub recycle_timeout: Duration,
    /// The server ends a statement that runs longer.
    pub statement_timeout: Duration,
    /// The server gives up a statement that waits longer for a lock.
    pub lock_timeout: Duration,
    /// The server ends a connection that leaves a transaction open and idle for longer.
    pub idle_in_transaction_timeout: Duration,
    /// Longest an operation takes in all, whatever happens; then it is `Unavailable`.
    pub operation_timeout: Duration,
    /// Longest a starting server waits for another one that is migrating.
    pub migration_timeout: Duration,
    /// Certificate authorities to trust, PEM; `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

impl StorageConfig {
    /// The defaults for a database at `url`: those of the configuration.
    pub fn new(url: DatabaseUrl) -> Self {
        Self {
            url,
            migration_url: None,
            app_connections: 8,
            writer_connections: 4,
            wait_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(3),
            recycle_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
            idle_in_transaction_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(6),
            migration_timeout: Duration::from_mins(1),
            ca_file: None,
        }
    }
}

/// A pool's connections at one moment, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Handed out.
    pub in_use: usize,
    /// Open and free.
    pub idle: usize,
    /// Callers waiting for one.
    pub waiting: usize,
    /// Most there may be.
    pub max: usize,
}

impl PoolStatus {
    pub(crate) fn of(pool: &Pool) -> Self {
        let status = pool.status();
        Self {
            in_use: status.size.saturating_sub(status.available),
            idle: status.available,
            waiting: status.waiting,
            max: status.max_size,
        }
    }
}

/// Whom a pool's connections act as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolRole {
    /// `hubbub_app`, as it logged in.
    App,
    /// `hubbub_writer`, by `SET ROLE`.
    Writer,
}

/// Opens a pool. Connects to nothing yet.
pub(crate) fn open(config: &StorageConfig, role: PoolRole) -> Result<Pool, StorageError> {
    let mut target = config.url.parse()?;
    let (name, size) = match role {
        PoolRole::App => ("hubbub", config.app_connections),
        PoolRole::Writer => ("hubbub-writer", config.writer_connections),
    };
    settle(&mut target, config, name);
    let tls = tls::connector(&mut target, config.ca_file.as_deref())?;
    let manager = Manager::from_config(
        target,
        tls,
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    let setup = session_setup(config, role);
    Pool::builder(manager)
        .max_size(size.max(1))
        .runtime(Runtime::Tokio1)
        .timeouts(Timeouts {
            wait: Some(config.wait_timeout),
            create: Some(config.connect_timeout),
            recycle: Some(config.recycle_timeout),
        })
        .post_create(Hook::async_fn(move |client, _| {
            let setup = setup.clone();
            Box::pin(async move { tell(client, &setup).await })
        }))
        .pre_recycle(Hook::async_fn(|client, metrics| {
            // A plan is only as good as the tables' sizes were: made in the first minutes of a database, it
            // may read a tenant's whole table for one row. So they are made anew, ever more rarely.
            let is_due = metrics.recycle_count.is_power_of_two();
            Box::pin(async move {
                if is_due {
                    tell(client, "DISCARD PLANS").await?;
                }
                Ok(())
            })
        }))
        .build()
        .map_err(|error| StorageError::Config(error.to_string()))
}

/// Runs a statement on behalf of the pool: outside of the pool's own time-outs, and a server may accept
/// and then say nothing.
async fn tell(client: &ClientWrapper, statement: &str) -> Result<(), HookError> {
    tokio::time::timeout(Duration::from_secs(2), client.batch_execute(statement))
        .await
        .map_err(|_| HookError::message("the database took too long"))?
        .map_err(HookError::Backend)
}

/// What every connection has in common.
pub(crate) fn settle(target: &mut Config, config: &StorageConfig, name: &str) {
    target
        .application_name(name)
        .connect_timeout(config.connect_timeout)
        // A server that vanished without a word is noticed by the kernel.
        .tcp_user_timeout(Duration::from_secs(10))
        .keepalives_idle(Duration::from_secs(30));
}

/// Run once on each new connection. Statements instead of start-up options, because a pooler in
/// between refuses those.
///
/// Every statement goes by an index. A plan made while a table was still empty scans it instead, and
/// stays cached until the table is analysed, a minute later: batches were three times slower. A statement
/// is planned once for each connection: planned for the arrays at hand, which is PostgreSQL's own choice,
/// a batch took as long to plan as to run. And none of them is worth compiling, which the price put on a
/// scan would bring about.
fn session_setup(config: &StorageConfig, role: PoolRole) -> String {
    let mut setup = format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; \
         SET idle_in_transaction_session_timeout = {}; SET timezone = 'UTC'; \
         SET enable_seqscan = off; SET jit = off; SET plan_cache_mode = force_generic_plan",
        config.statement_timeout.as_millis(),
        config.lock_timeout.as_millis(),
        config.idle_in_transaction_timeout.as_millis(),
    );
    if role == PoolRole::Writer {
        setup.push_str("; SET enable_hashjoin = off; SET enable_mergejoin = off");
        setup.push_str("; SET ROLE hubbub_writer");
    }
    setup
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_shows() {
        let config = StorageConfig::new(DatabaseUrl::new("postgresql://u:s3cret@h/db"));
        assert!(!format!("{config:?}").contains("s3cret"));
        let broken = DatabaseUrl::new("postgresql://u:s3cret@h:port/db")
            .parse()
            .unwrap_err();
        assert!(!broken.to_string().contains("s3cret"), "{broken}");
    }
}
