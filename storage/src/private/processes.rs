//! PostgreSQL's processes of one cluster, read from `/proc`.
//!
//! A process is ours by the folder it works in and by its program's name. The number in a pid file proves
//! nothing: it may belong to a stranger by now, or to a dead process that nobody reaped.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Pid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

/// Where a cluster's processes work: the server and its children in the data, `initdb` beside it.
#[derive(Clone, Debug)]
pub(super) struct Workplaces {
    home: PathBuf,
    folders: [PathBuf; 3],
}

impl Workplaces {
    /// Those of the cluster in `home`.
    pub fn of(home: &Path) -> Self {
        // Somebody may have put the data on another disk, behind a link.
        let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
        let home = real(home.to_path_buf());
        Self {
            folders: [
                home.clone(),
                real(home.join(super::DATA)),
                real(home.join(super::UNFINISHED)),
            ],
            home,
        }
    }

    /// Every living process that works there.
    pub fn processes(&self) -> Vec<Pid> {
        let (mut found, is_complete) = self.look();
        if is_complete || !rustix::process::geteuid().is_root() {
            return found;
        }
        // Root without CAP_SYS_PTRACE, as in most containers, may not see where others' processes work;
        // their own user may. A user is a thread's own affair, so a thread becomes that user and ends.
        let workplaces = self.clone();
        let look_again = std::thread::spawn(move || workplaces.look_as_owner());
        if let Ok(more) = look_again.join() {
            found.extend(more);
            found.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
            found.dedup();
        }
        found
    }

    fn look_as_owner(&self) -> Vec<Pid> {
        let Ok(meta) = std::fs::metadata(&self.home) else {
            return Vec::new();
        };
        let (uid, gid) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
        let changed = set_thread_res_gid(gid, gid, gid).and(set_thread_res_uid(uid, uid, uid));
        if changed.is_err() {
            return Vec::new();
        }
        self.look().0
    }

    /// The processes seen, and whether every candidate could be looked at.
    fn look(&self) -> (Vec<Pid>, bool) {
        let (mut found, mut is_complete) = (Vec::new(), true);
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for entry in processes {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            let Some(pid) = number.and_then(Pid::from_raw) else {
                continue;
            };
            let path = entry.path();
            let command = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            // Some distributions wrap the program and put more around its name.
            if !command.contains("postgres") && !command.contains("initdb") {
                continue;
            }
            // A dead process that nobody reaped works nowhere.
            match std::fs::read_link(path.join("cwd")) {
                Ok(folder) if self.folders.contains(&folder) => found.push(pid),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => is_complete = false,
                Ok(_) | Err(_) => {}
            }
        }
        (found, is_complete)
    }
}
