//! Who may do what, and what everybody else is told.

use hubbub_protocol::server::Joined;
use hubbub_protocol::{ErrorCode, PrincipalKind, SessionId};
use serde_json::{Value, json};

use crate::client::{Caller, Credentials, Device, Response, of};
use crate::server::{TestServer, shared};

/// The answer to a handshake that is expected to be refused.
pub async fn refused(caller: &Caller, protocols: &str, origin: Option<&str>) -> Response {
    let mut request = caller
        .request("GET", "/v1/connect")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", protocols);
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    Caller::try_send(request).await.unwrap()
}

pub async fn connect(server: &TestServer, ticket: &str) -> Device {
    let ticket = Credentials::Ticket(ticket.to_owned());
    Device::connect_as(server.address, &ticket).await.unwrap()
}

/// A visitor's device and its token.
async fn visitor(server: &TestServer) -> (Device, String) {
    let (ticket, token) = Caller::with(server, None).visitor(server.demo.bot).await;
    (connect(server, &ticket).await, token)
}

// R034
#[tokio::test]
async fn every_route_of_the_api_asks_for_credentials() {
    let server = shared().await;
    let (session, bot) = (SessionId::generate(), server.demo.bot);
    let rows = [
        ("GET", "/v1/connect".to_owned(), json!({})),
        ("POST", "/v1/tickets".to_owned(), json!({})),
        ("GET", "/v1/bots".to_owned(), json!({})),
        ("POST", "/v1/bots".to_owned(), json!({"name": "x"})),
        ("GET", format!("/v1/bots/{bot}"), json!({})),
        ("PATCH", format!("/v1/bots/{bot}"), json!({"name": "x"})),
        ("GET", "/v1/sessions".to_owned(), json!({})),
        ("POST", "/v1/sessions".to_owned(), json!({"bot": bot})),
        ("GET", format!("/v1/sessions/{session}"), json!({})),
        ("GET", format!("/v1/sessions/{session}/messages"), json!({})),
        (
            "POST",
            format!("/v1/sessions/{session}/messages"),
            json!({"text": "x"}),
        ),
    ];
    let key = &server.demo.api_key;
    let last = if key.ends_with('0') { '1' } else { '0' };
    let off_by_one = format!("{}{last}", &key[..key.len() - 1]);
    let unknown = hubbub::identity::ApiKey::generate().expose();
    let same_id = format!("hbk_{}_{}", &key[4..12], &unknown[13..]);
    let tenant = server.demo.tenant.0.simple();
    let unknown_visitor = format!("hbv_{tenant}_{}", "x".repeat(43));
    let wrong = ["", "x", &off_by_one, &unknown, &same_id, &unknown_visitor];
    for (method, path, body) in &rows {
        for token in [None].into_iter().chain(wrong.map(Some)) {
            let caller = Caller::with(server, token);
            let response = match *method {
                "GET" => caller.get(path).await,
                // Without a token, what is wrong in the body is not even told.
                _ if token.is_none() => caller.send(method, path, &json!({"x": 1})).await,
                _ => caller.send(method, path, body).await,
            };
            assert_eq!(
                response.status, 401,
                "{method} {path} {token:?}: {response:?}"
            );
            assert_eq!(response.problem().code, ErrorCode::Unauthorized);
            assert_eq!(response.headers["www-authenticate"], "Bearer");
        }
    }
}

#[tokio::test]
async fn a_revoked_key_is_no_key() {
    let server = shared().await;
    let key = hubbub::identity::ApiKey::generate();
    let database = server.database().await;
    let digest = key.digest();
    let tenant = server.demo.tenant.0;
    let insert =
        "INSERT INTO api_keys (tenant_id, key_id, secret_sha256, name) VALUES ($1, $2, $3, 'k')";
    database
        .execute(insert, &[&tenant, &key.id, &digest.as_slice()])
        .await
        .unwrap();
    let caller = Caller::with(server, Some(&key.expose()));
    assert_eq!(caller.get("/v1/bots").await.status, 200);
    let revoke = "UPDATE api_keys SET revoked_at = now() WHERE key_id = $1";
    assert_eq!(database.execute(revoke, &[&key.id]).await.unwrap(), 1);
    assert_eq!(
        caller.get("/v1/bots").await.problem().code,
        ErrorCode::Unauthorized
    );
    assert_eq!(
        refused(&caller, "hubbub.v1", None).await.problem().code,
        ErrorCode::Unauthorized
    );
}

#[tokio::test]
async fn a_key_mints_tickets_for_itself_and_for_users_of_its_site() {
    let server = shared().await;
    let caller = Caller::new(server);
    let minted: Value = caller.post("/v1/tickets", &json!({})).await.json();
    let own = connect(server, minted["ticket"].as_str().unwrap()).await;
    assert_eq!(own.welcome.principal.kind, PrincipalKind::ApiKey);

    let body = json!({"user": {"id": "u-1", "name": "Ada"}});
    let mut sessions: Vec<Joined> = Vec::new();
    for _ in 0..2 {
        let minted = caller.post("/v1/tickets", &body).await;
        assert_eq!(minted.status, 201, "{minted:?}");
        let minted: Value = minted.json();
        let mut device = connect(server, minted["ticket"].as_str().unwrap()).await;
        let principal = &device.welcome.principal;
        assert_eq!(
            (principal.kind, principal.name.as_str()),
            (PrincipalKind::User, "Ada")
        );
        // The same person on another device: the session of the first is theirs.
        match sessions.first() {
            None => sessions.push(device.open(server.demo.bot).await),
            Some(first) => assert_eq!(device.join(first.session).await.session, first.session),
        }
    }
    let empty = caller
        .post("/v1/tickets", &json!({"user": {"id": ""}}))
        .await;
    assert_eq!(empty.problem().code, ErrorCode::Invalid);
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_ticket_and_no_connection() {
    let server = shared().await;
    let caller = Caller::new(server);
    let path = format!("/v1/widget/{}/tickets", server.demo.bot);
    let mint = |origin: String| {
        let request = caller
            .request("POST", &path)
            .header("origin", origin)
            .json(&json!({}));
        Caller::try_send(request)
    };
    let own = server.url("");
    for (origin, expected) in [
        (own.clone(), 201),
        ("https://trusted.example".to_owned(), 201),
        ("https://evil.example".to_owned(), 403),
        ("https://trusted.example.evil.example".to_owned(), 403),
        ("null".to_owned(), 403),
        (format!("{own}0"), 403),
    ] {
        let response = mint(origin.clone()).await.unwrap();
        assert_eq!(response.status, expected, "{origin}: {response:?}");
        if expected == 403 {
            assert_eq!(response.problem().code, ErrorCode::Forbidden);
        }
    }
    let origins = json!({"name": "Shop", "allowed_origins": ["https://shop.example"]});
    let bot: Value = caller.post("/v1/bots", &origins).await.json();
    let path = format!("/v1/widget/{}/tickets", bot["id"].as_str().unwrap());
    let request = caller
        .request("POST", &path)
        .header("origin", "https://shop.example");
    let minted = Caller::try_send(request.json(&json!({}))).await.unwrap();
    assert_eq!(minted.status, 201, "{minted:?}");
    let minted: Value = minted.json();
    let protocols = format!("hubbub.v1, ticket.{}", minted["ticket"].as_str().unwrap());
    let anonymous = Caller::with(server, None);
    let other_page = refused(&anonymous, &protocols, Some("https://evil.example")).await;
    assert_eq!(other_page.problem().code, ErrorCode::Forbidden);
    let with_key = refused(&caller, "hubbub.v1", Some("https://evil.example")).await;
    assert_eq!(with_key.problem().code, ErrorCode::Forbidden);
}

#[tokio::test]
async fn a_handshake_without_the_protocol_or_with_two_proofs_is_invalid() {
    let server = shared().await;
    let (caller, anonymous) = (Caller::new(server), Caller::with(server, None));
    let (ticket, _) = anonymous.visitor(server.demo.bot).await;
    let rows = [
        (&caller, "hubbub.v2".to_owned()),
        (&caller, format!("hubbub.v1, ticket.{ticket}")),
        (&anonymous, format!("ticket.{ticket}")),
        (&caller, "x".repeat(1_000)),
    ];
    for (caller, protocols) in rows {
        let answer = refused(caller, &protocols, None).await;
        assert_eq!(answer.problem().code, ErrorCode::Invalid, "{protocols}");
    }
    // None of them used the ticket.
    connect(server, &ticket).await;
    let plain = caller.get("/v1/connect").await;
    assert_eq!(plain.problem().code, ErrorCode::Invalid);
}

#[tokio::test]
async fn a_visitor_sees_only_sessions_of_its_own() {
    let server = shared().await;
    let (mut device, token) = visitor(server).await;
    let (mut other, other_token) = visitor(server).await;
    let own = device.open(server.demo.bot).await.session;
    device.ask(own, "private").await.unwrap();

    let refused = other.try_join(of(own)).await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::NotFound);
    let caller = Caller::with(server, Some(&token));
    let other = Caller::with(server, Some(&other_token));
    let paths = [
        format!("/v1/sessions/{own}"),
        format!("/v1/sessions/{own}/messages"),
    ];
    for path in &paths {
        assert_eq!(caller.get(path).await.status, 200);
        assert_eq!(other.get(path).await.problem().code, ErrorCode::NotFound);
    }
    for stream in [false, true] {
        let post = other
            .post(&paths[1], &json!({"text": "x", "stream": stream}))
            .await;
        assert_eq!(post.problem().code, ErrorCode::NotFound);
    }
    let list: Value = other.get("/v1/sessions").await.json();
    assert_eq!(list["items"], json!([]));
    let list: Value = caller.get("/v1/sessions").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    for (method, path) in [("GET", "/v1/bots"), ("POST", "/v1/tickets")] {
        let answer = other.send(method, path, &json!({})).await;
        assert_eq!(answer.problem().code, ErrorCode::Forbidden);
    }
    assert_eq!(Caller::new(server).transcript(own).await.messages.len(), 2);
}

#[tokio::test]
async fn a_visitor_comes_back_with_its_token_and_keeps_its_sessions() {
    let server = shared().await;
    let (mut device, token) = visitor(server).await;
    let session = device.open(server.demo.bot).await.session;
    let anonymous = Caller::with(server, None);
    let path = format!("/v1/widget/{}/tickets", server.demo.bot);
    let minted: Value = anonymous
        .post(&path, &json!({"visitor_token": token}))
        .await
        .json();
    assert_eq!(minted["visitor"]["token"], token.as_str());
    let mut again = connect(server, minted["ticket"].as_str().unwrap()).await;
    assert_eq!(again.join(session).await.session, session);
    // A token nobody knows makes a new visitor: an old page must still be able to chat.
    let minted: Value = anonymous
        .post(&path, &json!({"visitor_token": "hbv_x_y"}))
        .await
        .json();
    assert_ne!(minted["visitor"]["token"], token.as_str());
}
