//! The program with its parent gone.

#![allow(
    clippy::unwrap_used,
    reason = "a test says what is wrong by panicking, in its functions too"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program promises a second; a busy machine may be late.
const PATIENCE: Duration = Duration::from_secs(5);

#[expect(clippy::disallowed_methods, reason = "a process runs on real time")]
fn now() -> Instant {
    Instant::now()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE * 6, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// While it loads its weights: from a pipe that nobody writes to.
fn start(folder: &Path) -> Child {
    let weights = folder.join("weights.gguf");
    if !weights.exists() {
        let made = Command::new("mkfifo").arg(&weights).status().unwrap();
        assert!(made.success());
    }
    let socket = folder.join("model.sock");
    let child = Command::new(env!("CARGO_BIN_EXE_hubbub-model"))
        .arg("serve")
        .arg("--model")
        .arg(&weights)
        .arg("--socket")
        .arg(&socket)
        .arg("--exit-with-parent")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it does not listen", || socket.exists());
    child
}

// H11
#[test]
fn it_ends_when_its_parent_is_gone_though_nobody_reads_its_last_words() {
    let folder = std::env::temp_dir().join(format!("hubbub-model-parent-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for _ in 0..3 {
        let mut child = start(&folder);
        // As the kernel does when the parent dies: all ends of its pipes at once.
        drop((child.stdout.take(), child.stderr.take(), child.stdin.take()));
        let start = now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("it outlives its parent");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!folder.join("model.sock").exists(), "its socket stays");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
