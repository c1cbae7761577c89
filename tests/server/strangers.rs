//! What strangers may have: tickets and sessions at a rate, rows for a while.

use std::time::{Duration, Instant};

use hubbub_protocol::client::Join;
use hubbub_protocol::{BotId, ErrorCode};
use serde_json::{Value, json};

use crate::auth::connect;
use crate::client::{Caller, Credentials, Device, Response};
use crate::server::{Setup, TestServer, quick};

async fn start(setup: Setup) -> TestServer {
    tokio::task::spawn_blocking(|| setup.start()).await.unwrap()
}

/// Limits as they are by default.
fn setup() -> Setup {
    Setup::default().upstream("sim", quick())
}

/// Asks for a ticket, as a client that a proxy on this machine names.
async fn mint_from(server: &TestServer, bot: BotId, client: Option<&str>) -> Response {
    let path = format!("/v1/widget/{bot}/tickets");
    let mut request = Caller::with(server, None).request("POST", &path);
    if let Some(client) = client {
        request = request.header("x-forwarded-for", client);
    }
    Caller::try_send(request.json(&json!({}))).await.unwrap()
}

/// Refused by name, with the wait in both places.
fn assert_limited(refused: &Response) -> u64 {
    let problem = refused.problem();
    assert_eq!(problem.code, ErrorCode::RateLimited);
    assert_eq!(refused.status, 429);
    let wait = problem.retry_after_ms.unwrap();
    let seconds: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(seconds, wait.div_ceil(1_000).max(1));
    wait
}

async fn rows(server: &TestServer, table: &str) -> i64 {
    let database = server.database().await;
    let count = format!("SELECT count(*) FROM {table}");
    database.query_one(&count, &[]).await.unwrap().get(0)
}

// X2
#[tokio::test]
async fn tickets_in_a_loop_are_refused_with_a_wait_and_write_no_more_rows() {
    let server = start(setup()).await;
    let bot = server.demo.bot;
    let began = Instant::now();
    let (mut minted, mut refused) = (0, 0);
    for _ in 0..600 {
        let answer = mint_from(&server, bot, None).await;
        if answer.status == 201 {
            minted += 1;
        } else {
            let wait = assert_limited(&answer);
            assert!(wait <= 1_000, "{wait} ms");
            refused += 1;
        }
    }
    // 300 at once, and five a second while it lasted.
    let more = 5 * (began.elapsed().as_secs() + 1);
    println!(
        "{minted} tickets, {refused} refusals in {:?}",
        began.elapsed()
    );
    assert!((300..=300 + more).contains(&minted), "{minted}");
    assert!(refused > 0);
    let minted = i64::try_from(minted).unwrap();
    assert_eq!(rows(&server, "visitors").await, minted);
    assert!(rows(&server, "tickets").await <= minted);
    // Whoever comes from elsewhere is none the worse for it.
    assert_eq!(mint_from(&server, bot, Some("192.0.2.1")).await.status, 201);
}

// X2
#[tokio::test]
async fn a_limit_of_the_bot_holds_for_all_addresses_together_and_one_of_an_address_for_all_bots() {
    let setup = setup()
        .set("limits.tickets_per_minute_per_ip", 2)
        .set("limits.tickets_per_minute_per_bot", 5);
    let server = start(setup).await;
    let (bot, other) = (server.demo.bot, Caller::new(&server).bot(&["sim"]).await);
    for (of, client, expected) in [
        (bot, "192.0.2.1", 201),
        (bot, "192.0.2.1", 201),
        (bot, "192.0.2.1", 429),
        (other, "192.0.2.1", 429),
        // An IPv6 network is one stranger, however many addresses it has.
        (bot, "2001:db8::1", 201),
        (bot, "2001:db8::2", 201),
        (bot, "2001:db8::3", 429),
        (bot, "192.0.2.2", 201),
        // Five there were: the bot's own limit, whoever asks.
        (bot, "192.0.2.3", 429),
        (other, "192.0.2.3", 201),
    ] {
        let minted = mint_from(&server, of, Some(client)).await;
        assert_eq!(minted.status, expected, "{client}: {minted:?}");
        if expected == 429 {
            assert_limited(&minted);
        }
    }
}

// X2, H9
#[tokio::test]
async fn a_page_can_read_that_it_has_to_wait() {
    let setup = setup()
        .set("limits.tickets_per_minute_per_ip", 1)
        .set("server.trusted_origins", "[\"https://shop.example\"]");
    let server = start(setup).await;
    let path = format!("/v1/widget/{}/tickets", server.demo.bot);
    let mut last = None;
    for _ in 0..2 {
        let request = Caller::with(&server, None).request("POST", &path);
        let request = request.header("origin", "https://shop.example");
        last = Some(Caller::try_send(request).await.unwrap());
    }
    let refused = last.unwrap();
    assert_limited(&refused);
    assert_eq!(
        refused.headers["access-control-allow-origin"],
        "https://shop.example"
    );
    let exposed = refused.headers["access-control-expose-headers"]
        .to_str()
        .unwrap();
    assert!(exposed.contains("retry-after"));
}

// X3
#[tokio::test]
async fn sessions_in_a_loop_are_refused_with_a_wait_by_every_door() {
    let setup = setup()
        .set("limits.sessions_per_connection", 1_000)
        .set("limits.messages_per_second", 10_000)
        .set("limits.messages_burst", 10_000);
    let server = start(setup).await;
    let bot = server.demo.bot;
    let (ticket, token) = Caller::with(&server, None).visitor(bot).await;
    let visitor = Caller::with(&server, Some(&token));
    let began = Instant::now();
    let mut opened = 0;
    for _ in 0..100 {
        let answer = visitor.post("/v1/sessions", &json!({"bot": bot})).await;
        if answer.status == 201 {
            opened += 1;
        } else {
            assert!(assert_limited(&answer) <= 2_000);
        }
    }
    let allowed = |began: Instant| 60..=60 + began.elapsed().as_secs() + 1;
    println!("{opened} sessions in {:?}", began.elapsed());
    assert!(allowed(began).contains(&opened), "{opened}");
    // The socket is another door to the same room.
    let mut device = connect(&server, &ticket).await;
    let mut refused = 0;
    for _ in 0..20 {
        let join = Join {
            bot: Some(bot),
            ..Join::default()
        };
        match device.try_join(join).await {
            Ok(_) => opened += 1,
            Err(error) => {
                assert_eq!(error.error.code, ErrorCode::RateLimited);
                assert!(error.error.retry_after_ms.is_some());
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && allowed(began).contains(&opened), "{opened}");
    // Programs with a key are no strangers.
    let program = Caller::new(&server);
    for _ in 0..100 {
        assert_eq!(
            program
                .post("/v1/sessions", &json!({"bot": bot}))
                .await
                .status,
            201
        );
    }
}

// X3
#[tokio::test]
async fn many_visitors_of_one_address_open_no_more_sessions_than_it_may() {
    let setup = setup().set("limits.sessions_per_minute_per_ip", 5);
    let server = start(setup).await;
    let bot = server.demo.bot;
    let open = |client: &'static str| {
        let server = &server;
        async move {
            let (_, token) = Caller::with(server, None).visitor(bot).await;
            let request = Caller::with(server, Some(&token)).request("POST", "/v1/sessions");
            let request = request.header("x-forwarded-for", client);
            Caller::try_send(request.json(&json!({"bot": bot})))
                .await
                .unwrap()
        }
    };
    for _ in 0..5 {
        assert_eq!(open("192.0.2.1").await.status, 201);
    }
    assert_limited(&open("192.0.2.1").await);
    assert_eq!(open("192.0.2.2").await.status, 201);
}

// X2
#[tokio::test]
async fn who_never_opens_a_session_is_forgotten_and_who_does_is_not() {
    let server = start(setup()).await;
    let bot = server.demo.bot;
    let anonymous = Caller::with(&server, None);
    let (_, passing) = anonymous.visitor(bot).await;
    let (ticket, talking) = anonymous.visitor(bot).await;
    let mut device = connect(&server, &ticket).await;
    let session = device.open(bot).await.session;
    let (late_ticket, _) = anonymous.visitor(bot).await;
    let mut late = connect(&server, &late_ticket).await;
    let body = json!({"user": {"id": "u-kept"}});
    assert_eq!(
        Caller::new(&server).post("/v1/tickets", &body).await.status,
        201
    );

    // Days pass.
    let database = server.database().await;
    let age = "UPDATE visitors SET expires_at = expires_at - interval '3 days'";
    assert_eq!(database.execute(age, &[]).await.unwrap(), 4);
    let sweep = "SELECT delete_expired_visitors()";
    let gone: i64 = database.query_one(sweep, &[]).await.unwrap().get(0);
    assert_eq!(gone, 2);
    let status = |token: String| {
        let caller = Caller::with(&server, Some(&token));
        async move { caller.get("/v1/sessions").await.status }
    };
    assert_eq!(status(passing).await, 401);
    assert_eq!(status(talking).await, 200);
    device.ask(session, "still here?").await.unwrap();
    // Connected all the while, and speaks only now.
    let session = late.open(bot).await.session;
    late.ask(session, "at last").await.unwrap();
    assert_eq!(rows(&server, "visitors").await, 3);
}

// X2
#[tokio::test]
async fn who_comes_back_is_remembered_longer() {
    let server = start(setup()).await;
    let bot = server.demo.bot;
    let (_, token) = Caller::with(&server, None).visitor(bot).await;
    let database = server.database().await;
    let age = "UPDATE visitors SET expires_at = now() + interval '1 hour'";
    assert_eq!(database.execute(age, &[]).await.unwrap(), 1);
    let path = format!("/v1/widget/{bot}/tickets");
    let body = json!({"visitor_token": token});
    let minted: Value = Caller::with(&server, None).post(&path, &body).await.json();
    assert_eq!(minted["visitor"]["token"], token.as_str());
    let left = "SELECT extract(epoch FROM expires_at - now())::float8 FROM visitors";
    let left: f64 = database.query_one(left, &[]).await.unwrap().get(0);
    assert!(
        Duration::from_secs_f64(left) > Duration::from_hours(24),
        "{left} s"
    );
    let bearer = Credentials::Bearer(token);
    Device::connect_as(server.address, &bearer).await.unwrap();
}
