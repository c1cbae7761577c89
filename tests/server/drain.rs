//! The server asked to stop.

use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::Behaviour;
use hubbub_protocol::{ErrorCode, ServerFrame};

use crate::client::{Caller, Device, Gone};
use crate::crash::{Acknowledged, CONNECTIONS, assert_kept, start_chats};
use crate::server::{Setup, TestServer, quick};

async fn start(behaviour: Behaviour) -> TestServer {
    let setup = Setup::default().upstream("sim", behaviour);
    let setup = setup
        .set("limits.messages_per_second", 1_000)
        .set("limits.messages_burst", 1_000);
    tokio::task::spawn_blocking(|| setup.start()).await.unwrap()
}

/// Waits for the exit, in time, beside what the test's tasks still do.
async fn exit(mut server: TestServer) -> (TestServer, Option<i32>) {
    tokio::task::spawn_blocking(move || {
        let status = server.wait(Duration::from_secs(25));
        (server, status.code())
    })
    .await
    .unwrap()
}

async fn restart(mut server: TestServer) -> TestServer {
    tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .unwrap()
}

// R008, P10
#[tokio::test]
async fn sigterm_says_bye_to_everybody_keeps_what_was_accepted_and_exits_0() {
    // Slow enough that replies run when it comes.
    let server = start(Behaviour {
        token_interval_ms: 60,
        ..quick()
    })
    .await;
    let mut chats = start_chats(&server, CONNECTIONS).await;
    let mut idle = Device::connect(&server).await;
    let session = idle.open(server.demo.bot).await.session;
    idle.say(session, "wait for a word").await.unwrap();
    idle.until(|frame| matches!(frame, ServerFrame::Delta(_)).then_some(()))
        .await;

    server.signal("TERM");
    let told = Instant::now();
    let bye = idle.until(|frame| match frame {
        ServerFrame::Bye(bye) => Some(bye),
        _ => None,
    });
    let bye = bye.await;
    assert_eq!(bye.reason, "draining");
    assert!(bye.reconnect_after_ms <= 5_000);
    assert_eq!(idle.end().await, Gone::Closed(1001));
    let mut acknowledged = Acknowledged::new();
    while let Some(chat) = chats.join_next().await {
        let (acked, gone) = chat.unwrap();
        assert_eq!(gone, Gone::Closed(1001));
        acknowledged.extend(acked);
    }
    println!("everybody was told after {:?}", told.elapsed());
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
    let (server, code) = exit(server).await;
    println!("exit after {:?}", told.elapsed());
    assert_eq!(code, Some(0), "{}", server.log());
    assert_eq!(server.database_pid(), None, "its PostgreSQL still runs");

    // Replies had the time to end: none is left for the next start to find.
    let server = restart(server).await;
    let (questions, failed) = assert_kept(&server, &acknowledged).await;
    println!("{questions} questions, {failed} of their replies ended without a message");
    assert!(questions >= 200);
    assert_eq!(failed, 0, "short replies were cut off");
}

// R008, P10
#[tokio::test]
async fn replies_that_take_too_long_for_a_drain_are_ended_and_the_exit_is_in_time() {
    let server = start(Behaviour {
        token_interval_ms: 1_000,
        tokens: 1_000,
        ..quick()
    })
    .await;
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    device.say(session, "endless").await.unwrap();
    device
        .until(|frame| matches!(frame, ServerFrame::Delta(_)).then_some(()))
        .await;
    server.signal("TERM");
    let told = Instant::now();
    assert_eq!(device.end().await, Gone::Closed(1001));
    let (server, code) = exit(server).await;
    println!("exit after {:?}", told.elapsed());
    assert_eq!(code, Some(0), "{}", server.log());
    let server = restart(server).await;
    let page = Caller::new(&server).transcript(session).await;
    assert_eq!((page.messages.len(), page.ended.len()), (1, 1), "{page:?}");
    assert!(!page.ended[0].text.is_empty(), "what was written is lost");
}

#[tokio::test]
async fn a_draining_server_takes_no_one_new_and_says_so() {
    let server = start(Behaviour {
        token_interval_ms: 200,
        ..quick()
    })
    .await;
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    device.say(session, "five seconds").await.unwrap();
    device
        .until(|frame| matches!(frame, ServerFrame::Delta(_)).then_some(()))
        .await;
    // Kept open, as a balancer's: new sockets are not accepted any more.
    let caller = Caller::new(&server);
    assert_eq!(caller.get("/readyz").await.status, 200);
    server.signal("TERM");
    assert_eq!(device.end().await, Gone::Closed(1001));
    let ready = caller.get("/readyz").await;
    assert_eq!(ready.status, 503);
    let body: serde_json::Value = ready.json();
    assert_eq!(body["draining"], true);
    let connect = caller.get("/v1/connect").await;
    assert_eq!(connect.problem().code, ErrorCode::Unavailable);
    let (_, code) = exit(server).await;
    assert_eq!(code, Some(0));
}
