//! Whoever sends more than it may on a connection is held back, told or closed, before it costs others
//! anything; whoever does not is served.

use std::time::{Duration, Instant};

use hubbub_protocol::{ClientMessageId, ErrorCode, ServerFrame};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Caller, DEADLINE, message};
use crate::raw::{Raw, Received, TEXT, masked};
use crate::server::{Setup, TestServer};
use crate::visitors::{connect, start, token};

/// Writes the same bytes again and again until the server does not want any more; how the connection
/// ended, and how much of it was taken.
async fn flood(server: &TestServer, token: &str, bytes: Vec<u8>) -> (u16, usize) {
    let mut raw = Raw::connect(server.address, token, None).await;
    let mut write = raw.writer();
    let writing = tokio::spawn(async move {
        let mut taken = 0;
        // From where it was interrupted, or the frames would not be frames.
        while let Ok(written) = write.write(&bytes[taken % bytes.len()..]).await {
            taken += written;
        }
        taken
    });
    let code = loop {
        match raw.next().await {
            Received::Frame(_) => {}
            Received::Close(code) => break code,
            Received::End => break 0,
        }
    };
    drop(raw);
    let taken = tokio::time::timeout(DEADLINE, writing).await;
    (code, taken.expect("still taken after the end").unwrap())
}

// X10
#[tokio::test]
async fn whatever_comes_at_line_rate_is_held_back_and_closed_and_costs_no_memory() {
    let server = start(Setup::new()).await;
    let bot = server.demo.bot;
    let token = token(&server, bot).await;
    let session = connect(&server, &token).await.open(bot).await.session;
    let typing = format!(r#"{{"type":"typing","session":"{session}","on":true}}"#);
    let half = [masked(0x01, b"{"), masked(0x00, b"").repeat(1_000)].concat();
    let kinds = [
        ("empty pongs", masked(0x8a, b"").repeat(10_000)),
        ("full pongs", masked(0x8a, &[b'x'; 125]).repeat(1_000)),
        ("pings", masked(0x89, b"x").repeat(10_000)),
        ("empty pieces", half),
        ("typing", masked(TEXT, typing.as_bytes()).repeat(500)),
        ("nonsense", masked(TEXT, b"{").repeat(5_000)),
        ("large frames", masked(TEXT, &vec![b' '; 65_000]).repeat(4)),
    ];
    let before = server.rss_kib();
    // Each by a visitor of its own: one would find its other connections refused for the first one's sake.
    let mut flooding = Vec::new();
    for (kind, bytes) in kinds {
        let flooder = crate::visitors::token(&server, bot).await;
        let server = &server;
        flooding.push(async move { (kind, flood(server, &flooder, bytes).await) });
    }
    let flooding = futures_util::future::join_all(flooding);
    let mut most = before;
    let watching = async {
        loop {
            let live = Caller::with(&server, None).get("/livez").await;
            assert_eq!(live.status, 200);
            most = most.max(server.rss_kib());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let ended = tokio::select! {
        ended = flooding => ended,
        () = watching => unreachable!(),
    };
    for (kind, (code, taken)) in ended {
        println!("{kind}: {code}, {taken} bytes taken");
        assert_eq!(code, 1008, "{kind}");
        // What the rate allows in its time, and what the buffers in between hold.
        assert!(taken < 16 * 1024 * 1024, "{kind}: {taken} bytes");
    }
    let grown = most - before;
    assert!(grown < 32 * 1024, "{grown} KiB");
}

// X10
#[tokio::test]
async fn errors_that_a_flooding_client_does_not_read_do_not_pile_up() {
    let server = start(Setup::new()).await;
    let token = token(&server, server.demo.bot).await;
    let before = server.rss_kib();
    let mut raws = Vec::new();
    for _ in 0..10 {
        raws.push(Raw::connect(server.address, &token, Some(4_096)).await);
    }
    let frames = masked(TEXT, br#"{"type":"dance"}"#).repeat(1_000);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        for raw in &raws {
            let _held_back = raw.stream.try_write(&frames);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB");
    connect(&server, &server.demo.api_key)
        .await
        .assert_works()
        .await;
}

// X10
#[tokio::test]
async fn an_honest_burst_is_served_whole() {
    let server = start(Setup::new().set("limits.messages_burst", 200)).await;
    let bot = Caller::new(&server).bot(&[]).await;
    let mut device = connect(&server, &server.demo.api_key).await;
    // A page that comes back joins all it had, and says what it has to say.
    let mut sessions = Vec::new();
    for _ in 0..31 {
        sessions.push(device.open(bot).await.session);
    }
    let text = "界".repeat(16_000);
    let mut awaited = 0;
    for session in &sessions {
        let typing = format!(r#"{{"type":"typing","session":"{session}","on":true}}"#);
        device.send_raw(Message::text(typing)).await.unwrap();
        device.send_raw(Message::Ping("x".into())).await.unwrap();
        if awaited < 8 {
            let large = message(*session, ClientMessageId::generate(), &text, None);
            device.send(&large).await.unwrap();
            awaited += 1;
        }
    }
    for _ in 0..awaited {
        let acked = device.until(|frame| match frame {
            ServerFrame::Ack(_) => Some(()),
            ServerFrame::Error(error) => panic!("{error:?}"),
            _ => None,
        });
        acked.await;
    }
    device.assert_works().await;
}

// X10
#[tokio::test]
async fn who_heeds_no_refusal_is_closed() {
    let server = start(Setup::new()).await;
    let mut device = connect(&server, &server.demo.api_key).await;
    let session = device.open(server.demo.bot).await.session;
    let typing = format!(r#"{{"type":"typing","session":"{session}","on":true}}"#);
    for _ in 0..1_000 {
        if device
            .send_raw(Message::text(typing.clone()))
            .await
            .is_err()
        {
            break;
        }
    }
    let mut told = 0;
    let gone = loop {
        match device.next().await {
            Ok(ServerFrame::Error(refused)) => {
                assert_eq!(refused.error.code, ErrorCode::RateLimited);
                told += 1;
            }
            Ok(_) => {}
            Err(gone) => break gone,
        }
    };
    assert_eq!(gone, crate::client::Gone::Closed(1008));
    assert!((100..200).contains(&told), "told {told} times");
}
