//! `hubbub migrate` beside a running server and on a database with data: it works, or destroys nothing.

use std::process::{Command, Output};

use hubbub_protocol::ErrorCode;
use hubbub_storage::migrations::{self, MIGRATIONS};
use hubbub_storage::{DatabaseUrl, StorageConfig};

use crate::client::{Caller, Device, in_time};
use crate::program::Program;
use crate::server::{PROGRAM, Setup, TestServer, shared};

fn migrate(server: &TestServer, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("--data-dir")
        .arg(server.data_dir())
        .arg("migrate")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What it says, of a command that refuses.
fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    text(&output.stderr)
}

// H20
#[tokio::test]
async fn the_schema_is_shown_and_raised_beside_a_running_server() {
    let server = shared().await;
    let status = migrate(server, &["status"]);
    assert!(status.status.success(), "{status:?}");
    let status = text(&status.stdout);
    assert_eq!(status.lines().count(), MIGRATIONS.len(), "{status}");
    assert!(!status.contains("not applied"), "{status}");
    let up = migrate(server, &["up"]);
    assert!(up.status.success(), "{up:?}");
    assert!(text(&up.stdout).starts_with("nothing to apply"));
    Device::connect(server).await.assert_works().await;
}

// H23
#[tokio::test]
async fn nothing_is_destroyed_under_a_live_server() {
    let server = shared().await;
    for arguments in [&["down"][..], &["down", "--steps", "99", "--yes"]] {
        let told = refusal(&migrate(server, arguments));
        assert!(told.contains("a server is running"), "{told}");
    }
    Device::connect(server).await.assert_works().await;
}

// H23
#[tokio::test]
async fn what_would_be_destroyed_is_told_and_has_to_be_meant() {
    let setup = Setup::new();
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    device.ask(session, "one").await.unwrap();
    device.ask(session, "two").await.unwrap();
    let stopped = tokio::task::spawn_blocking(move || {
        let mut server = server;
        server.signal("TERM");
        server.wait(std::time::Duration::from_secs(40));
        server
    });
    let server = stopped.await.unwrap();

    let told = refusal(&migrate(&server, &["down", "--steps", "99"]));
    for part in [
        "4 rows of messages",
        "1 row of sessions",
        "1 row of bots",
        "--yes",
    ] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
    assert!(!told.contains("nodes"), "{told}");
    let status = text(&migrate(&server, &["status"]).stdout);
    assert!(!status.contains("not applied"), "{status}");

    let undone = migrate(&server, &["down", "--steps", "99", "--yes"]);
    assert!(undone.status.success(), "{undone:?}");
    assert!(text(&undone.stdout).contains("4 rows of messages"));
    let status = text(&migrate(&server, &["status"]).stdout);
    assert!(status.lines().all(|line| line.ends_with("not applied")));
    let nothing = migrate(&server, &["down"]);
    assert!(nothing.status.success(), "{nothing:?}");
    assert!(text(&nothing.stdout).starts_with("nothing to undo"));
}

// H23
#[test]
fn an_empty_schema_needs_no_word_and_a_slip_does_nothing() {
    let program = Program::new();
    let data = program.path("data");
    let migrate = |arguments: &[&str]| program.run(&data, &[&["migrate"], arguments].concat());
    assert!(migrate(&["up"]).status.success());
    for wrong in [
        &["down", "--steps", "0"][..],
        &["down", "--steps", "-1"],
        &["down", "--steps", "all"],
        &["down", "--step", "1", "--force"],
        &["dwon"],
        &[],
    ] {
        assert_eq!(migrate(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert!(!text(&migrate(&["status"]).stdout).contains("not applied"));
    let undone = migrate(&["down", "--steps", "99"]);
    assert!(undone.status.success(), "{undone:?}");
    assert!(text(&undone.stdout).contains("0001"));
}

// H23
#[tokio::test]
async fn a_schema_that_vanishes_under_a_live_server_is_unavailable_until_it_is_back() {
    let setup = Setup::new();
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    device.ask(session, "before").await.unwrap();
    let run = server.data_dir().join("postgres/run");
    let url = DatabaseUrl::on_socket(run, "postgres", "hubbub");
    let config = StorageConfig::new(url.clone());
    migrations::down(&config, &url, 99).await.unwrap();

    let caller = Caller::new(&server);
    let ready = caller.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("\"wrong_schema\""), "{}", ready.text);
    let refused = caller.get("/v1/sessions").await;
    assert_eq!(refused.problem().code, ErrorCode::Unavailable);
    let refused = device.say(session, "meanwhile").await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::Unavailable);

    migrations::up(&config, &url).await.unwrap();
    in_time(async {
        while caller.get("/readyz").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}
