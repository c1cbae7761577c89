//! A PostgreSQL of the server's own, for when none is configured: made in the data folder from the
//! installed binaries, reached through a private socket only, watched while the server runs.
//!
//! Started by `main`, ended by [`PrivateCluster::stop`]. If the server is killed, a [`guard`] ends it; if
//! that was killed too, the next start does, and starts its own, so that there is always a parent to
//! watch it. Nothing that was committed is lost with any of them: `fsync` is on.

mod binaries;
mod cluster;
mod error;
pub mod guard;
mod initdb;
mod leftovers;
mod nameless;
mod processes;
mod socket;
mod survey;
mod user;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::folder;
use crate::{DatabaseUrl, StorageConfig};
use cluster::Cluster;
pub use error::PrivateError;
use guard::Guard;
use socket::SocketFolder;
use survey::Survey;

/// The cluster's folder, in the data folder.
const HOME: &str = "postgres";
/// In the cluster's folder: PostgreSQL's data, the same while it is being made, the socket's folder.
const DATA: &str = "data";
const UNFINISHED: &str = "data.new";
const RUN: &str = "run";
/// In the socket's folder. Beside it lies its lock, with `.lock` at its end.
const SOCKET: &str = ".s.PGSQL.5432";

/// The database the server uses.
const DATABASE: &str = "hubbub";
/// Who owns the schema.
const SUPERUSER: &str = "postgres";
/// As whom the server works.
const APP: &str = "hubbub_app";

/// Longest wait for a start, crash recovery included.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// Longest wait for a folder that is locked although nothing answers in it: the guard of a server that was
/// killed is clearing up, or another server is just starting.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
const LOCK_POLL: Duration = Duration::from_millis(50);

/// How to run a private PostgreSQL.
#[derive(Clone, Debug)]
pub struct PrivateOptions {
    data_dir: PathBuf,
    settings: Vec<(String, String)>,
    guard: Option<PathBuf>,
}

impl PrivateOptions {
    /// In `<data_dir>/postgres`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            settings: Vec::new(),
            guard: None,
        }
    }

    /// Ends it also when this process is killed. `program` must run [`guard::run`] when it is called with
    /// [`guard::COMMAND`] and a folder.
    pub fn guarded_by(mut self, program: PathBuf) -> Self {
        self.guard = Some(program);
        self
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
    socket: SocketFolder,
    data: PathBuf,
    pid: watch::Receiver<Option<u32>>,
    stop: watch::Sender<bool>,
    watcher: JoinHandle<()>,
    guard: Option<Guard>,
    // Held as long as the cluster is ours; the kernel lets it go when we and the guard are gone.
    _lock: File,
}

impl PrivateCluster {
    /// Looks whether one can be started in `<data_dir>/postgres`, and changes nothing.
    ///
    /// # Errors
    /// [`PrivateError`], which says what to do about it.
    pub fn check(data_dir: &Path) -> Result<(), PrivateError> {
        Survey::of(data_dir).map(drop)
    }

    /// Starts PostgreSQL in `<data_dir>/postgres` and waits until it answers; makes the cluster first
    /// if there is none, and recovers a crashed one.
    ///
    /// # Errors
    /// [`PrivateError`], which says what to do about it.
    pub async fn start(options: PrivateOptions) -> Result<Self, PrivateError> {
        let survey = Survey::of(&options.data_dir)?;
        let home = survey.home.clone();
        folder::make(&home)?;
        let lock = lock(&home).await?;
        let guard = match options.guard {
            Some(program) => Some(Guard::start(program, home.clone(), clone(&lock, &home)?)),
            None => None,
        };
        let cluster = Cluster::prepare(survey, options.settings).await?;
        let mut child = cluster.launch().await?;
        if let Err(error) = cluster.make_database().await {
            cluster.end(&mut child).await;
            return Err(error);
        }
        let (stop, stopped) = watch::channel(false);
        let (pid_tx, pid) = watch::channel(child.id());
        let (socket, data) = (cluster.socket().clone(), cluster.data());
        let watcher = tokio::spawn(cluster.watch(child, pid_tx, stopped));
        Ok(Self {
            socket,
            data,
            pid,
            stop,
            watcher,
            guard,
            _lock: lock,
        })
    }

    /// How the server reaches it: as `hubbub_app`, with migrations as the superuser.
    pub fn database_config(&self) -> StorageConfig {
        config_on(&self.socket)
    }

    /// One of its databases, as the server's role.
    pub fn app_url(&self, database: &str) -> DatabaseUrl {
        self.socket.url(APP, database)
    }

    /// One of its databases, as the superuser.
    pub fn superuser_url(&self, database: &str) -> DatabaseUrl {
        self.socket.url(SUPERUSER, database)
    }

    /// The folder of its socket, as this process reaches it.
    pub fn socket_dir(&self) -> PathBuf {
        self.socket.path()
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
        if let Some(guard) = self.guard {
            guard.dismiss().await;
        }
    }
}

/// A private PostgreSQL that another hubbub runs.
#[derive(Debug)]
pub struct JoinedCluster(SocketFolder);

impl JoinedCluster {
    /// The one that runs in `<data_dir>/postgres`.
    ///
    /// # Errors
    /// There is none that answers.
    pub async fn find(data_dir: &Path) -> Result<Self, PrivateError> {
        let home = Survey::of(data_dir)?.home;
        let socket = SocketFolder::open(&home)?;
        if cluster::answers(&socket).await {
            Ok(Self(socket))
        } else {
            Err(PrivateError::Silent(home))
        }
    }

    /// How to reach it.
    pub fn database_config(&self) -> StorageConfig {
        config_on(&self.0)
    }
}

fn config_on(socket: &SocketFolder) -> StorageConfig {
    StorageConfig {
        migration_url: Some(socket.url(SUPERUSER, DATABASE)),
        ..StorageConfig::new(socket.url(APP, DATABASE))
    }
}

/// Takes the cluster's folder. One that is locked by somebody whose PostgreSQL answers is in use; else it
/// may become free any moment.
async fn lock(home: &Path) -> Result<File, PrivateError> {
    let path = home.join("hubbub.lock");
    let folder = |source| PrivateError::Folder {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(folder)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(folder(source)),
        }
        let is_used = match SocketFolder::open(home) {
            Ok(socket) => cluster::answers(&socket).await,
            Err(_) => false,
        };
        if is_used || Instant::now() >= deadline {
            return Err(PrivateError::InUse(home.to_path_buf()));
        }
        sleep(LOCK_POLL).await;
    }
}

fn clone(lock: &File, home: &Path) -> Result<File, PrivateError> {
    lock.try_clone().map_err(|source| PrivateError::Folder {
        path: home.to_path_buf(),
        source,
    })
}
