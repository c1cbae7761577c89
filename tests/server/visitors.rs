//! What one visitor may take, whichever door it comes through, and what others notice of it: nothing.

use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::Behaviour;
use hubbub_protocol::reply::ErrorBody;
use hubbub_protocol::{BotId, ErrorCode, SessionId};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite;

use crate::client::{Caller, Credentials, DEADLINE, Device};
use crate::server::{Setup, TestServer, quick};

/// Starts a server.
pub async fn start(setup: Setup) -> TestServer {
    tokio::task::spawn_blocking(|| setup.start()).await.unwrap()
}

/// A visitor of the demo's widget, by its token.
async fn visitor(server: &TestServer, bot: BotId) -> Caller {
    Caller::with(server, Some(&token(server, bot).await))
}

/// An anonymous visitor's token.
pub async fn token(server: &TestServer, bot: BotId) -> String {
    Caller::with(server, None).visitor(bot).await.1
}

/// Connects with a token or a key.
pub async fn connect(server: &TestServer, token: &str) -> Device {
    let bearer = Credentials::Bearer(token.to_owned());
    Device::connect_as(server.address, &bearer).await.unwrap()
}

async fn open(caller: &Caller, bot: BotId) -> SessionId {
    let opened = caller.post("/v1/sessions", &json!({"bot": bot})).await;
    assert_eq!(opened.status, 201, "{opened:?}");
    opened.json::<Value>()["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// What a refused client is told.
struct Told {
    code: ErrorCode,
    wait: Option<u64>,
}

impl From<hubbub_protocol::http::Problem> for Told {
    fn from(problem: hubbub_protocol::http::Problem) -> Self {
        let (code, wait) = (problem.code, problem.retry_after_ms);
        Self { code, wait }
    }
}

impl From<ErrorBody> for Told {
    fn from(error: ErrorBody) -> Self {
        let (code, wait) = (error.code, error.retry_after_ms);
        Self { code, wait }
    }
}

impl From<tungstenite::Error> for Told {
    fn from(error: tungstenite::Error) -> Self {
        let tungstenite::Error::Http(answer) = error else {
            panic!("{error}")
        };
        assert_eq!(answer.status(), 429);
        let wait = answer.headers()["retry-after"].to_str().unwrap();
        Self {
            code: ErrorCode::RateLimited,
            wait: wait.parse().ok(),
        }
    }
}

// X8
#[tokio::test]
async fn a_visitor_has_one_rate_over_all_its_doors() {
    let server = start(Setup::new().set("limits.messages_per_second", 2)).await;
    let bot = Caller::new(&server).bot(&[]).await;
    let token = token(&server, bot).await;
    let bearer = Credentials::Bearer(token.clone());
    let fast = Caller::with(&server, Some(&token));
    let mut device = connect(&server, &token).await;
    let session = device.open(bot).await.session;
    let mut other_device = connect(&server, &token).await;
    other_device.join(session).await;
    let path = format!("/v1/sessions/{session}");

    let started = Instant::now();
    let mut taken = 0;
    let mut refused = [0; 5];
    for _ in 0..40 {
        let got = fast.get(&path).await;
        let opened = fast.post("/v1/sessions", &json!({"bot": bot})).await;
        let answers = [
            (got.status == 200)
                .then_some(())
                .ok_or_else(|| got.problem().into()),
            (opened.status == 201)
                .then_some(())
                .ok_or_else(|| opened.problem().into()),
            device
                .say(session, "one")
                .await
                .map(|_| ())
                .map_err(|e| e.error.into()),
            other_device
                .say(session, "two")
                .await
                .map(|_| ())
                .map_err(|e| e.error.into()),
            Device::connect_as(server.address, &bearer)
                .await
                .map(|_| ())
                .map_err(Told::from),
        ];
        for (answer, refused) in answers.into_iter().zip(&mut refused) {
            match answer {
                Ok(()) => taken += 1,
                Err(told) => {
                    assert_eq!(told.code, ErrorCode::RateLimited);
                    assert!(told.wait.is_some_and(|ms| ms > 0));
                    *refused += 1;
                }
            }
        }
    }
    let rate = 2.0 * started.elapsed().as_secs_f64();
    println!("{taken} taken, {refused:?} refused, {rate} allowed since");
    assert!(f64::from(taken) <= 40.0 + rate + 1.0, "{taken} taken");
    assert!(refused.iter().all(|refused| *refused > 0), "{refused:?}");
    // Others are not concerned: another visitor, and the tenant itself.
    let neighbour = visitor(&server, bot).await;
    let of_neighbour = open(&neighbour, bot).await;
    let own = format!("/v1/sessions/{of_neighbour}/messages");
    assert_eq!(
        neighbour.post(&own, &json!({"text": "hi"})).await.status,
        201
    );
    assert_eq!(Caller::new(&server).get(&path).await.status, 200);
    // And it may go on when it was told to.
    let until = Instant::now() + DEADLINE;
    while fast.get(&path).await.status == 429 {
        assert!(Instant::now() < until, "never again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// X8
#[tokio::test]
async fn a_visitor_waits_for_so_many_replies_whatever_its_sessions_and_doors() {
    let setup = Setup::default().upstream(
        "sim",
        Behaviour {
            ttft_ms: 1_000,
            ..quick()
        },
    );
    let server = start(setup.set("limits.replies_per_visitor", 3)).await;
    let bot = server.demo.bot;
    let token = token(&server, bot).await;
    let greedy = Caller::with(&server, Some(&token));
    let mut device = connect(&server, &token).await;
    let mut taken = 0;
    let mut refused = Vec::new();
    for n in 0..8 {
        let session = open(&greedy, bot).await;
        if n % 2 == 0 {
            let path = format!("/v1/sessions/{session}/messages");
            let posted = greedy.post(&path, &json!({"text": "and?"})).await;
            match posted.status {
                201 => taken += 1,
                _ => refused.push((posted.problem().code, posted.problem().retry_after_ms)),
            }
        } else {
            device.join(session).await;
            match device.say(session, "and?").await {
                Ok(_) => taken += 1,
                Err(error) => refused.push((error.error.code, error.error.retry_after_ms)),
            }
        }
    }
    assert_eq!((taken, refused.len()), (3, 5), "{refused:?}");
    for (code, wait) in refused {
        assert_eq!(code, ErrorCode::RateLimited);
        assert!(wait.is_some_and(|ms| ms > 0));
    }
    // Another visitor's place is its own.
    let neighbour = visitor(&server, bot).await;
    let of_neighbour = open(&neighbour, bot).await;
    let path = format!("/v1/sessions/{of_neighbour}/messages");
    assert_eq!(
        neighbour.post(&path, &json!({"text": "hi"})).await.status,
        201
    );
    // When its replies have ended there is room again.
    let session = open(&greedy, bot).await;
    let path = format!("/v1/sessions/{session}/messages");
    let until = Instant::now() + DEADLINE;
    while greedy.post(&path, &json!({"text": "now?"})).await.status != 201 {
        assert!(Instant::now() < until, "never again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

// X8
#[tokio::test]
async fn a_visitor_has_so_many_connections() {
    let server = start(Setup::new().set("limits.connections_per_visitor", 2)).await;
    let token = token(&server, server.demo.bot).await;
    let first = connect(&server, &token).await;
    let mut second = connect(&server, &token).await;
    let bearer = Credentials::Bearer(token.clone());
    let third = Device::connect_as(server.address, &bearer).await;
    assert!(
        matches!(third, Err(tungstenite::Error::Http(answer)) if answer.status() == 429),
        "connected"
    );
    second.assert_works().await;
    connect(&server, &server.demo.api_key)
        .await
        .assert_works()
        .await;
    first.close().await;
    let until = Instant::now() + DEADLINE;
    while Device::connect_as(server.address, &bearer).await.is_err() {
        assert!(Instant::now() < until, "never again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
