//! Answers once for many, as clients and the ledger see it.

use std::time::Duration;

use hubbub_protocol::BotId;
use serde_json::{Value, json};

use crate::client::{Caller, Device};
use crate::server::{Setup, TestServer};
use crate::tenant::another_tenant;

async fn answer(server: &TestServer, bot: BotId) -> hubbub_protocol::MessageFrame {
    let mut device = Device::connect(server).await;
    let session = device.open(bot).await.session;
    device
        .ask(session, "Are you open on Sunday?")
        .await
        .unwrap()
}

// R024
#[tokio::test]
async fn a_frequent_question_is_answered_without_an_upstream_until_its_time_is_over() {
    let setup = Setup::new();
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let caller = Caller::new(&server);
    let body = json!({"name": "Fern", "route": ["sim"], "answer_cache_s": 2});
    let made: Value = caller.post("/v1/bots", &body).await.json();
    assert_eq!(made["answer_cache_s"], 2);
    let bot: BotId = serde_json::from_value(made["id"].clone()).unwrap();
    let asked = || server.upstream("sim").counters().started;

    let first = answer(&server, bot).await;
    let second = answer(&server, bot).await;
    assert_eq!(
        (first.text.clone(), first.model),
        (second.text, second.model)
    );
    assert_eq!(asked(), 1, "zero upstream calls");
    let usage: Value = caller.get("/v1/usage?by=model").await.json();
    assert_eq!(usage["total"]["attempts"], 2, "{usage}");
    let metrics = caller.get("/metrics").await.text;
    assert!(
        metrics.contains("hubbub_answers_shared_total 1"),
        "{metrics}"
    );

    tokio::time::sleep(Duration::from_millis(2_100)).await;
    answer(&server, bot).await;
    assert_eq!(asked(), 2, "its time is over");

    let (key, _) = another_tenant(&server).await;
    let other = Caller::with(&server, Some(&key));
    let made: Value = other.post("/v1/bots", &body).await.json();
    let session = json!({"bot": made["id"]});
    let session: Value = other.post("/v1/sessions", &session).await.json();
    let path = format!("/v1/sessions/{}/messages", session["id"].as_str().unwrap());
    let message = json!({"text": "Are you open on Sunday?", "stream": true});
    let streamed = other.post(&path, &message).await;
    assert!(streamed.text.contains(&first.text), "{streamed:?}");
    assert_eq!(asked(), 3, "never across tenants");

    let wrong = caller
        .post("/v1/bots", &json!({"name": "x", "answer_cache_s": 86_401}))
        .await;
    let problem = wrong.problem();
    assert_eq!(
        problem.errors[0].pointer.as_deref(),
        Some("/answer_cache_s")
    );
}
