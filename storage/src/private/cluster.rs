//! The cluster's folder and its server process.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::NoTls;

use super::binaries::Binaries;
use super::socket::SocketFolder;
use super::survey::Survey;
use super::user::ServerUser;
use super::{DATA, PrivateError, START_DEADLINE, SUPERUSER, initdb, leftovers};
use crate::cause::describe;

const POLL: Duration = Duration::from_millis(50);
/// Longest wait for the answer to one question at the start.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// A start that finds others' files in its way clears up and tries again: the files of a process that was
/// just ending, or that had not begun to work in the folder when it was looked for.
const ATTEMPTS: u32 = 3;
/// More than is left on a disk that is as good as full.
const PROBE_BYTES: usize = 64 * 1_024;
/// Last lines of the server's log that an error repeats.
const LOG_LINES: usize = 5;
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
    socket: SocketFolder,
    settings: Vec<(String, String)>,
}

impl Cluster {
    /// Makes the data if there is none, and clears what was left behind. The caller holds the folder's
    /// lock.
    pub async fn prepare(
        survey: Survey,
        settings: Vec<(String, String)>,
    ) -> Result<Self, PrivateError> {
        let (home, user) = (&survey.home, survey.user);
        user.own(home, 0o700)?;
        // Before anything is made: an `initdb` may still be at it.
        leftovers::clear(home).await?;
        if survey.to_make.is_some() {
            initdb::make(&survey).await?;
        } else {
            // PostgreSQL refuses data that others can read, as a copy may have become.
            user.own(&home.join(DATA), 0o700)?;
        }
        Ok(Self {
            socket: SocketFolder::make(home, user)?,
            binaries: survey.binaries,
            user,
            home: survey.home,
            settings,
        })
    }

    pub fn socket(&self) -> &SocketFolder {
        &self.socket
    }

    pub fn data(&self) -> PathBuf {
        self.home.join(DATA)
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("server.log")
    }

    /// Starts the server and waits until it answers.
    pub async fn launch(&self) -> Result<Child, PrivateError> {
        let mut attempt = 1;
        loop {
            let mut child = self.spawn()?;
            let Err(error) = self.wait_ready(&mut child, START_DEADLINE).await else {
                return Ok(child);
            };
            self.end(&mut child).await;
            if attempt == ATTEMPTS || !error.is_in_the_way() {
                return Err(error);
            }
            attempt += 1;
            leftovers::clear(&self.home).await?;
        }
    }

    /// It is in a process group of its own: Ctrl-C is meant for us, and we stop it when nobody needs it
    /// any more.
    fn spawn(&self) -> Result<Child, PrivateError> {
        let log_path = self.log_path();
        let folder = |source| PrivateError::Folder {
            path: log_path.clone(),
            source,
        };
        // One earlier log is kept; both are short, as only warnings are written.
        if log_path.exists() {
            std::fs::rename(&log_path, self.home.join("server.log.1")).map_err(folder)?;
        }
        let log = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&log_path)
            .map_err(folder)?;
        let mut command = self.binaries.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            // From the first moment: by the folder it works in it is found.
            .current_dir(self.data())
            .arg("-k")
            .arg(self.socket.setting());
        let own = SETTINGS.iter().copied();
        let given = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(given) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
            .stdout(log.try_clone().map_err(folder)?)
            .stderr(log)
            .process_group(0);
        self.user.apply(&mut command);
        command
            .spawn()
            .map_err(|error| self.not_started(format!("it cannot be run: {error}")))
    }

    fn not_started(&self, reason: String) -> PrivateError {
        PrivateError::NotStarted {
            home: self.home.clone(),
            reason,
        }
    }

    /// Why it ended, in its own words. Where it cannot write there are none, or not the first ones; then
    /// the system tells why.
    fn last_words(&self) -> String {
        if let Err(error) = self.try_to_write() {
            return format!("its folder cannot be written to: {error}");
        }
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let mut last: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
        last.reverse();
        if last.is_empty() {
            return "it said nothing".to_owned();
        }
        last.join("; ")
    }

    fn try_to_write(&self) -> std::io::Result<()> {
        let probe = self.home.join("probe");
        let written = std::fs::write(&probe, vec![0; PROBE_BYTES]);
        written.and(std::fs::remove_file(&probe))
    }

    /// Waits until the server answers a query.
    async fn wait_ready(&self, child: &mut Child, patience: Duration) -> Result<(), PrivateError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(self.not_started(format!("{status}: {}", self.last_words())));
            }
            if answers(&self.socket).await {
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
        let made = execute(&self.socket, "CREATE DATABASE hubbub").await;
        match made {
            Err(error)
                if error.code() == Some(&tokio_postgres::error::SqlState::DUPLICATE_DATABASE) =>
            {
                Ok(())
            }
            other => other.map_err(|error| PrivateError::Database(describe(&error))),
        }
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
                    if let Err(error) = leftovers::clear(&self.home).await {
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
    }

    async fn restart(&self) -> Result<Child, PrivateError> {
        leftovers::clear(&self.home).await?;
        self.launch().await
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

/// Whether the server answers a query.
pub(super) async fn answers(socket: &SocketFolder) -> bool {
    let asked = timeout(ANSWER_PATIENCE, execute(socket, "SELECT 1")).await;
    matches!(asked, Ok(Ok(())))
}

async fn execute(socket: &SocketFolder, sql: &str) -> Result<(), tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(socket.path())
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
