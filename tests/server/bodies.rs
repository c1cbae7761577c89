//! Bodies that do not come, come slowly, or are not what they seem.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hubbub_protocol::ErrorCode;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::client::{Caller, Device, in_time};
use crate::plain::{Plain, exchange};
use crate::server::{Setup, TestServer, quick, shared};

async fn start(setup: Setup) -> TestServer {
    tokio::task::spawn_blocking(|| setup.start()).await.unwrap()
}

/// Zeros, packed as small as they get.
fn gzip(bytes: usize) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .args(["-9", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || stdin.write_all(&vec![0; bytes]).unwrap());
    let packed = child.wait_with_output().unwrap().stdout;
    writing.join().unwrap();
    packed
}

/// Resident memory of a process, in KiB.
fn memory(server: &TestServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

// X6
#[tokio::test]
async fn nothing_is_unpacked_for_anybody() {
    const BOMB: usize = 50_000_000;
    let server = start(Setup::new()).await;
    let bomb = tokio::task::spawn_blocking(|| gzip(BOMB)).await.unwrap();
    assert!(bomb.len() < 60_000, "{} bytes", bomb.len());
    let session = crate::http::open(&Caller::new(&server), server.demo.bot).await;
    let widget = format!("/v1/widget/{}/tickets", server.demo.bot);
    let messages = format!("/v1/sessions/{session}/messages");
    let bot = format!("/v1/bots/{}", server.demo.bot);
    let paths = [
        "/v1/tickets",
        "/v1/bots",
        "/v1/sessions",
        &messages,
        &widget,
    ];
    let before = memory(&server);
    let mut asked = tokio::task::JoinSet::new();
    let key = Some(server.demo.api_key.as_str());
    for (path, token) in paths
        .into_iter()
        .flat_map(|path| [(path, key), (path, None)])
        .cycle()
        .take(20)
    {
        for encoding in ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, identity"] {
            let request = Caller::with(&server, token).request("POST", path);
            let request = request
                .header("content-type", "application/json")
                .header("content-encoding", encoding)
                .body(bomb.clone());
            let may_be_known = token.is_some() || path == widget;
            let path = path.to_owned();
            asked.spawn(async move {
                let answer = Caller::try_send(request).await.unwrap();
                let expected = if may_be_known {
                    ErrorCode::UnsupportedMedia
                } else {
                    ErrorCode::Unauthorized
                };
                assert_eq!(answer.problem().code, expected, "{path} {encoding}");
            });
        }
    }
    let asked = asked.join_all().await.len();
    let grown = memory(&server).saturating_sub(before);
    println!("{asked} bodies of {} bytes: {grown} KiB more", bomb.len());
    // One of them unpacked would be 49,000.
    assert!(grown < 40_000, "{grown} KiB");
    let patch = Caller::new(&server).request("PATCH", &bot);
    let patch = patch.header("content-encoding", "gzip").body(bomb);
    assert_eq!(Caller::try_send(patch).await.unwrap().status, 415);
    // What is not packed may say so.
    let plain = Caller::new(&server).request("POST", "/v1/sessions");
    let plain = plain.header("content-encoding", "identity");
    let plain = plain.json(&json!({"bot": server.demo.bot}));
    assert_eq!(Caller::try_send(plain).await.unwrap().status, 201);
}

/// The head of a request whose body is announced, and the body's beginning.
fn half(path: &str, token: Option<&str>, framing: &str, beginning: &str) -> String {
    let token = token.map_or(String::new(), |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{token}{framing}\r\n\r\n\
         {beginning}"
    )
}

// X9
#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_on_every_route() {
    let server = shared().await;
    let caller = Caller::new(server);
    let session = crate::http::open(&caller, server.demo.bot).await;
    let key = Some(server.demo.api_key.as_str());
    let (length, chunked) = ("Content-Length: 10000", "Transfer-Encoding: chunked");
    let widget = format!("/v1/widget/{}/tickets", server.demo.bot);
    let messages = format!("/v1/sessions/{session}/messages");
    let mut waiting = tokio::task::JoinSet::new();
    for (path, token, expected) in [
        (widget.as_str(), None, 408),
        ("/v1/tickets", key, 408),
        ("/v1/bots", key, 408),
        ("/v1/sessions", key, 408),
        (&messages, key, 408),
        // Not read at all, and closed upon.
        ("/v1/bots", None, 401),
        ("/livez", None, 404),
        ("/nothing", None, 404),
    ] {
        for (framing, beginning) in [
            (length, ""),
            (length, "{"),
            (chunked, ""),
            (chunked, "1\r\n{\r\n"),
        ] {
            // Where bodies are not read, what comes in pieces is passed over for a while.
            if expected == 404 && framing == chunked {
                continue;
            }
            let request = half(path, token, framing, beginning);
            let path = path.to_owned();
            let address = server.address;
            waiting.spawn(async move {
                let began = Instant::now();
                let mut plain = Plain::send(address, request).await;
                let answer = plain.answer().await.expect("closed without an answer");
                // Another method of a known path may be told by another status.
                let is_expected =
                    answer.status == expected || (expected == 404 && answer.status == 405);
                assert!(is_expected, "{path} {framing} {beginning:?}: {answer:?}");
                plain.closed().await;
                (path, began.elapsed())
            });
        }
    }
    for (path, took) in waiting.join_all().await {
        println!("{path}: closed after {took:?}");
    }
}

// X9
#[tokio::test]
async fn a_body_in_drops_is_given_up_and_one_in_a_slow_stream_is_read() {
    let server = shared().await;
    let widget = format!("/v1/widget/{}/tickets", server.demo.bot);
    let mut drops = Plain::send(
        server.address,
        half(&widget, None, "Content-Length: 10000", ""),
    )
    .await;
    let (mut reading, mut writing) = drops.stream.into_split();
    let dripping = tokio::spawn(async move {
        while writing.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let mut answer = [0; 12];
    in_time(tokio::io::AsyncReadExt::read_exact(
        &mut reading,
        &mut answer,
    ))
    .await
    .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    dripping.abort();

    // Eight seconds for 8 KB: longer than silence would have been borne.
    let body = format!("{{{}}}", " ".repeat(8_000));
    let length = format!("Content-Length: {}", body.len());
    drops = Plain::send(server.address, half(&widget, None, &length, "")).await;
    for piece in body.as_bytes().chunks(500) {
        drops.stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let answer = drops.answer().await.unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
}

/// How long `/livez` takes for somebody new: usually, and at worst of so many times.
async fn livez(server: &TestServer, times: u32) -> (Duration, Duration) {
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        let answer = exchange(server.address, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() - 1])
}

// X9
#[tokio::test]
async fn more_half_requests_than_open_files_lock_nobody_out() {
    let setup = Setup::default().upstream("sim", quick()).open_files(1_000);
    let server = start(setup).await;
    let bot = server.demo.bot;
    let widget = format!("/v1/widget/{bot}/tickets");
    let mut early = Device::connect(&server).await;
    let session = early.open(bot).await.session;
    let (quiet, _) = livez(&server, 10).await;
    for (what, bytes) in [
        (
            "half posts",
            half(&widget, None, "Content-Length: 10000", "{"),
        ),
        (
            "half posts in chunks",
            half(&widget, None, "Transfer-Encoding: chunked", "1\r\n{\r\n"),
        ),
        ("silence", String::new()),
        (
            "half heads",
            "GET /livez HTTP/1.1\r\nHost: x\r\n".to_owned(),
        ),
        (
            "second heads",
            "GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HT".to_owned(),
        ),
        (
            "idle connections",
            "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        ),
    ] {
        let began = Instant::now();
        let mut held = Vec::new();
        for _ in 0..1_200 {
            held.push(Plain::send(server.address, &bytes).await);
        }
        let opened = began.elapsed();
        let (usual, worst) = livez(&server, 20).await;
        println!(
            "{what}: 1,200 in {opened:?}, /livez within {usual:?}, at worst {worst:?} (quiet: {quiet:?})"
        );
        // The machine that runs the tests may be busy with others: that is no lock-out.
        assert!(usual < Duration::from_millis(250), "{what}: {usual:?}");
        assert!(worst < Duration::from_secs(3), "{what}: {worst:?}");
        // Who is there stays, and others come.
        early.ask(session, "still there?").await.unwrap();
        let (ticket, _) = Caller::with(&server, None).visitor(bot).await;
        let mut late = crate::auth::connect(&server, &ticket).await;
        late.open(bot).await;
        late.close().await;
        drop(held);
    }
}

// X9
#[tokio::test]
async fn websockets_leave_room_for_requests() {
    let server = start(Setup::new().open_files(300)).await;
    let mut devices = Vec::new();
    let refused = loop {
        let key = crate::client::Credentials::Bearer(server.demo.api_key.clone());
        match Device::connect_as(server.address, &key).await {
            Ok(device) => devices.push(device),
            Err(tokio_tungstenite::tungstenite::Error::Http(refused)) => break refused.status(),
            Err(other) => panic!("{other}"),
        }
        assert!(devices.len() < 300, "as many as there are files");
    };
    println!("{} connections with 300 files", devices.len());
    assert_eq!(refused, 503);
    assert!(devices.len() > 100);
    livez(&server, 3).await;
    devices.pop().unwrap().assert_works().await;
}
