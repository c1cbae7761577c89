//! Ends what a killed server left behind: its PostgreSQL, the children of one that was killed itself,
//! an unfinished `initdb`; and the files by which they would pass for alive.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::processes::Workplaces;
use super::{DATA, PrivateError, RUN, SOCKET};

const POLL: Duration = Duration::from_millis(20);

/// A program that is just being started has no name yet: nobody is gone until nobody was seen twice.
const LOOKS: u32 = 2;

/// What the server process is told, and how long to wait for it afterwards. Its children end with it;
/// those that have lost it are killed at once, as PostgreSQL itself would not wait for them either.
type Steps = &'static [(Signal, Duration)];

/// At a start there is time for a shutdown that leaves nothing to recover.
const PATIENT: Steps = &[
    (Signal::INT, Duration::from_secs(10)),
    (Signal::QUIT, Duration::from_secs(10)),
    (Signal::KILL, Duration::from_secs(10)),
];

/// When the server was killed, everything of it ends within a second. What was committed is on disk, and
/// the next start recovers it.
const PROMPT: Steps = &[
    (Signal::QUIT, Duration::from_millis(400)),
    (Signal::KILL, Duration::from_secs(10)),
];

/// Ends whatever runs in the cluster's folder, and removes what would keep the next server from starting.
/// The caller holds the folder's lock, so nobody who is alive wants any of it.
pub(super) async fn clear(home: &Path) -> Result<(), PrivateError> {
    end(home, PATIENT).await
}

/// As [`clear`], within about a second.
pub(super) async fn clear_promptly(home: &Path) -> Result<(), PrivateError> {
    end(home, PROMPT).await
}

async fn end(home: &Path, steps: Steps) -> Result<(), PrivateError> {
    let workplaces = Workplaces::of(home);
    let pid_file = home.join(DATA).join("postmaster.pid");
    let mut unseen = 0;
    for (signal, patience) in steps {
        let deadline = Instant::now() + *patience;
        let mut is_told = false;
        while Instant::now() < deadline {
            let running = workplaces.processes();
            if running.is_empty() {
                unseen += 1;
                if unseen >= LOOKS {
                    return remove_locks(home);
                }
            } else {
                unseen = 0;
                let server = read_pid(&pid_file).filter(|pid| running.contains(pid));
                tell(&running, server, *signal, &mut is_told);
            }
            sleep(POLL).await;
        }
    }
    Err(PrivateError::LeftBehind(home.to_path_buf()))
}

/// Passes the signal on to the server process once, or kills those that have none.
fn tell(running: &[Pid], server: Option<Pid>, signal: Signal, is_told: &mut bool) {
    let is_last_resort = signal == Signal::KILL;
    for pid in running {
        let signal = match server {
            Some(server) if !is_last_resort => {
                if *pid != server || *is_told {
                    continue;
                }
                signal
            }
            _ => Signal::KILL,
        };
        if let Err(error) = kill_process(*pid, signal) {
            tracing::debug!(%error, "it had ended already");
        }
    }
    if !*is_told {
        *is_told = true;
        let processes = running.len();
        tracing::warn!(
            processes,
            ?signal,
            "ending a PostgreSQL that was left behind"
        );
    }
}

/// PostgreSQL believes these files for as long as anybody has the number in them, be it a stranger.
fn remove_locks(home: &Path) -> Result<(), PrivateError> {
    let run = home.join(RUN);
    let files = [
        home.join(DATA).join("postmaster.pid"),
        run.join(SOCKET),
        run.join(format!("{SOCKET}.lock")),
    ];
    for path in files {
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(PrivateError::Folder { path, source }),
        }
    }
    Ok(())
}

fn read_pid(pid_file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(pid_file).ok()?;
    Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
}
