//! The cluster's folder and its server process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::NoTls;
use uuid::Uuid;

use super::binaries::Binaries;
use super::user::ServerUser;
use super::{PrivateError, START_DEADLINE, leftovers};
use crate::storage::DatabaseUrl;
use crate::storage::error::describe;

/// The database the server uses.
pub(super) const DATABASE: &str = "hubbub";
/// Who owns the schema.
pub(super) const SUPERUSER: &str = "postgres";

/// `sockaddr_un` holds 108 bytes with the final NUL.
const SOCKET_PATH_MAX: usize = 107;
const SOCKET_NAME: &str = ".s.PGSQL.5432";
const POLL: Duration = Duration::from_millis(50);
const STOP_PATIENCE: Duration = Duration::from_secs(15);
const RESTART_DELAY_MIN: Duration = Duration::from_millis(100);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);
/// A server that ran this long was healthy: the next restart is quick again.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// For one server on one small machine. A segment of the log that has to be made stalls 50 ms, so
/// enough of them are kept.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("max_connections", "60"),
    ("shared_buffers", "128MB"),
    ("min_wal_size", "256MB"),
    ("max_wal_size", "1GB"),
    ("wal_compression", "on"),
    ("log_min_messages", "warning"),
    // A failed statement is logged by the server who sent it, without its values.
    ("log_min_error_statement", "panic"),
    ("log_checkpoints", "off"),
    ("jit", "off"),
];

/// A prepared cluster; what runs in it is the caller's [`Child`].
#[derive(Debug)]
pub(super) struct Cluster {
    binaries: Binaries,
    user: ServerUser,
    home: PathBuf,
    data: PathBuf,
    socket_dir: PathBuf,
    settings: Vec<(String, String)>,
}

impl Cluster {
    /// Finds binaries and user, makes the data folder if there is none, clears what was left behind.
    pub async fn prepare(
        home: PathBuf,
        settings: Vec<(String, String)>,
    ) -> Result<Self, PrivateError> {
        let user = ServerUser::find()?;
        let data = home.join("data");
        let binaries = Binaries::find(existing_version(&data))?;
        user.own(&home, 0o700)?;
        user.check_reach(&home)?;
        if !data.join("PG_VERSION").exists() {
            make_data(&binaries, user, &home, &data).await?;
        }
        leftovers::clear(&data).await?;
        let socket_dir = socket_dir(&home)?;
        user.own(&socket_dir, 0o700)?;
        Ok(Self {
            binaries,
            user,
            home,
            data,
            socket_dir,
            settings,
        })
    }

    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("server.log")
    }

    /// Starts the server. It is in a process group of its own: Ctrl-C is meant for us, and we stop it
    /// when nobody needs it any more.
    pub fn spawn(&self) -> Result<Child, PrivateError> {
        let log_path = self.log_path();
        let folder = |source| PrivateError::Folder {
            path: log_path.clone(),
            source,
        };
        // One earlier log is kept; both are short, as only warnings are written.
        if log_path.exists() {
            std::fs::rename(&log_path, self.home.join("server.log.1")).map_err(folder)?;
        }
        let log = File::create(&log_path).map_err(folder)?;
        let mut command = Command::new(self.binaries.program("postgres"));
        command
            .arg("-D")
            .arg(&self.data)
            .arg("-k")
            .arg(&self.socket_dir);
        let own = SETTINGS.iter().copied();
        let given = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(given) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(folder)?)
            .stderr(log)
            .process_group(0);
        self.user.apply(&mut command);
        command.spawn().map_err(|error| PrivateError::Program {
            program: "postgres",
            output: error.to_string(),
        })
    }

    /// Waits until the server answers a query.
    pub async fn wait_ready(
        &self,
        child: &mut Child,
        patience: Duration,
    ) -> Result<(), PrivateError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                let output = format!("{status}: {}", last.join("; "));
                return Err(PrivateError::Program {
                    program: "postgres",
                    output,
                });
            }
            let asked = timeout(Duration::from_secs(2), self.execute("SELECT 1")).await;
            if matches!(asked, Ok(Ok(()))) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(PrivateError::NotReady(patience, self.log_path()));
            }
            sleep(POLL).await;
        }
    }

    /// Makes the server's database if there is none.
    pub async fn make_database(&self) -> Result<(), PrivateError> {
        let made = self.execute("CREATE DATABASE hubbub").await;
        match made {
            Err(error)
                if error.code() == Some(&tokio_postgres::error::SqlState::DUPLICATE_DATABASE) =>
            {
                Ok(())
            }
            other => other.map_err(|error| PrivateError::Database(describe(&error))),
        }
    }

    async fn execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&self.socket_dir)
            .user(SUPERUSER)
            .dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        // Ends when the client is dropped, three lines below.
        let task = tokio::spawn(connection);
        let result = client.batch_execute(sql).await;
        drop(client);
        task.abort();
        result
    }

    /// Starts the server again whenever it dies, until told to stop; then stops it.
    pub async fn watch(
        self,
        mut child: Child,
        pid: watch::Sender<Option<u32>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut delay = RESTART_DELAY_MIN;
        loop {
            let started = Instant::now();
            let status = tokio::select! {
                status = child.wait() => status,
                // Also when the owner is gone without a word.
                _ = stop.wait_for(|stop| *stop) => break,
            };
            pid.send_replace(None);
            tracing::error!(?status, "the private PostgreSQL died; starting it again");
            if started.elapsed() > HEALTHY_AFTER {
                delay = RESTART_DELAY_MIN;
            }
            child = loop {
                let stopped = async { stop.wait_for(|stop| *stop).await.map(|_| ()) };
                if timeout(delay, stopped).await.is_ok() {
                    return;
                }
                delay = (delay * 2).min(RESTART_DELAY_MAX);
                let stopped = async { stop.wait_for(|stop| *stop).await.map(|_| ()) };
                let restarted = tokio::select! {
                    restarted = self.restart() => Some(restarted),
                    _ = stopped => None,
                };
                let Some(restarted) = restarted else {
                    // Whatever was being started is ended like any other leftover.
                    if let Err(error) = leftovers::clear(&self.data).await {
                        tracing::error!(%error, "the private PostgreSQL does not end");
                    }
                    return;
                };
                match restarted {
                    Ok(child) => break child,
                    Err(error) => tracing::error!(%error, "the private PostgreSQL does not start"),
                }
            };
            pid.send_replace(child.id());
        }
        self.end(&mut child).await;
        pid.send_replace(None);
        if !self.socket_dir.starts_with(&self.home)
            && let Err(error) = std::fs::remove_dir(&self.socket_dir)
        {
            tracing::debug!(%error, "the socket's folder stays");
        }
    }

    async fn restart(&self) -> Result<Child, PrivateError> {
        leftovers::clear(&self.data).await?;
        let mut child = self.spawn()?;
        match self.wait_ready(&mut child, START_DEADLINE).await {
            Ok(()) => Ok(child),
            Err(error) => {
                self.end(&mut child).await;
                Err(error)
            }
        }
    }

    /// Fast shutdown; immediate when that takes too long, which only means recovery at the next start.
    pub async fn end(&self, child: &mut Child) {
        for signal in [Signal::INT, Signal::QUIT, Signal::KILL] {
            let Some(pid) = child
                .id()
                .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            else {
                return;
            };
            if let Err(error) = kill_process(pid, signal) {
                tracing::debug!(%error, "PostgreSQL had ended already");
            }
            match timeout(STOP_PATIENCE, child.wait()).await {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "cannot wait for PostgreSQL"),
                Err(_) => tracing::warn!(?signal, "PostgreSQL does not stop"),
            }
        }
    }
}

/// A URL for a database of the cluster.
pub(super) fn url(socket_dir: &Path, user: &str, database: &str) -> DatabaseUrl {
    let quote = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let folder = quote(&socket_dir.to_string_lossy());
    DatabaseUrl::new(format!(
        "host='{folder}' user='{user}' dbname='{}'",
        quote(database)
    ))
}

fn existing_version(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("PG_VERSION"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Makes the data folder beside its place and moves it there whole: one that was interrupted is never
/// taken for a cluster.
async fn make_data(
    binaries: &Binaries,
    user: ServerUser,
    home: &Path,
    data: &Path,
) -> Result<(), PrivateError> {
    let unfinished = home.join("data.new");
    let folder = |source| PrivateError::Folder {
        path: unfinished.clone(),
        source,
    };
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(folder)?;
    }
    let mut command = Command::new(binaries.program("initdb"));
    command
        .args([
            "--username",
            SUPERUSER,
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
            "--no-locale",
        ])
        .arg("--pgdata")
        .arg(&unfinished)
        .current_dir(home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    user.apply(&mut command);
    let failed = |output: String| PrivateError::Program {
        program: "initdb",
        output,
    };
    let output = timeout(START_DEADLINE, command.output())
        .await
        .map_err(|_| failed(format!("not done within {START_DEADLINE:?}")))?
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    std::fs::rename(&unfinished, data).map_err(folder)
}

/// In the cluster's folder, or in a new temporary one if the path would be too long for a socket.
fn socket_dir(home: &Path) -> Result<PathBuf, PrivateError> {
    let near = home.join("run");
    let path = if near.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_MAX {
        near
    } else {
        std::env::temp_dir().join(format!("hubbub-{}", Uuid::now_v7().simple()))
    };
    let made = std::fs::create_dir(&path);
    match made {
        Err(source)
            if source.kind() == std::io::ErrorKind::AlreadyExists && path.starts_with(home) =>
        {
            Ok(path)
        }
        Err(source) => Err(PrivateError::Folder { path, source }),
        Ok(()) => Ok(path),
    }
}
