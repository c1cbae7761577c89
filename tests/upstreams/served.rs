//! What a visitor gets of every shape: one running server, asked once for each.

use std::sync::Arc;

use hubbub::config::Api;
use serde_json::{Value, json};

use crate::client::{Caller, Device};
use crate::peer::Peer;
use crate::server::{Setup, TestServer};
use crate::shape::Shape;

/// Shapes that are asked for at once.
const AT_ONCE: usize = 6;

/// The upstream that serves a shape. One that fails has its own, so that its pauses are nobody else's.
fn upstream(shape: &Shape) -> &str {
    if shape.is_good() { "good" } else { &shape.name }
}

async fn start(shapes: &[Shape], peer: &Peer) -> TestServer {
    let api = match shapes[0].api {
        Api::OpenAi => "openai",
        Api::Anthropic => "anthropic",
        Api::Ollama => "ollama",
    };
    let mut setup = Setup::default()
        .speaking("good", &peer.base_url, api)
        .set("limits.messages_per_second", 100_000)
        .set("limits.messages_burst", 100_000)
        .set("llm.default_route", "[\"good\"]");
    for shape in shapes.iter().filter(|shape| !shape.is_good()) {
        setup = setup.speaking(&shape.name, &peer.base_url, api);
    }
    tokio::task::spawn_blocking(move || setup.start())
        .await
        .unwrap()
}

/// Asks, and reads the session back as it is stored.
async fn asked(server: &TestServer, shape: &Shape) -> Value {
    let caller = Caller::new(server);
    let bot =
        json!({"name": "Shape", "route": [upstream(shape)], "model": shape.name, "replies": true});
    let created = caller.post("/v1/bots", &bot).await;
    assert_eq!(created.status, 201, "{created:?}");
    let bot = created.json::<hubbub_protocol::http::Bot>().id;
    let mut device = Device::connect(server).await;
    let session = device.open(bot).await.session;
    drop(device.ask(session, "how many?").await);
    let page = caller
        .get(&format!("/v1/sessions/{session}/messages?after=0"))
        .await;
    assert_eq!(page.status, 200, "{page:?}");
    page.json()
}

/// What is wrong with a stored session, if anything.
fn wrong(shape: &Shape, page: &Value, requests: u32) -> Option<String> {
    let (messages, ended) = (&page["messages"], &page["ended"]);
    let answer = &messages[1];
    let is_answered = shape.is_good() && !shape.text.trim().is_empty();
    let (found, expected) = if is_answered {
        let cut = if shape.end == "length" {
            json!("length")
        } else {
            Value::Null
        };
        let found = json!([answer["text"], answer["cut"], ended[0]]);
        (found, json!([shape.text, cut, null]))
    } else {
        let reason = match shape.end.as_str() {
            "complete" | "length" => json!("empty"),
            "filtered" => json!("filtered"),
            _ if !shape.text.is_empty() => json!("cut"),
            _ => Value::Null,
        };
        let end = &ended[0];
        let found = json!([end["state"], end["text"], end["error"]["reason"], answer]);
        (found, json!(["failed", shape.text, reason, null]))
    };
    let is_final = shape.is_good()
        || !shape.text.is_empty()
        || ["filtered", "refused", "misconfigured"].contains(&shape.end.as_str());
    let is_right = found == expected && (requests == 1 || (!is_final && requests > 1));
    (!is_right).then(|| {
        format!(
            "{}: {requests} requests, {found}, not {expected}",
            shape.name
        )
    })
}

// M1, M2, M3, M4, M5, M6, M7, M8, M9, M14
#[tokio::test]
async fn every_shape_has_one_end_that_is_read_back_and_is_asked_for_once_if_it_was_answered() {
    // A server for each dialect.
    for api in [Api::OpenAi, Api::Anthropic, Api::Ollama] {
        let shapes = Shape::all().into_iter().filter(|shape| shape.api == api);
        every_one_has_one_end(shapes.collect()).await;
    }
}

async fn every_one_has_one_end(shapes: Vec<Shape>) {
    let peer = Arc::new(Peer::start(&shapes).await);
    let server = Arc::new(start(&shapes, &peer).await);
    let (mut asking, mut faults) = (tokio::task::JoinSet::new(), Vec::new());
    for shape in shapes {
        if asking.len() >= AT_ONCE {
            faults.extend(asking.join_next().await.unwrap().unwrap());
        }
        let (server, peer) = (Arc::clone(&server), Arc::clone(&peer));
        asking.spawn(async move {
            let page = asked(&server, &shape).await;
            wrong(&shape, &page, peer.requests(&shape.name))
        });
    }
    while let Some(fault) = asking.join_next().await {
        faults.extend(fault.unwrap());
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
