//! What a refused request is told: which part is wrong, and what would be right.

use hubbub_protocol::http::{FieldProblem, Problem};
use hubbub_protocol::{ErrorCode, SessionId};
use serde_json::json;

use crate::client::Caller;
use crate::server::{TestServer, shared};

const SECRET: &str = "hush-hush";

async fn refused(server: &TestServer, method: &str, path: &str, body: &str) -> Problem {
    let request = Caller::new(server)
        .request(method, path)
        .header("content-type", "application/json")
        .body(body.to_owned());
    let answer = Caller::try_send(request).await.unwrap();
    assert!(!answer.text.contains(SECRET), "{answer:?}");
    for rust in ["struct", "u32", "u64", "usize", "Option", "serde", "::"] {
        assert!(!answer.text.contains(rust), "{rust} in {answer:?}");
    }
    answer.problem()
}

/// The routes that take a body, each with one that is right.
async fn routes(server: &TestServer) -> Vec<(&'static str, String, serde_json::Value)> {
    let bot = server.demo.bot;
    let session = crate::http::open(&Caller::new(server), bot).await;
    vec![
        ("POST", "/v1/bots".to_owned(), json!({"name": "a"})),
        ("PATCH", format!("/v1/bots/{bot}"), json!({})),
        ("POST", "/v1/sessions".to_owned(), json!({"bot": bot})),
        (
            "POST",
            format!("/v1/sessions/{session}/messages"),
            json!({"text": "a"}),
        ),
        ("POST", "/v1/tickets".to_owned(), json!({})),
        ("POST", format!("/v1/widget/{bot}/tickets"), json!({})),
    ]
}

// H17
#[tokio::test]
async fn what_is_no_json_object_is_told_so_on_every_route() {
    let server = shared().await;
    for (method, path, _) in routes(server).await {
        for (body, expected) in [
            ("[]", "the body must be a JSON object"),
            ("\"hush-hush\"", "the body must be an object"),
            ("{\"hush-hush", "the body ends too soon (line 1, column 11)"),
            (
                "{'hush-hush'}",
                "the body is not valid JSON (line 1, column 2)",
            ),
        ] {
            let problem = refused(server, method, &path, body).await;
            assert_eq!(problem.code, ErrorCode::Invalid);
            assert_eq!(problem.detail, expected, "{method} {path} {body}");
        }
    }
}

// H17
#[tokio::test]
async fn a_field_that_is_unknown_missing_or_of_another_type_is_named() {
    let server = shared().await;
    let session = crate::http::open(&Caller::new(server), server.demo.bot).await;
    let messages = format!("/v1/sessions/{session}/messages");
    let bot = format!("/v1/bots/{}", server.demo.bot);
    let of_widget = format!("/v1/widget/{}/tickets", server.demo.bot);
    for (method, path, body, pointer, detail) in [
        ("POST", "/v1/bots", json!({}), "/name", "is missing"),
        (
            "POST",
            "/v1/bots",
            json!({"name": 7}),
            "/name",
            "must be a string",
        ),
        (
            "POST",
            "/v1/bots",
            json!({"name": " "}),
            "/name",
            "must be 1 to 100 characters, none of them a control character",
        ),
        (
            "POST",
            "/v1/bots",
            json!({"name": "a", "route": "b"}),
            "/route",
            "must be an array",
        ),
        (
            "POST",
            "/v1/bots",
            json!({"name": "a", "route": ["b"]}),
            "/route/0",
            "is not a configured upstream",
        ),
        (
            "POST",
            "/v1/bots",
            json!({"name": "a", "allowed_origins": ["https://a", "https://a:443"]}),
            "/allowed_origins/1",
            "must be an origin as browsers write it, such as https://example.com",
        ),
        (
            "PATCH",
            &*bot,
            json!({"nmae": SECRET}),
            "/nmae",
            "is unknown; allowed are name, prompt, route, model, replies, max_output_tokens, allowed_origins, \
             escalation, answer_cache_s",
        ),
        (
            "PATCH",
            &*bot,
            json!({"replies": SECRET}),
            "/replies",
            "must be true or false",
        ),
        (
            "PATCH",
            &*bot,
            json!({"max_output_tokens": -1}),
            "/max_output_tokens",
            "must be a whole number from 0 to 4294967295",
        ),
        ("POST", "/v1/sessions", json!({}), "/bot", "is missing"),
        (
            "POST",
            "/v1/sessions",
            json!({"bot": SECRET}),
            "/bot",
            "must be a UUID",
        ),
        ("POST", &*messages, json!({}), "/text", "is missing"),
        (
            "POST",
            &*messages,
            json!({"text": {"a": SECRET}}),
            "/text",
            "must be a string",
        ),
        (
            "POST",
            &*messages,
            json!({"text": "a", "id": SECRET}),
            "/id",
            "must be a UUID",
        ),
        (
            "POST",
            &*messages,
            json!({"text": "a", "stream": SECRET}),
            "/stream",
            "must be true or false",
        ),
        (
            "POST",
            "/v1/tickets",
            json!({"usr": {"id": SECRET}}),
            "/usr",
            "is unknown; allowed are user, operator",
        ),
        (
            "POST",
            "/v1/tickets",
            json!({"user": {"name": SECRET}}),
            "/user/id",
            "is missing",
        ),
        (
            "POST",
            &*of_widget,
            json!({"visitor_token": 7}),
            "/visitor_token",
            "must be a string",
        ),
    ] {
        let problem = refused(server, method, path, &body.to_string()).await;
        assert_eq!(problem.code, ErrorCode::Invalid);
        let wrong = FieldProblem::field(pointer, detail);
        assert_eq!(problem.detail, wrong.sentence(), "{method} {path}");
        assert_eq!(problem.errors, [wrong], "{method} {path} {body}");
    }
}

// H17
#[tokio::test]
async fn all_fields_that_are_wrong_are_named_at_once() {
    let server = shared().await;
    let body = json!({"name": "", "model": "", "max_output_tokens": 0});
    let problem = refused(server, "POST", "/v1/bots", &body.to_string()).await;
    let pointers = problem.errors.iter();
    let pointers: Vec<&str> = pointers
        .filter_map(|wrong| wrong.pointer.as_deref())
        .collect();
    assert_eq!(pointers, ["/name", "/model", "/max_output_tokens"]);
    assert!(problem.detail.contains("; model must be"), "{problem:?}");
}

// H17
#[tokio::test]
async fn a_body_without_its_kind_or_of_another_is_415_and_says_which_is_right() {
    let server = shared().await;
    for (method, path, body) in routes(server).await.into_iter().take(4) {
        for kind in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
        ] {
            let request = Caller::new(server).request(method, &path);
            let request = request.body(body.to_string());
            let request = match kind {
                Some(kind) => request.header("content-type", kind),
                None => request,
            };
            let answer = Caller::try_send(request).await.unwrap();
            let problem = answer.problem();
            assert_eq!(problem.code, ErrorCode::UnsupportedMedia, "{path} {kind:?}");
            assert_eq!(problem.status, 415);
            assert_eq!(problem.detail, "Content-Type must be application/json");
        }
        for kind in [
            "application/json; charset=utf-8",
            "Application/JSON",
            "application/merge-patch+json",
        ] {
            let request = Caller::new(server).request(method, &path);
            let request = request.body(body.to_string()).header("content-type", kind);
            let answer = Caller::try_send(request).await.unwrap();
            assert!(answer.status < 300, "{path} {kind}: {answer:?}");
        }
    }
}

// H17
#[tokio::test]
async fn parameters_of_queries_and_paths_are_named() {
    let server = shared().await;
    let none = SessionId::generate();
    for (path, parameter, detail) in [
        ("/v1/bots?limit=0".to_owned(), "limit", "must be 1 to 200"),
        (
            "/v1/bots?limit=x".to_owned(),
            "limit",
            "must be a whole number",
        ),
        ("/v1/bots?cursor=x".to_owned(), "cursor", "must be a UUID"),
        (
            "/v1/bots?limt=1".to_owned(),
            "limt",
            "is unknown; allowed are cursor, limit",
        ),
        (
            "/v1/sessions?cursor=x".to_owned(),
            "cursor",
            "is not one this server gave",
        ),
        (
            "/v1/sessions?visitor=1".to_owned(),
            "visitor",
            "must be a UUID",
        ),
        (
            format!("/v1/sessions/{none}/messages?after=-1"),
            "after",
            "must be a whole number",
        ),
        (
            format!("/v1/sessions/{none}/messages?after=1&after=2"),
            "after",
            "is given twice",
        ),
    ] {
        let problem = Caller::new(server).get(&path).await.problem();
        assert_eq!(problem.code, ErrorCode::Invalid, "{path}");
        assert_eq!(
            problem.errors,
            [FieldProblem::parameter(parameter, detail)],
            "{path}"
        );
    }
    for (path, parameter) in [
        ("/v1/bots/x", "bot"),
        ("/v1/sessions/hush-hush", "session"),
        ("/v1/sessions/1/messages", "session"),
    ] {
        let problem = Caller::new(server).get(path).await.problem();
        assert_eq!(problem.code, ErrorCode::NotFound, "{path}");
        assert_eq!(problem.detail, format!("{parameter} must be a UUID"));
    }
}
