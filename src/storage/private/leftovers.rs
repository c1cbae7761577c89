//! What an earlier server left behind: a PostgreSQL whose parent was killed, the children of one that
//! was killed itself, and the pid file of either.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::PrivateError;

const POLL: Duration = Duration::from_millis(50);
/// Asked to stop, it gets this long before it is told to, and again before it is made to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends whatever still runs in `data` and removes its pid file. The caller holds the folder's lock, so
/// nobody who is alive wants it.
pub(super) async fn clear(data: &Path) -> Result<(), PrivateError> {
    let pid_file = data.join("postmaster.pid");
    let start = Instant::now();
    let mut sent = 0;
    loop {
        let running = running_in(data);
        if running.is_empty() {
            // PostgreSQL would trust the file if its number had gone to another process since.
            return match std::fs::remove_file(&pid_file) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    Err(PrivateError::Folder {
                        path: pid_file,
                        source,
                    })
                }
                _ => Ok(()),
            };
        }
        let due = match start.elapsed() {
            waited if waited < PATIENCE => 1,
            waited if waited < PATIENCE * 2 => 2,
            waited if waited < PATIENCE * 3 => 3,
            _ => return Err(PrivateError::LeftBehind(data.to_path_buf())),
        };
        if due > sent {
            sent = due;
            tracing::warn!(
                processes = running.len(),
                "ending a PostgreSQL that was left behind"
            );
            signal_all(&running, &pid_file, due);
        }
        sleep(POLL).await;
    }
}

/// A postmaster ends its children; children without one end by themselves, or are made to.
fn signal_all(running: &[Pid], pid_file: &Path, step: u32) {
    let postmaster = read_pid(pid_file);
    for pid in running {
        let signal = match step {
            1 | 2 if Some(*pid) != postmaster => continue,
            1 => Signal::INT,
            2 => Signal::QUIT,
            _ => Signal::KILL,
        };
        if let Err(error) = kill_process(*pid, signal) {
            tracing::debug!(%error, "it had ended already");
        }
    }
}

fn read_pid(pid_file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(pid_file).ok()?;
    Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
}

/// PostgreSQL's processes, all of which work in their data folder. A pid file alone proves nothing: its
/// number may be another process's by now.
fn running_in(data: &Path) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let folder = std::fs::read_link(entry.path().join("cwd")).ok()?;
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            (folder == data && name.trim_end() == "postgres").then_some(pid)
        })
        .collect()
}
