//! Further customers of a server, made as whoever runs it makes them.

use std::process::{Command, Output};

use hubbub_protocol::BotId;
use hubbub_protocol::http::Bot;
use serde_json::{Value, json};

use super::caller::Caller;
use super::server::{PROGRAM, TestServer};

/// Runs a command beside the server.
pub fn run_beside(server: &TestServer, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("--data-dir")
        .arg(server.data_dir())
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs a command beside the server that prints JSON.
pub fn json_beside(server: &TestServer, arguments: &[&str]) -> Value {
    let output = run_beside(server, arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A second tenant: its API key and a bot.
pub async fn another_tenant(server: &TestServer) -> (String, BotId) {
    let tenant = json_beside(server, &["tenant", "create", "Other", "--json"]);
    let tenant = tenant["id"].as_str().unwrap();
    let key = ["key", "create", "--tenant", tenant, "--name", "k", "--json"];
    let key = json_beside(server, &key)["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let body = json!({"name": "B", "max_output_tokens": 100});
    let bot = Caller::with(server, Some(&key))
        .post("/v1/bots", &body)
        .await;
    let bot = bot.json::<Bot>().id;
    (key, bot)
}
