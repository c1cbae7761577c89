//! What an operator sees of the process: its outputs, its log, and how signals end it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::Behaviour;
use hubbub_protocol::ServerFrame;
use serde_json::Value;

use crate::client::{Caller, Device};
use crate::server::{PROGRAM, Setup, quick, send_signal};
use crate::watchdog::OwnFolder;

/// Start of server and database, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The events of a log in JSON.
fn events(log: &str) -> Vec<Value> {
    let lines = log.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn serve(folder: &Path, port: u16, out: Stdio, err: Stdio) -> Child {
    let child = Command::new(PROGRAM)
        .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
        .arg("--data-dir")
        .arg(folder)
        .env("HUBBUB__MODEL__ENABLED", "false")
        .env("HUBBUB__LOG__LEVEL", "trace")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap();
    std::fs::write(folder.join("server.pid"), child.id().to_string()).unwrap();
    child
}

async fn answers(port: u16, path: &str) -> Option<String> {
    let url = format!("http://127.0.0.1:{port}{path}");
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5));
    let answer = client.build().unwrap().get(url).send().await.ok()?;
    answer.text().await.ok()
}

/// Waits until a server is ready, asks it for much, and stops it.
async fn assert_serves(mut child: Child, port: u16) {
    let started = Instant::now();
    let is_ready = |text: String| text.contains("\"ready\":true");
    while !answers(port, "/readyz").await.is_some_and(is_ready) {
        assert!(started.elapsed() < PATIENCE, "it does not serve");
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Each is logged, by whoever answers.
    let asked = Instant::now();
    for _ in 0..300 {
        assert!(answers(port, "/livez").await.is_some());
    }
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    let metrics = answers(port, "/metrics").await.unwrap();
    assert!(metrics.contains("\nhubbub_panics_total 0\n"), "{metrics}");
    send_signal(child.id(), "TERM");
    let told = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(told.elapsed() < PATIENCE, "it does not stop");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn full() -> Stdio {
    let file = std::fs::OpenOptions::new().write(true).open("/dev/full");
    file.unwrap().into()
}

// H5
#[tokio::test]
async fn an_output_that_is_full_or_closed_is_of_no_consequence() {
    let folder = OwnFolder::new();
    for (out, err) in [(full(), full()), (gone(), gone())] {
        let port = free_port();
        assert_serves(serve(&folder.path(), port, out, err), port).await;
    }
}

/// The writing end of a pipe that nobody can read from any more.
fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

// H5
#[tokio::test]
async fn an_output_that_nobody_reads_blocks_nobody() {
    let folder = OwnFolder::new();
    let port = free_port();
    let (_unread_out, out) = std::io::pipe().unwrap();
    let (_unread_err, err) = std::io::pipe().unwrap();
    // 300 requests at this level are more than a pipe holds.
    assert_serves(serve(&folder.path(), port, out.into(), err.into()), port).await;
}

// H19, H16
#[tokio::test]
async fn the_log_begins_with_what_runs_and_how_and_says_nothing_twice() {
    let folder = OwnFolder::new();
    let port = free_port();
    let log = folder.path().join("log");
    let err = std::fs::File::create(&log).unwrap();
    let mut command = Command::new(PROGRAM);
    let child = command
        .args([
            "serve",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--data-dir",
        ])
        .arg(folder.path())
        .env("HUBBUB__MODEL__ENABLED", "false")
        .env("HUBBUB__SERVER__PUBLIC_URL", "https://chat.example.com")
        .env("HUBBUB__LOG__LEVEL", "info,hubbub::http=debug")
        .env("HUBBUB_SERVER_WORKERS", "3")
        .env("HUBBUB_SERVICE_HOST", "10.0.0.1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(err)
        .spawn()
        .unwrap();
    std::fs::write(folder.path().join("server.pid"), child.id().to_string()).unwrap();
    let started = Instant::now();
    while answers(port, "/livez").await.is_none() {
        assert!(started.elapsed() < PATIENCE, "it does not serve");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    send_signal(child.id(), "TERM");
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    let output = output.await.unwrap().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(
        out.starts_with(&format!("Hubbub listens on http://127.0.0.1:{port}\n")),
        "{out}"
    );
    assert!(out.contains("https://chat.example.com"), "{out}");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains("\"span\":"), "said with spans already: {log}");
    assert!(log.contains("\"spans\":[{"), "{log}");
    let events = events(&log);
    let said = |text: &str| -> Vec<&Value> {
        let has = |event: &&Value| {
            event["message"]
                .as_str()
                .is_some_and(|said| said.contains(text))
        };
        events.iter().filter(has).collect()
    };
    let [start] = said("Hubbub listens")[..] else {
        panic!("not once: {log}");
    };
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(start["listen"], format!("127.0.0.1:{port}"));
    assert_eq!(start["public_url"], "https://chat.example.com");
    assert_eq!(start["database"], "private");
    assert_eq!(start["log_level"], "info,hubbub::http=debug");
    let [warning] = said("HUBBUB_SERVER_")[..] else {
        panic!("not once: {log}");
    };
    assert_eq!(warning["level"], "WARN");
    let warning = warning["message"].as_str().unwrap();
    assert!(
        warning.contains("HUBBUB_SERVER_WORKERS is not read"),
        "{warning}"
    );
    assert!(
        warning.contains("did you mean HUBBUB__SERVER__WORKERS?"),
        "{warning}"
    );
    assert_eq!(said("told to stop").len(), 1, "{log}");
    assert_eq!(said("stopped").len(), 1, "{log}");
}

// H7
#[tokio::test]
async fn a_second_signal_while_draining_stops_at_once_and_leaves_nothing_behind() {
    for (first, second) in [("TERM", "TERM"), ("TERM", "INT"), ("INT", "INT")] {
        // Without the second one it would wait for this answer for ten seconds.
        let endless = Behaviour {
            token_interval_ms: 1_000,
            tokens: 1_000,
            ..quick()
        };
        let setup = Setup::default().upstream("sim", endless);
        let mut server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
        let mut device = Device::connect(&server).await;
        let session = device.open(server.demo.bot).await.session;
        device.say(session, "endless").await.unwrap();
        device
            .until(|frame| matches!(frame, ServerFrame::Delta(_)).then_some(()))
            .await;
        let database = server.database_pid().unwrap();
        server.signal(first);
        device.end().await;
        let again = Instant::now();
        server.signal(second);
        let (server, status) = tokio::task::spawn_blocking(move || {
            let status = server.wait(Duration::from_secs(25));
            (server, status)
        })
        .await
        .unwrap();
        println!("{first}, {second}: exit after {:?}", again.elapsed());
        // The drain alone takes ten seconds; this is PostgreSQL's own stop on a busy machine.
        assert!(
            again.elapsed() < Duration::from_secs(7),
            "{:?}",
            again.elapsed()
        );
        let log = server.log();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("stopping at once"), "{log}");
        assert!(!Path::new(&format!("/proc/{database}")).exists(), "{log}");
        assert_eq!(server.database_pid(), None, "{log}");

        // What was said is there, and its answer has an end.
        let server = tokio::task::spawn_blocking(move || {
            let mut server = server;
            server.restart();
            server
        });
        let server = server.await.unwrap();
        let caller = Caller::new(&server);
        let started = Instant::now();
        loop {
            let page = caller.transcript(session).await;
            assert_eq!(page.messages.len(), 1);
            if page.ended.len() == 1 {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "no end: {page:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

// H14
#[test]
fn a_level_that_is_none_is_refused_with_all_other_errors() {
    for level in [
        "verbose",
        "INF",
        "info, debg",
        "hubbub=",
        "hubbub=loud",
        "=info",
        "info info",
    ] {
        let output = Command::new(PROGRAM)
            .arg("check-config")
            .env("HUBBUB__LOG__LEVEL", level)
            .env("HUBBUB__SERVER__LISTN", "127.0.0.1:1")
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{level}: {told}");
        assert!(told.contains("has 2 error(s)"), "{told}");
        assert!(
            told.contains("log.level (env HUBBUB__LOG__LEVEL): is not valid; allowed: off, error, warn, info, debug, trace;"),
            "{told}"
        );
        assert!(told.contains("did you mean server.listen?"), "{told}");
    }
}
