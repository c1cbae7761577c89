//! A folder for programs that must not outlive the test process, however that ends.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// Kills the server and the PostgreSQL of the folder `$1`, then removes it. A PostgreSQL that nobody
/// reaped still has a process id, but no `postmaster.pid` any more.
const CLEAR: &str = r#"read -r _
    kill -KILL "$(cat "$1/server.pid")"
    file="$1/postgres/data/postmaster.pid"
    pid="$(head -n 1 "$file")"
    kill -QUIT "$pid" && while kill -0 "$pid" && [ -e "$file" ]; do sleep 0.05; done
    rm -rf "$1""#;

/// A temporary folder, and a shell that waits for our end of a pipe to close, which the kernel does even
/// when we are killed, then clears the folder.
pub struct OwnFolder {
    path: PathBuf,
    watchdog: Mutex<Child>,
}

impl OwnFolder {
    /// Makes it.
    pub fn new() -> Self {
        use std::os::unix::process::CommandExt as _;
        let path = tempfile::Builder::new()
            .prefix("hubbub-test-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap()
            .keep();
        let child = Command::new("sh")
            .args(["-c", CLEAR, "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            path,
            watchdog: Mutex::new(child),
        }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        let mut child = self.watchdog.lock().unwrap();
        drop(child.stdin.take());
        let _ended = child.wait();
    }
}
