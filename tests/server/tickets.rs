//! What a ticket opens, how often and for how long: the bot of the page it was issued to and nothing
//! else, one connection, within 30 s.

use std::time::Duration;

use hubbub::identity::{ApiKey, digest};
use hubbub_protocol::client::Join;
use hubbub_protocol::{BotId, ErrorCode, PrincipalKind, Timestamp};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Error;

use crate::auth::{connect, refused};
use crate::client::{Caller, Credentials, Device, of};
use crate::server::{TestServer, shared};

const AT_ONCE: usize = 1_000;
const LIFETIME: Duration = Duration::from_secs(30);

/// A device with a ticket of a bot's widget, for the visitor of a token.
async fn connect_from(server: &TestServer, bot: BotId, token: Option<&str>) -> (Device, String) {
    let path = format!("/v1/widget/{bot}/tickets");
    let body = token.map_or(json!({}), |token| json!({ "visitor_token": token }));
    let minted = Caller::with(server, None).post(&path, &body).await;
    assert_eq!(minted.status, 201, "{minted:?}");
    let minted: Value = minted.json();
    let ticket = Credentials::Ticket(minted["ticket"].as_str().unwrap().to_owned());
    let device = Device::connect_as(server.address, &ticket).await.unwrap();
    let token = minted["visitor"]["token"].as_str().unwrap().to_owned();
    (device, token)
}

fn new_of(bot: BotId) -> Join {
    Join {
        bot: Some(bot),
        ..Join::default()
    }
}

// R034
#[tokio::test]
async fn a_ticket_of_one_bots_widget_opens_and_joins_sessions_of_no_other() {
    let server = shared().await;
    let (bot, other) = (server.demo.bot, Caller::new(server).bot(&["sim"]).await);
    let (mut device, token) = connect_from(server, bot, None).await;
    let session = device.open(bot).await.session;
    for wrong in [other, BotId::generate()] {
        let refused = device.try_join(new_of(wrong)).await.unwrap_err();
        assert_eq!(refused.error.code, ErrorCode::Forbidden);
    }

    // The same person, on the page of the other bot.
    let (mut elsewhere, again) = connect_from(server, other, Some(&token)).await;
    assert_eq!(again, token);
    let refused = elsewhere.try_join(of(session)).await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::NotFound);
    elsewhere.open(other).await;
    // Neither was harmed by the asking.
    device.ask(session, "still mine?").await.unwrap();
}

#[tokio::test]
async fn a_ticket_of_a_key_is_bound_to_no_bot() {
    let server = shared().await;
    let caller = Caller::new(server);
    let other = caller.bot(&["sim"]).await;
    let body = json!({"user": {"id": "u-any-bot"}});
    let minted: Value = caller.post("/v1/tickets", &body).await.json();
    let ticket = Credentials::Ticket(minted["ticket"].as_str().unwrap().to_owned());
    let mut device = Device::connect_as(server.address, &ticket).await.unwrap();
    device.open(server.demo.bot).await;
    device.open(other).await;
}

/// What a handshake with a ticket is refused with.
async fn refusal(server: &TestServer, ticket: &str) -> ErrorCode {
    let caller = Caller::with(server, None);
    let answer = refused(&caller, &format!("hubbub.v1, ticket.{ticket}"), None).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    answer.problem().code
}

/// Moves a ticket's end so many milliseconds from now; how long it had.
async fn expire_in(server: &TestServer, ticket: &str, ms: f64) -> Duration {
    let database = server.database().await;
    let left = "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM tickets \
                WHERE ticket_sha256 = $1";
    let key = digest(ticket);
    let row = database.query_one(left, &[&key.as_slice()]).await.unwrap();
    let update = "UPDATE tickets SET expires_at = clock_timestamp() + $2 * interval '1 ms' \
                  WHERE ticket_sha256 = $1";
    let changed = database.execute(update, &[&key.as_slice(), &ms]).await;
    assert_eq!(changed.unwrap(), 1);
    Duration::from_secs_f64(row.get(0))
}

// R046
#[tokio::test]
async fn a_ticket_opens_one_connection() {
    let server = shared().await;
    let (ticket, _) = Caller::with(server, None).visitor(server.demo.bot).await;
    let device = connect(server, &ticket).await;
    assert_eq!(device.welcome.principal.kind, PrincipalKind::Visitor);
    // Neither while that connection lives, nor after it.
    assert_eq!(refusal(server, &ticket).await, ErrorCode::Unauthorized);
    device.close().await;
    assert_eq!(refusal(server, &ticket).await, ErrorCode::Unauthorized);
}

// R046
#[tokio::test]
async fn a_ticket_lives_30_seconds_and_is_refused_after_them() {
    let server = shared().await;
    let (anonymous, keyed) = (Caller::with(server, None), Caller::new(server));
    let (of_page, _) = anonymous.visitor(server.demo.bot).await;
    let minted: Value = keyed.post("/v1/tickets", &json!({})).await.json();
    let of_key = minted["ticket"].as_str().unwrap();
    let told: Timestamp = serde_json::from_value(minted["expires_at"].clone()).unwrap();
    let told = told.unix_ms() - Timestamp::now().unix_ms();
    assert!((1..=30_000).contains(&told), "told to live {told} ms");
    for ticket in [of_page.as_str(), of_key] {
        let had = expire_in(server, ticket, -1.0).await;
        assert!(had <= LIFETIME, "lives {had:?}");
        assert!(had > LIFETIME / 2, "hardly time to connect: {had:?}");
        for _replay in 0..2 {
            assert_eq!(refusal(server, ticket).await, ErrorCode::Unauthorized);
        }
    }
    // It was the time that was wrong with them.
    let (ticket, _) = anonymous.visitor(server.demo.bot).await;
    expire_in(server, &ticket, 10_000.0).await;
    connect(server, &ticket).await;
}

// R046
#[tokio::test]
async fn of_a_thousand_at_once_one_gets_the_connection() {
    let server = shared().await;
    let (ticket, _) = Caller::with(server, None).visitor(server.demo.bot).await;
    let mut attempts = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (address, credentials) = (server.address, Credentials::Ticket(ticket.clone()));
        attempts.spawn(async move { Device::connect_as(address, &credentials).await });
    }
    let (mut connected, mut unauthorized) = (Vec::new(), 0);
    for attempt in attempts.join_all().await {
        match attempt {
            Ok(device) => connected.push(device),
            Err(Error::Http(answer)) if answer.status() == 401 => unauthorized += 1,
            // A busy server says so; that uses nothing up.
            Err(Error::Http(answer)) if answer.status() == 503 => {}
            Err(other) => panic!("{other}"),
        }
    }
    println!("{unauthorized} of {AT_ONCE} were told 401");
    assert_eq!(connected.len(), 1);
    assert!(unauthorized > AT_ONCE / 2, "only {unauthorized} were tried");
    connected.remove(0).assert_works().await;
}

// X11
#[tokio::test]
async fn a_ticket_of_a_key_revoked_in_between_opens_nothing() {
    let server = shared().await;
    let key = ApiKey::generate();
    let database = server.database().await;
    let insert =
        "INSERT INTO api_keys (tenant_id, key_id, secret_sha256, name) VALUES ($1, $2, $3, 'k')";
    let (tenant, digest) = (server.demo.tenant.0, key.digest());
    database
        .execute(insert, &[&tenant, &key.id, &digest.as_slice()])
        .await
        .unwrap();
    let caller = Caller::with(server, Some(&key.expose()));
    let mut tickets = Vec::new();
    // For the key itself, and for a person it vouches for.
    for body in [json!({}), json!({"user": {"id": "u-revoked"}})] {
        for _ in 0..2 {
            let minted: Value = caller.post("/v1/tickets", &body).await.json();
            tickets.push(minted["ticket"].as_str().unwrap().to_owned());
        }
    }
    connect(server, &tickets[0]).await.assert_works().await;
    connect(server, &tickets[2]).await.assert_works().await;
    let revoke = "UPDATE api_keys SET revoked_at = now() WHERE key_id = $1";
    assert_eq!(database.execute(revoke, &[&key.id]).await.unwrap(), 1);
    for ticket in [&tickets[1], &tickets[3]] {
        assert_eq!(refusal(server, ticket).await, ErrorCode::Unauthorized);
    }
    // A key that was taken away altogether is no better.
    let (other, _) = crate::tenants::another_tenant(server).await;
    let minted = Caller::with(server, Some(&other))
        .post("/v1/tickets", &json!({}))
        .await;
    let minted: Value = minted.json();
    let delete = "DELETE FROM api_keys WHERE key_id = $1";
    let id = ApiKey::parse(&other).unwrap().id;
    assert_eq!(database.execute(delete, &[&id]).await.unwrap(), 1);
    let ticket = minted["ticket"].as_str().unwrap();
    assert_eq!(refusal(server, ticket).await, ErrorCode::Unauthorized);
}

// X14
#[tokio::test]
async fn a_visitors_token_opens_and_shows_sessions_of_its_bot_alone_by_every_door() {
    let server = shared().await;
    let keyed = Caller::new(server);
    let (bot, other) = (server.demo.bot, keyed.bot(&["sim"]).await);
    let (mut device, token) = connect_from(server, bot, None).await;
    let own = device.open(bot).await.session;
    // The same person on the page of the other bot, with a conversation there.
    let (mut elsewhere, _) = connect_from(server, other, Some(&token)).await;
    let foreign = elsewhere.open(other).await.session;

    let visitor = Caller::with(server, Some(&token));
    for wrong in [other, BotId::generate()] {
        let refused = visitor.post("/v1/sessions", &json!({"bot": wrong})).await;
        assert_eq!(refused.problem().code, ErrorCode::Forbidden);
    }
    assert_eq!(
        visitor
            .post("/v1/sessions", &json!({"bot": bot}))
            .await
            .status,
        201
    );
    for (session, status) in [(own, 200), (foreign, 404)] {
        for path in [
            format!("/v1/sessions/{session}"),
            format!("/v1/sessions/{session}/messages"),
        ] {
            assert_eq!(visitor.get(&path).await.status, status, "{path}");
        }
        let path = format!("/v1/sessions/{session}/messages");
        for stream in [false, true] {
            let posted = visitor
                .post(&path, &json!({"text": "x", "stream": stream}))
                .await;
            let expected = if status == 200 {
                [200, 201]
            } else {
                [404, 404]
            };
            assert!(expected.contains(&posted.status), "{path}: {posted:?}");
        }
    }
    for (query, count) in [
        (String::new(), 2),
        (format!("?bot={bot}"), 2),
        (format!("?bot={other}"), 0),
    ] {
        let listed: Value = visitor.get(&format!("/v1/sessions{query}")).await.json();
        let items = listed["items"].as_array().unwrap();
        assert_eq!(items.len(), count, "{query}: {listed}");
        assert!(items.iter().all(|item| item["bot"] == bot.to_string()));
    }

    let bearer = Credentials::Bearer(token);
    let mut direct = Device::connect_as(server.address, &bearer).await.unwrap();
    let refused = direct.try_join(new_of(other)).await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::Forbidden);
    let refused = direct.try_join(of(foreign)).await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::NotFound);
    direct.join(own).await;
    direct.open(bot).await;
    // People the tenant's site vouches for are bound to no bot, and keys to nothing.
    let body = json!({"user": {"id": "u-any"}});
    let minted: Value = keyed.post("/v1/tickets", &body).await.json();
    let mut user = connect(server, minted["ticket"].as_str().unwrap()).await;
    user.open(bot).await;
    user.open(other).await;
    assert_eq!(
        keyed.get(&format!("/v1/sessions/{foreign}")).await.status,
        200
    );
}
