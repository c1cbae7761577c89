//! PostgreSQL dies under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hubbub_protocol::{ClientMessageId, ErrorCode, SessionId};
use tokio::task::JoinSet;

use crate::client::{Caller, Device};
use crate::server::{Setup, TestServer, send_signal};

const WRITERS: usize = 20;
const MESSAGES: usize = 60;

/// What a writer met.
struct Written {
    session: SessionId,
    /// Seq and text of everything acknowledged.
    acknowledged: Vec<(u64, String)>,
    refusals: Vec<ErrorCode>,
}

// P2
#[tokio::test]
async fn a_database_that_dies_under_load_is_typed_recovered_from_and_loses_nothing() {
    for signal in ["QUIT", "KILL"] {
        let setup = Setup::new().set("limits.messages_per_second", 1_000);
        let setup = setup.set("limits.messages_burst", 1_000);
        let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
        outage(Arc::new(server), signal).await;
    }
}

async fn outage(server: Arc<TestServer>, signal: &str) {
    let bot = Caller::new(&server).bot(&[]).await;
    let (recovered, written) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let mut device = Device::connect(&server).await;
        let session = device.open(bot).await.session;
        writers.spawn(write(device, session, recovered.clone(), written.clone()));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while written.load(Ordering::Relaxed) < WRITERS * 5 {
        assert!(Instant::now() < deadline, "the load does not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    send_signal(server.database_pid().unwrap(), signal);
    let (died, watch) = (Instant::now(), Caller::with(&server, None));
    let mut unready = None;
    loop {
        let asked = Instant::now();
        let (live, ready) = tokio::join!(watch.get("/livez"), watch.get("/readyz"));
        assert_eq!(live.status, 200);
        // The promise is 2 s; what is above it is this machine's.
        assert!(
            asked.elapsed() < Duration::from_millis(2_500),
            "{:?}",
            asked.elapsed()
        );
        match (ready.status, unready) {
            (503, None) => {
                println!("{signal}: not ready after {:?}", died.elapsed());
                assert!(died.elapsed() < Duration::from_secs(2), "told too late");
                unready = Some(died.elapsed());
            }
            (200, Some(_)) => break,
            (200 | 503, _) => {}
            other => panic!("{other:?}"),
        }
        assert!(
            unready.is_some() || died.elapsed() < Duration::from_secs(3),
            "never told"
        );
        assert!(died.elapsed() < Duration::from_secs(30), "not recovered");
    }
    println!("{signal}: ready again after {:?}", died.elapsed());
    recovered.store(true, Ordering::Relaxed);
    let caller = Caller::new(&server);
    let mut refusals = Vec::new();
    while let Some(writer) = writers.join_next().await {
        let writer = writer.unwrap();
        let stored = caller.transcript(writer.session).await.messages;
        assert_eq!(
            stored.len(),
            writer.acknowledged.len(),
            "stored twice, or not at all"
        );
        for (message, (seq, text)) in stored.iter().zip(&writer.acknowledged) {
            assert_eq!((message.seq.0, &message.text), (*seq, text));
        }
        refusals.extend(writer.refusals);
    }
    println!(
        "{signal}: {} refusals, all done after {:?}",
        refusals.len(),
        died.elapsed()
    );
    let is_expected =
        |code: &ErrorCode| matches!(code, ErrorCode::Unavailable | ErrorCode::Overloaded);
    assert!(refusals.iter().all(is_expected), "{refusals:?}");
    // Chats go on as well.
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    device.ask(session, "are you back?").await.unwrap();
}

/// Writes on, the same id again after every refusal, until all is stored and the database is back.
async fn write(
    mut device: Device,
    session: SessionId,
    recovered: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
) -> Written {
    let (mut acknowledged, mut refusals) = (Vec::new(), Vec::new());
    let mut n = 0;
    while n < MESSAGES || !recovered.load(Ordering::Relaxed) {
        let (id, text) = (ClientMessageId::generate(), format!("message {n}"));
        loop {
            match device.say_as(session, id, &text).await {
                Ok(ack) => {
                    acknowledged.push((ack.seq.0, text));
                    written.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(refused) => {
                    refusals.push(refused.error.code);
                    // As told; the pace of a client, not a wait for something.
                    let wait = refused.error.retry_after_ms.unwrap_or(100).min(500);
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
            }
        }
        n += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Written {
        session,
        acknowledged,
        refusals,
    }
}
