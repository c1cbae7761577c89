//! The guard: a process of its own, which ends the private PostgreSQL when the server is killed.
//!
//! A killed server cannot end anything, and PostgreSQL does not watch its parent. The guard is this same
//! program, started before anything else of the cluster. It waits for the end of a pipe that the server
//! holds, which the kernel closes however the server ends, and then ends everything in the cluster's
//! folder within about a second. It holds the folder's lock together with the server, so that the next
//! server does not start before it is done. If it dies it is started again; if both are killed, the next
//! start clears up.

use std::fs::File;
use std::io::{sink, stdin};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::leftovers;

/// The command of the program that runs it.
pub const COMMAND: &str = "guard-postgres";

const RESTART_DELAY: Duration = Duration::from_secs(1);

/// The server has ended its PostgreSQL before it lets the guard go, so there is nothing left to do.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// The guard of a cluster. Dropped, or killed with the server, it has the guard do its work.
#[derive(Debug)]
pub(super) struct Guard {
    /// Its end is the guard's sign.
    dismiss: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
}

impl Guard {
    /// Starts `program` as the guard of the cluster in `home`. Without one the server runs all the same.
    pub fn start(program: PathBuf, home: PathBuf, lock: File) -> Self {
        let (dismiss, dismissed) = oneshot::channel();
        // Started at once: what is started next must never be without it.
        let first = spawn(&program, &home, &lock);
        let keeper = tokio::spawn(keep(first, program, home, lock, dismissed));
        Self { dismiss, keeper }
    }

    /// Lets it go, and waits until the folder's lock is free of it.
    pub async fn dismiss(self) {
        drop(self.dismiss);
        if let Err(error) = self.keeper.await {
            tracing::error!(%error, "the keeper of PostgreSQL's guard died");
        }
    }
}

/// Starts the guard again whenever it ends, until it is dismissed.
async fn keep(
    first: std::io::Result<Child>,
    program: PathBuf,
    home: PathBuf,
    lock: File,
    mut dismissed: oneshot::Receiver<()>,
) {
    let mut spawned = first;
    loop {
        match spawned {
            Ok(mut child) => {
                // Taken, so that waiting does not close it.
                let pipe = child.stdin.take();
                let ended = tokio::select! {
                    status = child.wait() => Some(status),
                    _ = &mut dismissed => None,
                };
                let Some(status) = ended else {
                    drop(pipe);
                    if timeout(END_PATIENCE, child.wait()).await.is_err() {
                        tracing::warn!("PostgreSQL's guard does not end");
                    }
                    return;
                };
                tracing::warn!(?status, "PostgreSQL's guard died; starting it again");
            }
            Err(error) => {
                tracing::warn!(%error, "PostgreSQL has no guard: it would outlive a killed server");
            }
        }
        tokio::select! {
            () = sleep(RESTART_DELAY) => {}
            _ = &mut dismissed => return,
        }
        spawned = spawn(&program, &home, &lock);
    }
}

fn spawn(program: &Path, home: &Path, lock: &File) -> std::io::Result<Child> {
    Command::new(program)
        .arg(COMMAND)
        .arg(home)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        // Held, not written to.
        .stdout(lock.try_clone()?)
        .stderr(Stdio::null())
        // Ctrl-C is meant for the server.
        .process_group(0)
        .spawn()
}

/// The guard itself. Returns when the server is gone and nothing of its PostgreSQL is left. Logs nothing:
/// whoever would read it is gone.
///
/// # Errors
/// It cannot be set up.
pub fn run(home: &Path) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Whoever stops the whole service at once means the server, which needs its database to drain.
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ];
        let _ignored = kinds.map(signal);
        let end = tokio::task::spawn_blocking(|| std::io::copy(&mut stdin().lock(), &mut sink()));
        // An unreadable pipe counts as closed.
        drop(end.await);
        // What does not end now, the next start ends.
        drop(leftovers::clear_promptly(home).await);
    });
    Ok(())
}
