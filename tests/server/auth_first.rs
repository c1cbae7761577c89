//! Who is asking comes first: whoever is nobody learns nothing about what else is wrong.

use hubbub_protocol::{ErrorCode, SessionId};
use serde_json::json;

use crate::client::{Caller, Response};
use crate::server::shared;

/// Nothing any route understands.
const GARBAGE: &str = "{\"text\": \u{1}";

async fn send_garbage(caller: &Caller, method: &str, path: &str) -> Response {
    let request = caller.request(method, path);
    let request = request.header("content-type", "application/json");
    let request = match method {
        "GET" => request,
        _ => request.body(GARBAGE),
    };
    Caller::try_send(request).await.unwrap()
}

/// Every route of `/v1` with a credential in `Authorization`, right and with a wrong path and query, and
/// whether it needs a key.
fn rows() -> Vec<(&'static str, String, bool)> {
    let id = SessionId::generate();
    let mut rows = vec![
        ("POST", "/v1/tickets".to_owned(), true),
        ("GET", "/v1/bots?limit=x".to_owned(), true),
        ("POST", "/v1/bots".to_owned(), true),
        ("GET", "/v1/sessions?limit=x".to_owned(), false),
        ("POST", "/v1/sessions".to_owned(), false),
    ];
    for id in [id.to_string(), "x".to_owned()] {
        rows.extend([
            ("GET", format!("/v1/bots/{id}"), true),
            ("PATCH", format!("/v1/bots/{id}"), true),
            ("GET", format!("/v1/sessions/{id}"), false),
            ("GET", format!("/v1/sessions/{id}/messages?limit=x"), false),
            ("POST", format!("/v1/sessions/{id}/messages"), false),
        ]);
    }
    rows
}

// R034
#[tokio::test]
async fn garbage_under_a_garbage_token_is_unauthorized_on_every_route() {
    let server = shared().await;
    let tenant = server.demo.tenant.0.simple();
    let nobody = format!("hbv_{tenant}_{}", "x".repeat(43));
    for token in [None, Some("garbage"), Some(nobody.as_str())] {
        let caller = Caller::with(server, token);
        let connect = ("GET", "/v1/connect".to_owned(), false);
        for (method, path, _) in rows().into_iter().chain([connect]) {
            let answer = send_garbage(&caller, method, &path).await;
            assert_eq!(
                answer.problem().code,
                ErrorCode::Unauthorized,
                "{method} {path} {token:?}"
            );
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    // A handshake that offers nothing this server speaks, under a token that nobody has.
    let request = Caller::with(server, Some(&nobody)).request("GET", "/v1/connect");
    let request = request.header("sec-websocket-protocol", "chat, superchat");
    let answer = Caller::try_send(request).await.unwrap();
    assert_eq!(answer.problem().code, ErrorCode::Unauthorized);
}

// R034
#[tokio::test]
async fn garbage_of_a_visitor_is_forbidden_where_a_key_is_needed_and_invalid_elsewhere() {
    let server = shared().await;
    let (_, token) = Caller::with(server, None).visitor(server.demo.bot).await;
    let visitor = Caller::with(server, Some(&token));
    for (method, path, needs_key) in rows() {
        let answer = send_garbage(&visitor, method, &path).await;
        let code = answer.problem().code;
        if needs_key {
            assert_eq!(code, ErrorCode::Forbidden, "{method} {path}");
        } else {
            let is_told = matches!(code, ErrorCode::Invalid | ErrorCode::NotFound);
            assert!(is_told, "{method} {path}: {code}");
        }
    }
    // What is wrong is told to who may know.
    let key = Caller::new(server);
    let answer = send_garbage(&key, "POST", "/v1/bots").await;
    assert_eq!(answer.problem().code, ErrorCode::Invalid);
    let none = key.post("/v1/nothing", &json!({})).await;
    assert_eq!(none.problem().code, ErrorCode::NotFound);
}
