//! The server killed while operators take sessions over and give them back: what it committed is consistent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::Behaviour;
use hubbub_protocol::{HandlerFrame, ServerFrame, SessionHandler, SessionId};
use hubbub_storage::NODE_LEASE;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::{Caller, Device, Gone};
use crate::crash::{Acknowledged, start_chats};
use crate::server::{Setup, TestServer, quick};
use crate::takeover::{operator, release, takeover};
use crate::tenant::run_beside;

/// Connections of ten chats each.
const CONNECTIONS: usize = 30;
/// Sessions an operator goes around in.
const SESSIONS_EACH: usize = 30;

/// The last change of handler that was told of each session.
type Told = HashMap<SessionId, HandlerFrame>;

/// Takes sessions over and gives them back until the server is gone.
async fn handle_until_gone(
    mut device: Device,
    sessions: Vec<SessionId>,
    mut random: StdRng,
) -> Told {
    let mut told = Told::new();
    loop {
        let session = sessions[random.random_range(0..sessions.len())];
        for frame in [takeover(session), release(session)] {
            if device.send(&frame).await.is_err() {
                return told;
            }
            let handler = device.try_until(|frame| match frame {
                ServerFrame::Handler(frame) => Some(frame),
                ServerFrame::Error(error) => panic!("{error:?}"),
                _ => None,
            });
            match handler.await {
                Ok(frame) => drop(told.insert(frame.session, frame)),
                Err(Gone::Cut | Gone::Closed(_)) => return told,
            }
            let pause = random.random_range(0..40);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

async fn sessions(server: &TestServer) -> Vec<SessionId> {
    let caller = Caller::new(server);
    let (mut all, mut next) = (Vec::new(), String::new());
    loop {
        let page: Value = caller
            .get(&format!("/v1/sessions?limit=100{next}"))
            .await
            .json();
        let items = page["items"].as_array().unwrap();
        all.extend(
            items
                .iter()
                .map(|item| serde_json::from_value::<SessionId>(item["id"].clone()).unwrap()),
        );
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => return all,
        }
    }
}

/// What must hold of any database, as queries that find what does not.
const BROKEN: [(&str, &str); 8] = [
    (
        "a reply without an end",
        "SELECT id::text FROM replies WHERE state = 'pending'",
    ),
    (
        "a completed reply without exactly one message, or another with one",
        "SELECT r.id::text FROM replies r LEFT JOIN messages m ON m.session_id = r.session_id AND m.reply_id = r.id \
         GROUP BY r.tenant_id, r.id HAVING count(m.seq) <> (r.state = 'completed')::int",
    ),
    (
        "a gap in the numbers",
        "SELECT session_id::text FROM messages GROUP BY session_id HAVING max(seq) <> count(*)",
    ),
    (
        "a reply asked under a fence that the session has not reached",
        "SELECT r.id::text FROM replies r JOIN sessions s ON s.id = r.session_id WHERE r.fence > s.fence",
    ),
    (
        "an answer of the bot's, asked under an older fence, after the last change of handler",
        "SELECT r.id::text FROM replies r JOIN sessions s ON s.id = r.session_id \
         WHERE r.state = 'completed' AND s.handler <> 'bot' AND r.fence = s.fence",
    ),
    (
        "spending that is not the sum of its attempts",
        "SELECT s.budget_id::text FROM spending s WHERE s.spent <> (SELECT coalesce(sum(a.cost), 0) FROM attempts a \
         WHERE a.tenant_id = s.tenant_id)",
    ),
    (
        "an attempt of no reply, or of a claim that it never had",
        "SELECT a.reply_id::text FROM attempts a LEFT JOIN replies r ON r.id = a.reply_id \
         WHERE r.id IS NULL OR a.claim > r.claim",
    ),
    (
        "a completed reply that nobody pays for, or that is paid for twice",
        "SELECT r.id::text FROM replies r LEFT JOIN attempts a ON a.reply_id = r.id AND a.outcome = 'answered' \
         WHERE r.state = 'completed' GROUP BY r.id HAVING count(a.number) <> 1",
    ),
];

async fn assert_consistent(database: &tokio_postgres::Client) {
    for (what, query) in BROKEN {
        let found = database.query(query, &[]).await.unwrap();
        let first = found.first().map(|row| row.get::<_, String>(0));
        assert!(found.is_empty(), "{} × {what}: {first:?}", found.len());
    }
}

/// What was acknowledged is stored.
async fn assert_acknowledged(database: &tokio_postgres::Client, acknowledged: &Acknowledged) {
    let find = "SELECT body FROM messages WHERE session_id = $1 AND seq = $2";
    for (session, acked) in acknowledged {
        for (seq, text) in acked {
            let seq = i64::try_from(seq.0).unwrap();
            let row = database.query_one(find, &[&session.0, &seq]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), text);
        }
    }
}

/// Who was told to handle a session does, unless that changed since.
async fn assert_told(database: &tokio_postgres::Client, told: &[HandlerFrame]) {
    let find = "SELECT fence, handler FROM sessions WHERE id = $1";
    for frame in told {
        let row = database.query_one(find, &[&frame.session.0]).await.unwrap();
        let (fence, handler): (i64, String) = (row.get(0), row.get(1));
        let told = i64::try_from(frame.fence).unwrap();
        let expected = match frame.handler {
            SessionHandler::Bot => "bot",
            SessionHandler::Operator { .. } => "operator",
            SessionHandler::Waiting { .. } => "waiting",
        };
        assert!(
            fence > told || (fence == told && handler == expected),
            "{frame:?}: {fence} {handler}"
        );
    }
}

// R009, P1, P13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_300_chats_with_takeovers_under_way_leaves_a_consistent_database() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let behaviour = Behaviour {
        token_interval_ms: 40,
        ..quick()
    };
    let setup = Setup::default().upstream("sim", behaviour);
    let setup = setup
        .set("limits.messages_per_second", 10_000)
        .set("limits.messages_burst", 10_000);
    let mut server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let tenant = server.demo.tenant.to_string();
    for command in [
        &[
            "price",
            "set",
            "--upstream",
            "sim",
            "--input",
            "1",
            "--output",
            "4",
        ][..],
        &[
            "budget",
            "set",
            "--tenant",
            &tenant,
            "--period",
            "month",
            "--dollars",
            "1000",
        ],
    ] {
        assert!(run_beside(&server, command).status.success());
    }
    let chats = start_chats(&server, CONNECTIONS).await;
    let sessions = sessions(&server).await;
    assert_eq!(sessions.len(), CONNECTIONS * 10);
    let mut operators = JoinSet::new();
    for (n, sessions) in sessions.chunks(SESSIONS_EACH).enumerate() {
        let mut device = operator(&server, &format!("olga-{n}"), "agent").await;
        for session in sessions {
            device.join(*session).await;
        }
        let random = StdRng::seed_from_u64(seed + n as u64);
        operators.spawn(handle_until_gone(device, sessions.to_vec(), random));
    }
    let moment = StdRng::seed_from_u64(seed).random_range(1_000..3_000);
    tokio::time::sleep(Duration::from_millis(moment)).await;
    server.kill();
    let mut acknowledged = Acknowledged::new();
    for (chat, _) in chats.join_all().await {
        acknowledged.extend(chat);
    }
    let told: Vec<HandlerFrame> = operators
        .join_all()
        .await
        .into_iter()
        .flat_map(Told::into_values)
        .collect();
    let server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let server = server.await.unwrap();
    let database = server.database().await;
    let healed = Instant::now() + NODE_LEASE / 2;
    let pending = "SELECT count(*) FROM replies WHERE state = 'pending'";
    while Instant::now() < healed
        && database
            .query_one(pending, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            > 0
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_consistent(&database).await;
    assert_acknowledged(&database, &acknowledged).await;
    assert_told(&database, &told).await;
    let spent = database.query_one(
        "SELECT sum(spent)::int8, (SELECT count(*) FROM attempts) FROM spending",
        &[],
    );
    let spent = spent.await.unwrap();
    let acked: usize = acknowledged.values().map(Vec::len).sum();
    println!(
        "killed after {moment} ms: {acked} acks, {} sessions handed over, {} attempts, {} micro-cents",
        told.len(),
        spent.get::<_, i64>(1),
        spent.get::<_, i64>(0)
    );
    assert!(acked > 300 && told.len() > 50, "too little happened");
}
