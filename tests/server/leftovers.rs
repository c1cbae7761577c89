//! Killed: nothing of a server that was killed lives on, and whatever it left the next start succeeds.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Device;
use crate::program::{Program, is_root, processes_of, wait_until_gone};
use crate::server::{Setup, TestServer, send_signal};

/// Kills of server and database at the same moment, each followed by a start.
const ROUNDS: usize = 20;

async fn start() -> TestServer {
    let setup = Setup::new();
    tokio::task::spawn_blocking(|| setup.start()).await.unwrap()
}

async fn restart(mut server: TestServer) -> TestServer {
    let restarted = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    restarted.await.unwrap()
}

fn kill_guard(folder: &Path) {
    for (pid, line) in processes_of(folder) {
        if line.contains("guard-postgres") {
            send_signal(pid, "KILL");
        }
    }
}

// H11
#[tokio::test]
async fn a_killed_servers_database_ends_with_it() {
    let mut server = start().await;
    let folder = server.data_dir();
    let mut busy = vec![server.database().await];
    for _ in 0..2 {
        busy.push(server.database().await);
    }
    // One that works without looking up, and one that waits.
    for (client, statement) in busy.iter().zip([
        "SELECT count(*) FROM generate_series(1, 1000000000000)",
        "SELECT pg_sleep(1000)",
    ]) {
        let statement = client.simple_query(statement);
        let started = tokio::time::timeout(Duration::from_millis(200), statement).await;
        assert!(started.is_err());
    }
    server.kill();
    let folder = tokio::task::spawn_blocking(move || {
        println!(
            "everything had ended {:?} after the kill",
            wait_until_gone(&folder)
        );
        folder
    });
    let folder = folder.await.unwrap();
    // The guard may go first, and is replaced.
    let server = restart(server).await;
    kill_guard(&folder);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes_of(&folder)
        .iter()
        .any(|(_, line)| line.contains("guard-postgres"))
    {
        assert!(Instant::now() < deadline, "there is no new guard");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Device::connect(&server).await.assert_works().await;
}

// H21
#[tokio::test]
async fn server_and_database_killed_at_once_start_again_each_time() {
    let mut server = start().await;
    let folder = server.data_dir();
    let mut longest = Duration::ZERO;
    for round in 0..ROUNDS {
        let database = server.database_pid().unwrap().to_string();
        let all = [server.pid().to_string(), database];
        // In half of the rounds the guard, too: nothing but files is left of the three.
        if round % 2 == 0 {
            kill_guard(&folder);
        }
        let killed = Command::new("kill").arg("-KILL").args(&all).status();
        assert!(killed.unwrap().success());
        server.wait(Duration::from_secs(10));
        if round % 4 < 2 {
            let folder = folder.clone();
            let gone = tokio::task::spawn_blocking(move || wait_until_gone(&folder));
            gone.await.unwrap();
        }
        let started = Instant::now();
        server = restart(server).await;
        longest = longest.max(started.elapsed());
    }
    println!("the longest of {ROUNDS} starts took {longest:?}");
    assert!(longest < Duration::from_secs(15), "{longest:?}");
    Device::connect(&server).await.assert_works().await;
}

// H21: as root in a container, which may not see where the processes of other users work.
#[tokio::test]
async fn a_database_left_behind_is_found_without_the_right_to_trace() {
    if !is_root() {
        return;
    }
    let rights = [
        "setpriv",
        "--bounding-set",
        "-sys_ptrace",
        "--inh-caps",
        "-sys_ptrace",
    ];
    let program = Program::new().wrapped(&rights);
    let data = program.path("data");
    let server = program.serve(&data);
    let of_database = || {
        let mut all = processes_of(&data);
        all.retain(|(_, line)| line.contains("bin/postgres "));
        all.into_iter().map(|(pid, _)| pid).next()
    };
    let left = of_database();
    assert!(left.is_some());
    kill_guard(&data);
    server.kill();
    assert_eq!(of_database(), left, "nobody was there to end it");
    let server = program.serve(&data);
    server.wait_until_ready().await;
    assert!(of_database().is_some_and(|pid| Some(pid) != left));
    assert!(server.stop().success());
}

/// A process that has ended and that nobody has asked about yet.
fn zombie() -> Child {
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let state = format!("/proc/{}/stat", child.id());
    while !std::fs::read_to_string(&state).unwrap().contains(") Z ") {
        assert!(Instant::now() < deadline, "{:?}", child.try_wait());
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

// H21
#[tokio::test]
async fn a_number_that_has_gone_to_a_stranger_or_a_dead_process_blocks_nothing() {
    let mut server = start().await;
    let cluster = server.data_dir().join("postgres");
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let mut dead = zombie();
    for pid in [stranger.id(), dead.id(), std::process::id(), 1] {
        let pid_file = cluster.join("data/postmaster.pid");
        let lock = cluster.join("run/.s.PGSQL.5432.lock");
        let texts = [&pid_file, &lock].map(|path| std::fs::read_to_string(path).unwrap());
        let own = server.database_pid().unwrap().to_string();
        server.kill();
        let folder = server.data_dir();
        let gone = tokio::task::spawn_blocking(move || wait_until_gone(&folder));
        gone.await.unwrap();
        for (path, text) in [&pid_file, &lock].into_iter().zip(texts) {
            assert!(text.starts_with(&own));
            std::fs::write(path, text.replacen(&own, &pid.to_string(), 1)).unwrap();
        }
        server = restart(server).await;
    }
    assert!(
        stranger.try_wait().unwrap().is_none(),
        "a stranger was ended"
    );
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    dead.wait().unwrap();
    Device::connect(&server).await.assert_works().await;
}
