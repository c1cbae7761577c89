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
async fn a_database_that_dies_under_load_is_recovered_from_and_loses_nothing() {
    let server = start().await;
    outage(server, Blow::Kill).await;
}

// P2
#[tokio::test]
async fn a_database_that_stays_away_is_told_by_type_and_recovered_from_when_it_is_back() {
    let server = start().await;
    outage(server, Blow::StayAway).await;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    /// Killed as by the kernel; it can be started again at once.
    Kill,
    /// Ended, and unable to start until writers have been told.
    StayAway,
}

async fn start() -> Arc<TestServer> {
    let setup = Setup::new().set("limits.messages_per_second", 1_000);
    let setup = setup.set("limits.messages_burst", 1_000);
    Arc::new(tokio::task::spawn_blocking(|| setup.start()).await.unwrap())
}

async fn outage(server: Arc<TestServer>, blow: Blow) {
    let bot = Caller::new(&server).bot(&[]).await;
    let progress = Arc::new(Progress::default());
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let mut device = Device::connect(&server).await;
        let session = device.open(bot).await.session;
        writers.spawn(write(device, session, progress.clone()));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while progress.written.load(Ordering::Relaxed) < WRITERS * 5 {
        assert!(Instant::now() < deadline, "the load does not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Without this file it does not start.
    let control = server.data_dir().join("postgres/data/global/pg_control");
    let aside = control.with_extension("aside");
    let mut is_away = blow == Blow::StayAway;
    if is_away {
        std::fs::rename(&control, &aside).unwrap();
    }
    let signal = if is_away { "QUIT" } else { "KILL" };
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
                println!("{blow:?}: not ready after {:?}", died.elapsed());
                assert!(died.elapsed() < Duration::from_secs(2), "told too late");
                unready = Some(died.elapsed());
            }
            (200, Some(_)) if !is_away => break,
            (200 | 503, _) => {}
            other => panic!("{other:?}"),
        }
        if is_away && progress.refused.load(Ordering::Relaxed) >= WRITERS {
            println!("all writers were told after {:?}", died.elapsed());
            std::fs::rename(&aside, &control).unwrap();
            is_away = false;
        }
        assert!(
            unready.is_some() || died.elapsed() < Duration::from_secs(3),
            "never told"
        );
        assert!(died.elapsed() < Duration::from_mins(1), "not recovered");
        // The pace of a machine that watches.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{blow:?}: ready again after {:?}", died.elapsed());
    progress.recovered.store(true, Ordering::Relaxed);
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
        "{blow:?}: {} refusals, all done after {:?}",
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

#[derive(Default)]
struct Progress {
    written: AtomicUsize,
    refused: AtomicUsize,
    recovered: AtomicBool,
}

/// Writes on, the same id again after every refusal, until all is stored and the database is back.
async fn write(mut device: Device, session: SessionId, progress: Arc<Progress>) -> Written {
    let (mut acknowledged, mut refusals) = (Vec::new(), Vec::new());
    let mut n = 0;
    while n < MESSAGES || !progress.recovered.load(Ordering::Relaxed) {
        let (id, text) = (ClientMessageId::generate(), format!("message {n}"));
        loop {
            match device.say_as(session, id, &text).await {
                Ok(ack) => {
                    acknowledged.push((ack.seq.0, text));
                    progress.written.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(refused) => {
                    refusals.push(refused.error.code);
                    progress.refused.fetch_add(1, Ordering::Relaxed);
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
