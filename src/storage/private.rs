//! A PostgreSQL of the server's own, for when none is configured: made in the data folder from the
//! installed binaries, reached through a private socket only, watched while the server runs.
//!
//! Started by `main`, ended by [`PrivateCluster::stop`]. If the server is killed, PostgreSQL stays
//! behind; the next start ends it and starts its own, so that there is always a parent to watch it.
//! Nothing that was committed is lost with any of them: `fsync` is on.

mod binaries;
mod cluster;
mod leftovers;
mod user;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{DatabaseConfig, DatabaseUrl};
use cluster::Cluster;

/// Longest wait for a start, crash recovery included.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// Why the private PostgreSQL is not there.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// No usable binaries.
    #[error("no PostgreSQL{} found in PATH or /usr/lib/postgresql; install the Debian package \
             postgresql{} or configure a database", version(*.0), package(*.0))]
    NoBinaries(Option<u32>),
    /// We are root, PostgreSQL refuses to be, and there is no other user.
    #[error(
        "PostgreSQL does not run as root and there is no user postgres; install the Debian \
             package postgresql, start hubbub as another user, or configure a database"
    )]
    NoUser,
    /// The folder's parents shut the postgres user out.
    #[error("{} cannot be entered by the user postgres, as whom PostgreSQL runs; choose another data \
             folder, start hubbub as another user, or configure a database", .0.display())]
    Unreachable(PathBuf),
    /// The folder cannot be used.
    #[error("{}: {source}", .path.display())]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another hubbub is using it.
    #[error("{} is in use by another running hubbub", .0.display())]
    InUse(PathBuf),
    /// A program of PostgreSQL failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        output: String,
    },
    /// It did not answer in time.
    #[error("PostgreSQL did not start within {0:?}; see {1:?}")]
    NotReady(Duration, PathBuf),
    /// One that was left behind does not end.
    #[error("a PostgreSQL left behind in {} does not end", .0.display())]
    LeftBehind(PathBuf),
    /// It answers, but its database could not be made.
    #[error("the database could not be made: {0}")]
    Database(String),
}

/// How to run a private PostgreSQL.
#[derive(Clone, Debug)]
pub struct PrivateOptions {
    data_dir: PathBuf,
    settings: Vec<(String, String)>,
}

impl PrivateOptions {
    /// In `<data_dir>/postgres`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            settings: Vec::new(),
        }
    }

    /// Overrides a setting of the server, as in `postgresql.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings
            .push((String::from(name), String::from(value)));
        self
    }
}

/// A running private PostgreSQL.
#[derive(Debug)]
pub struct PrivateCluster {
    socket_dir: PathBuf,
    data: PathBuf,
    pid: watch::Receiver<Option<u32>>,
    stop: watch::Sender<bool>,
    watcher: JoinHandle<()>,
    // Held as long as the cluster is ours; the kernel lets it go when we die.
    _lock: File,
}

impl PrivateCluster {
    /// Starts PostgreSQL in `<data_dir>/postgres` and waits until it answers; makes the cluster first
    /// if there is none, and recovers a crashed one.
    ///
    /// # Errors
    /// [`PrivateError`], which says what to do about it.
    pub async fn start(options: PrivateOptions) -> Result<Self, PrivateError> {
        let PrivateOptions { data_dir, settings } = options;
        make_folder(&data_dir)?;
        let data_dir = data_dir
            .canonicalize()
            .map_err(|source| PrivateError::Folder {
                path: data_dir,
                source,
            })?;
        let home = data_dir.join("postgres");
        make_folder(&home)?;
        let lock = lock(&home)?;
        let cluster = Cluster::prepare(home, settings).await?;
        let mut child = cluster.spawn()?;
        if let Err(error) = cluster.wait_ready(&mut child, START_DEADLINE).await {
            cluster.end(&mut child).await;
            return Err(error);
        }
        if let Err(error) = cluster.make_database().await {
            cluster.end(&mut child).await;
            return Err(error);
        }
        let (stop, stopped) = watch::channel(false);
        let (pid_tx, pid) = watch::channel(child.id());
        let (socket_dir, data) = (
            cluster.socket_dir().to_path_buf(),
            cluster.data().to_path_buf(),
        );
        let watcher = tokio::spawn(cluster.watch(child, pid_tx, stopped));
        Ok(Self {
            socket_dir,
            data,
            pid,
            stop,
            watcher,
            _lock: lock,
        })
    }

    /// How the server reaches it: as `hubbub_app`, with migrations as the superuser.
    pub fn database_config(&self) -> DatabaseConfig {
        DatabaseConfig {
            migration_url: Some(self.superuser_url(cluster::DATABASE)),
            ..DatabaseConfig::new(self.app_url(cluster::DATABASE))
        }
    }

    /// One of its databases, as the server's role.
    pub fn app_url(&self, database: &str) -> DatabaseUrl {
        cluster::url(&self.socket_dir, "hubbub_app", database)
    }

    /// One of its databases, as the superuser.
    pub fn superuser_url(&self, database: &str) -> DatabaseUrl {
        cluster::url(&self.socket_dir, cluster::SUPERUSER, database)
    }

    /// The folder of its socket.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The folder of its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The running server's process; `None` between two.
    pub fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Stops it: connections are ended, everything is written out. Takes at most half a minute.
    pub async fn stop(mut self) {
        // The watcher ends the server when it sees this, or when `self` is dropped.
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.watcher).await {
            tracing::error!(%error, "the watcher of the private PostgreSQL died");
        }
    }
}

fn make_folder(path: &Path) -> Result<(), PrivateError> {
    std::fs::create_dir_all(path).map_err(|source| PrivateError::Folder {
        path: path.to_path_buf(),
        source,
    })
}

fn lock(home: &Path) -> Result<File, PrivateError> {
    let path = home.join("hubbub.lock");
    let folder = |source| PrivateError::Folder {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PrivateError::InUse(home.to_path_buf())),
        Err(TryLockError::Error(source)) => Err(folder(source)),
    }
}

fn version(major: Option<u32>) -> String {
    major
        .map(|major| format!(" {major}, which made the existing data,"))
        .unwrap_or_default()
}

fn package(major: Option<u32>) -> String {
    major.map(|major| format!("-{major}")).unwrap_or_default()
}
