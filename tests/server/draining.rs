//! What a server that stops says to those who ask it meanwhile.

use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::Behaviour;
use hubbub_protocol::{ErrorCode, ServerFrame};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;

use crate::client::{Caller, Credentials, Device, Gone, Response};
use crate::server::{Setup, TestServer, quick};

/// Answers take five seconds: that long a drain lasts.
async fn start() -> TestServer {
    let slow = Behaviour {
        token_interval_ms: 200,
        ..quick()
    };
    let setup = Setup::default().upstream("sim", slow);
    tokio::task::spawn_blocking(|| setup.start()).await.unwrap()
}

/// Asks on a connection of its own, as a balancer's probe does, and is let go afterwards.
async fn probe(server: &TestServer, method: &str, path: &str) -> Response {
    let caller = Caller::new(server);
    let request = caller.request(method, path).json(&json!({"text": "x"}));
    let answer = Caller::try_send(request).await.unwrap();
    assert_eq!(answer.headers["connection"], "close", "{answer:?}");
    answer
}

// R008, P10
#[tokio::test]
async fn a_draining_server_answers_who_asks_finishes_what_it_began_and_begins_nothing() {
    let mut server = start().await;
    let caller = Caller::new(&server);
    let session = crate::http::open(&caller, server.demo.bot).await;
    let path = format!("/v1/sessions/{session}/messages");
    let body = json!({"text": "five seconds", "stream": true});
    let stream = caller.request("POST", &path).json(&body).send();
    let mut stream = stream.await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some(), "it is answered");
    let mut device = Device::connect(&server).await;

    server.signal("TERM");
    assert_eq!(device.end().await, Gone::Closed(1001));
    let told = Instant::now();
    let ready = probe(&server, "GET", "/readyz").await;
    assert!(told.elapsed() < Duration::from_secs(1), "not at once");
    assert_eq!(ready.status, 503);
    let ready: Value = ready.json();
    assert_eq!(
        ready,
        json!({"ready": false, "database": "ok", "draining": true})
    );
    assert_eq!(probe(&server, "GET", "/livez").await.status, 200);
    let shown = probe(&server, "GET", &format!("/v1/sessions/{session}")).await;
    assert_eq!(shown.status, 200, "reading begins nothing");
    let bot = format!("/v1/widget/{}/tickets", server.demo.bot);
    for path in [&path, "/v1/sessions", "/v1/bots", "/v1/tickets", &bot] {
        let refused = probe(&server, "POST", path).await;
        let problem = refused.problem();
        assert_eq!(problem.code, ErrorCode::Unavailable, "{path}");
        assert!(problem.retry_after_ms.is_some() && refused.headers.contains_key("retry-after"));
    }
    let key = Credentials::Bearer(server.demo.api_key.clone());
    match Device::connect_as(server.address, &key).await {
        Err(tungstenite::Error::Http(refused)) => {
            assert_eq!(refused.status(), 503);
            assert!(refused.headers().contains_key("retry-after"));
        }
        other => panic!("not refused: {:?}", other.err()),
    }

    let mut rest = Vec::new();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        rest.extend(chunk);
    }
    let rest = String::from_utf8(rest).unwrap();
    let last = rest
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .next_back();
    let last = serde_json::from_str::<ServerFrame>(last.unwrap()).unwrap();
    assert!(matches!(last, ServerFrame::Message(_)), "{last:?}");
    let exit = tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(25)));
    assert_eq!(exit.await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_request_whose_rest_never_comes_does_not_hold_a_drain_up() {
    let mut server = tokio::task::spawn_blocking(|| Setup::new().start())
        .await
        .unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let key = &server.demo.api_key;
    let head = format!(
        "POST /v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Its handler waits for the body once it is told to go on.
    let mut told = [0; 25];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.signal("TERM");
    let asked = Instant::now();
    let exit = tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(25)));
    assert_eq!(exit.await.unwrap().code(), Some(0));
    println!("exit after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(12));
}
