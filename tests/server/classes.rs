//! Classes: answers that somebody waits for, and answers that have time.

use std::time::Duration;

use hubbub_protocol::ErrorCode;
use hubbub_protocol::http::Session;
use serde_json::json;

use crate::client::{Caller, Credentials, Device};
use crate::scripted::{Scripted, events, finish, text};
use crate::server::Setup;

// R020
#[tokio::test]
async fn what_a_visitor_asks_goes_before_two_hundred_requests_of_a_program() {
    let upstream = Scripted::start(|_, _| {
        let mut script = events(&[&text("Yes."), &finish("stop"), "[DONE]"]);
        script.insert(0, (Duration::from_millis(100), String::new()));
        script
    })
    .await;
    let config = upstream.config("one").replace(" }", ", slots = 1 }");
    let setup = Setup::default()
        .set("upstreams", format!("[{config}]"))
        .set("llm.queue_len", 500)
        .set("llm.queue_wait_ms", 300_000)
        .set("limits.messages_per_second", 10_000)
        .set("limits.messages_burst", 10_000)
        .set("limits.sessions_per_minute_per_ip", 10_000);
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let caller = Caller::new(&server);
    let bot = server.demo.bot;
    for _ in 0..220 {
        let opened = caller.post("/v1/sessions", &json!({"bot": bot})).await;
        let session = opened.json::<Session>().id;
        let path = format!("/v1/sessions/{session}/messages");
        let body = json!({"text": "a program asks", "class": "batch"});
        assert_eq!(caller.post(&path, &body).await.status, 201);
    }
    let metrics = caller.get("/metrics").await.text;
    let depth = "hubbub_llm_queue_length{class=\"batch\"} ";
    let depth = metrics.lines().find_map(|line| line.strip_prefix(depth));
    let depth: f64 = depth.unwrap().parse().unwrap();
    println!("{depth} wait");
    assert!(depth >= 150.0, "{depth} wait");

    let (_, token) = caller.visitor(bot).await;
    let credentials = Credentials::Bearer(token.clone());
    let mut device = Device::connect_as(server.address, &credentials)
        .await
        .unwrap();
    let session = device.open(bot).await.session;
    let before = upstream.requests().len();
    device.ask(session, "a visitor asks").await.unwrap();
    let asked = |request: &serde_json::Value| request.to_string().contains("a visitor asks");
    let requests = upstream.requests();
    let at = requests.iter().position(asked).unwrap();
    assert!(at <= before + 1, "{at} after {before}: it starts next");

    let path = format!("/v1/sessions/{session}/messages");
    let body = json!({"text": "hi", "class": "batch"});
    let refused = Caller::with(&server, Some(&token)).post(&path, &body).await;
    assert_eq!(refused.problem().code, ErrorCode::Forbidden);
    let body = json!({"text": "hi", "class": "soon"});
    let problem = caller.post(&path, &body).await.problem();
    assert_eq!(problem.errors[0].pointer.as_deref(), Some("/class"));
}
