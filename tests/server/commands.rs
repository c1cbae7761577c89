//! The command line, without a server.

use std::process::{Command, Output};

use crate::server::{PROGRAM, shared};

fn run(arguments: &[&str]) -> Output {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    assert!(!text(&output.stderr).contains("panicked"), "{output:?}");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn it_tells_its_version_and_its_commands() {
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert_eq!(
        text(&version.stdout),
        format!("hubbub {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = run(&["--help"]);
    assert!(help.status.success());
    for command in [
        "serve",
        "check-config",
        "example-config",
        "migrate",
        "tenant",
        "key",
    ] {
        assert!(text(&help.stdout).contains(command), "{command}");
    }
    let unknown = run(&["dance"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("dance"));
}

#[test]
fn the_example_configuration_is_the_one_in_the_tree_and_is_valid() {
    let example = run(&["example-config"]);
    assert!(example.status.success());
    let example = text(&example.stdout);
    assert_eq!(example, include_str!("../../hubbub.example.toml"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hubbub.toml");
    std::fs::write(&file, example).unwrap();
    let checked = run(&["--config", file.to_str().unwrap(), "check-config"]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(
        text(&checked.stdout).contains("listen = \"127.0.0.1:8080\""),
        "{checked:?}"
    );
}

#[test]
fn check_config_shows_where_a_value_comes_from_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hubbub.toml");
    std::fs::write(
        &file,
        "server.workers = 3\ndatabase.url = \"postgres://me:hidden1@h/db\"\n",
    )
    .unwrap();
    let output = Command::new(PROGRAM)
        .args(["--config", file.to_str().unwrap(), "check-config"])
        .env("HUBBUB__SERVER__LISTEN", "127.0.0.1:9")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let shown = text(&output.stdout);
    assert!(
        shown.contains("127.0.0.1:9") && shown.contains("HUBBUB__SERVER__LISTEN"),
        "{shown}"
    );
    assert!(shown.contains("workers = 3  "), "{shown}");
    assert!(
        shown.contains("hubbub.toml") || shown.contains("# file"),
        "{shown}"
    );
    assert!(!shown.contains("hidden1"), "{shown}");
}

#[test]
fn a_wrong_configuration_names_everything_that_is_wrong_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hubbub.toml");
    let wrong = "server.listen = \"nowhere\"\nserver.workers = 0\nlimits.frame_bites = 1\n\
        [[upstreams]]\nname = \"x\"\nbase_url = \"ftp://x\"\nmodel = \"m\"\napi_key = \"hidden\\u0001\"\n";
    std::fs::write(&file, wrong).unwrap();
    let data = folder.path().join("data");
    let file = file.to_str().unwrap();
    for command in ["check-config", "serve"] {
        let output = run(&[
            "--config",
            file,
            "--data-dir",
            data.to_str().unwrap(),
            command,
        ]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = text(&output.stderr);
        for key in [
            "server.listen",
            "server.workers",
            "limits.frame_bites",
            "base_url",
            "api_key",
        ] {
            assert!(told.contains(key), "{key} is not in\n{told}");
        }
        assert!(!told.contains("hidden"), "{told}");
    }
    assert!(!data.exists());
    let missing = run(&["--config", "/nowhere/hubbub.toml", "check-config"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/nowhere/hubbub.toml"));
}

#[test]
fn a_taken_port_is_told_before_anything_is_started() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let output = run(&[
        "serve",
        "--listen",
        &address,
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains(&address) && told.contains("in use"), "{told}");
    assert!(!data.exists(), "a database was started for nothing");
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let server = shared().await;
    let folder = server.data_dir();
    let folder = folder.to_str().unwrap();
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", folder]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text(&output.stderr).contains("another server runs with the data folder"),
        "{output:?}"
    );
    crate::client::Device::connect(server)
        .await
        .assert_works()
        .await;
}

#[test]
fn migrations_go_up_and_down_and_tell_where_they_are() {
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let migrate = |arguments: &[&str]| {
        let output = run(&[&["--data-dir", data, "migrate"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    };
    let before = migrate(&["status"]);
    assert!(before.lines().count() > 0);
    assert!(
        before.lines().all(|line| line.ends_with("not applied")),
        "{before}"
    );
    assert!(migrate(&["up"]).starts_with("applied: 0001"));
    assert!(!migrate(&["status"]).contains("not applied"));
    assert!(migrate(&["up"]).starts_with("nothing to apply"));
    assert!(migrate(&["down"]).starts_with("undone: "));
    let after = migrate(&["status"]);
    assert!(
        after.lines().last().unwrap().ends_with("not applied"),
        "{after}"
    );
}
