//! A device that does not read.

use std::time::{Duration, Instant};

use hubbub_protocol::{ClientMessageId, ServerFrame};

use crate::client::{Caller, Device, message, of};
use crate::raw::{Raw, Received, TEXT};
use crate::resume::Held;
use crate::server::{Setup, TestServer, shared};

const MESSAGES: u64 = 400;
const TEXT_BYTES: usize = 4_000;

async fn open_connections(server: &TestServer) -> usize {
    let metrics = Caller::with(server, None).get("/metrics").await.text;
    let mut lines = metrics.lines();
    let line = lines.find_map(|line| line.strip_prefix("hubbub_connections_open "));
    line.unwrap().parse().unwrap()
}

// P6
#[tokio::test]
async fn a_device_that_does_not_read_costs_only_itself_is_cut_and_resumes() {
    let setup = Setup::new()
        .set("limits.messages_per_second", 100_000)
        .set("limits.messages_burst", 100_000)
        .set("session.stalled_device_ms", 4_000);
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let bot = Caller::new(&server).bot(&[]).await;
    let mut fast = Device::connect(&server).await;
    let session = fast.open(bot).await.session;
    let mut slow = Raw::connect(server.address, &server.demo.api_key, Some(4_096)).await;
    let join = format!(r#"{{"type":"join","ref":"j","session":"{session}"}}"#);
    slow.frame(TEXT, join.as_bytes()).await;
    loop {
        let Received::Frame(frame) = slow.next().await else {
            panic!("not joined")
        };
        if matches!(*frame, ServerFrame::Joined(_)) {
            break;
        }
    }
    assert_eq!(open_connections(&server).await, 2);
    let before = server.rss_kib();

    // From here on nothing is read from `slow`.
    let started = Instant::now();
    let text = "x".repeat(TEXT_BYTES);
    let mut worst = Duration::ZERO;
    for n in 1..=MESSAGES {
        let sent = Instant::now();
        let id = ClientMessageId::generate();
        fast.send(&message(session, id, &text, None)).await.unwrap();
        assert_eq!(fast.next_message().await.seq.0, n);
        worst = worst.max(sent.elapsed());
    }
    let grown = server.rss_kib().saturating_sub(before);
    println!(
        "{MESSAGES} messages in {:?}, the slowest {worst:?}; {grown} KiB",
        started.elapsed()
    );
    assert!(
        worst < Duration::from_secs(2),
        "the fast device waited {worst:?}"
    );
    while open_connections(&server).await == 2 {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "the slow device is still there"
        );
        fast.say(session, &text).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("cut after {:?}", started.elapsed());

    // It learns why, or by the reset, that it was too slow.
    let ending = loop {
        match slow.next().await {
            Received::Frame(_) => {}
            Received::Close(code) => break Some(code),
            Received::End => break None,
        }
    };
    assert!(matches!(ending, Some(4008) | None), "{ending:?}");

    // It comes back with what it had read: nothing.
    let mut again = Device::connect(&server).await;
    let mut held = Held::default();
    loop {
        let joined = again.try_join(held.join(session)).await.unwrap();
        let (more, head) = (joined.more, joined.head.0);
        held.resumed(joined);
        if held.messages.len() as u64 == head {
            assert!(!more);
            break;
        }
    }
    assert!(held.messages.len() as u64 >= MESSAGES);
    assert_eq!(
        Caller::new(&server).transcript(session).await.messages,
        held.messages
    );
    // The fast one never noticed.
    fast.say(session, "end").await.unwrap();
    fast.try_join(of(session)).await.unwrap();
}

// R002, P6
#[tokio::test]
async fn a_device_that_pauses_is_not_cut_and_misses_nothing() {
    let server = shared().await;
    let bot = Caller::new(server).bot(&[]).await;
    let mut fast = Device::connect(server).await;
    let session = fast.open(bot).await.session;
    let mut pausing = Device::connect(server).await;
    pausing.join(session).await;
    // More than sockets, mailboxes and the feed hold, in less time than a device may stand still.
    let text = "x".repeat(TEXT_BYTES);
    let started = Instant::now();
    let mut sent = 0;
    while sent < MESSAGES && started.elapsed() < Duration::from_secs(5) {
        fast.say(session, &text).await.unwrap();
        sent += 1;
    }
    for expected in 1..=sent {
        assert_eq!(pausing.next_message().await.seq.0, expected);
    }
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_gone_and_one_that_does_stays() {
    let setup = Setup::new().set("session.heartbeat_ms", 1_000);
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let mut silent = Raw::connect(server.address, &server.demo.api_key, None).await;
    let mut device = Device::connect(&server).await;
    assert_eq!(device.welcome.heartbeat_ms, 1_000);
    let started = Instant::now();
    // Answers pings while it reads, as every library does.
    let reading = tokio::spawn(async move { device.next().await });
    while matches!(silent.next().await, Received::Frame(_)) {}
    let silence = started.elapsed();
    println!("cut after {silence:?} of silence");
    assert!(silence > Duration::from_secs(2) && silence < Duration::from_secs(12));
    assert_eq!(open_connections(&server).await, 1);
    assert!(!reading.is_finished());
    reading.abort();
}

#[tokio::test]
async fn a_request_that_does_not_come_to_its_end_is_not_waited_for() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = crate::server::shared().await;
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    stream
        .write_all(b"GET /v1/bots HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    crate::client::in_time(stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
}
