//! The HTTP API, as a program uses it.

use hubbub_loadtest::simllm::answer_text;
use hubbub_protocol::http::{Bot, MessagePage, Page, PostedMessage, Session};
use hubbub_protocol::{ErrorCode, SessionId};
use serde_json::{Value, json};

use crate::client::{Caller, Device};
use crate::server::shared;

/// Opens a session of a bot.
pub async fn open(caller: &Caller, bot: hubbub_protocol::BotId) -> SessionId {
    let opened = caller.post("/v1/sessions", &json!({"bot": bot})).await;
    assert_eq!(opened.status, 201, "{opened:?}");
    opened.json::<Session>().id
}

#[tokio::test]
async fn bots_are_created_listed_shown_and_changed() {
    let server = shared().await;
    let caller = Caller::new(server);
    let body = json!({"name": "Fern", "prompt": "Be kind.", "route": ["sim"], "model": "m",
        "max_output_tokens": 7, "allowed_origins": ["https://shop.example"]});
    let created = caller.post("/v1/bots", &body).await;
    assert_eq!(created.status, 201, "{created:?}");
    let bot: Bot = created.json();
    let path = format!("/v1/bots/{}", bot.id);
    assert_eq!(caller.get(&path).await.json::<Bot>(), bot);

    let changed = caller
        .send("PATCH", &path, &json!({"name": "Ivy", "model": null}))
        .await;
    let changed: Bot = changed.json();
    assert_eq!((changed.name.as_str(), &changed.model), ("Ivy", &None));
    assert_eq!((&changed.prompt, &changed.route), (&bot.prompt, &bot.route));

    let (mut cursor, mut ids) = (String::new(), Vec::new());
    loop {
        let page: Page<Bot> = caller
            .get(&format!("/v1/bots?limit=2{cursor}"))
            .await
            .json();
        assert!(page.items.len() <= 2);
        ids.extend(page.items.iter().map(|bot| bot.id));
        let Some(next) = page.next else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(ids.contains(&bot.id) && ids.contains(&server.demo.bot));
    assert!(ids.is_sorted(), "oldest first");

    // Its limit holds for answers.
    let session = open(&caller, bot.id).await;
    let mut device = Device::connect(server).await;
    device.join(session).await;
    assert_eq!(
        device.ask(session, "short").await.unwrap().text,
        answer_text("short", 7)
    );
}

#[tokio::test]
async fn what_is_wrong_in_a_request_is_a_problem_with_the_right_code() {
    let server = shared().await;
    let caller = Caller::new(server);
    let (bot, none) = (server.demo.bot, SessionId::generate());
    let session = open(&caller, bot).await;
    let messages = format!("/v1/sessions/{session}/messages");
    let rows = [
        (
            "GET",
            "/v1/nothing".to_owned(),
            json!({}),
            ErrorCode::NotFound,
        ),
        (
            "GET",
            format!("/v1/bots/{none}"),
            json!({}),
            ErrorCode::NotFound,
        ),
        (
            "GET",
            "/v1/bots/x".to_owned(),
            json!({}),
            ErrorCode::NotFound,
        ),
        (
            "GET",
            "/v1/bots?limit=0".to_owned(),
            json!({}),
            ErrorCode::Invalid,
        ),
        (
            "GET",
            "/v1/bots?cursor=x".to_owned(),
            json!({}),
            ErrorCode::Invalid,
        ),
        ("POST", "/v1/bots".to_owned(), json!({}), ErrorCode::Invalid),
        (
            "POST",
            "/v1/bots".to_owned(),
            json!({"name": " "}),
            ErrorCode::Invalid,
        ),
        (
            "POST",
            "/v1/bots".to_owned(),
            json!({"name": "x", "route": ["y"]}),
            ErrorCode::Invalid,
        ),
        (
            "POST",
            "/v1/bots".to_owned(),
            json!({"name": "x", "unknown": 1}),
            ErrorCode::Invalid,
        ),
        (
            "POST",
            "/v1/bots".to_owned(),
            json!({"name": "x", "allowed_origins": ["https://x/path"]}),
            ErrorCode::Invalid,
        ),
        (
            "PATCH",
            format!("/v1/bots/{none}"),
            json!({"name": "x"}),
            ErrorCode::NotFound,
        ),
        (
            "PATCH",
            format!("/v1/bots/{bot}"),
            json!({"max_output_tokens": 0}),
            ErrorCode::Invalid,
        ),
        (
            "POST",
            "/v1/sessions".to_owned(),
            json!({"bot": none}),
            ErrorCode::NotFound,
        ),
        (
            "POST",
            "/v1/sessions".to_owned(),
            json!({"bot": 1}),
            ErrorCode::Invalid,
        ),
        (
            "GET",
            "/v1/sessions?limit=201".to_owned(),
            json!({}),
            ErrorCode::Invalid,
        ),
        (
            "GET",
            "/v1/sessions?cursor=x".to_owned(),
            json!({}),
            ErrorCode::Invalid,
        ),
        (
            "GET",
            format!("/v1/sessions/{none}"),
            json!({}),
            ErrorCode::NotFound,
        ),
        (
            "GET",
            format!("/v1/sessions/{none}/messages"),
            json!({}),
            ErrorCode::NotFound,
        ),
        (
            "GET",
            format!("{messages}?limit=201"),
            json!({}),
            ErrorCode::Invalid,
        ),
        (
            "GET",
            format!("{messages}?after=1&before=2"),
            json!({}),
            ErrorCode::Invalid,
        ),
        (
            "GET",
            format!("{messages}?after=x"),
            json!({}),
            ErrorCode::Invalid,
        ),
        (
            "POST",
            messages.clone(),
            json!({"text": ""}),
            ErrorCode::Invalid,
        ),
        (
            "POST",
            messages.clone(),
            json!({"text": 1}),
            ErrorCode::Invalid,
        ),
        (
            "POST",
            messages.clone(),
            json!({"text": "a\u{0}b"}),
            ErrorCode::Invalid,
        ),
        (
            "POST",
            messages.clone(),
            json!({"text": "x".repeat(16_001)}),
            ErrorCode::TooLarge,
        ),
        (
            "POST",
            messages.clone(),
            json!({"text": "x".repeat(300_000)}),
            ErrorCode::TooLarge,
        ),
        (
            "POST",
            format!("/v1/sessions/{none}/messages"),
            json!({"text": "x"}),
            ErrorCode::NotFound,
        ),
        (
            "POST",
            format!("/v1/widget/{none}/tickets"),
            json!({}),
            ErrorCode::NotFound,
        ),
    ];
    let mut wrong = Vec::new();
    for (method, path, body, expected) in rows {
        let answer = match method {
            "GET" => caller.get(&path).await,
            _ => caller.send(method, &path, &body).await,
        };
        let shown: String = format!("{method} {path} {body}")
            .chars()
            .take(120)
            .collect();
        if answer.status != expected.http_status() {
            wrong.push(format!("{shown}: {} {}", answer.status, answer.text));
            continue;
        }
        let problem = answer.problem();
        if problem.code != expected {
            wrong.push(format!("{shown}: {problem:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(caller.transcript(session).await.messages.len(), 0);
}

#[tokio::test]
async fn history_pages_both_ways_without_gap_or_overlap() {
    let server = shared().await;
    let caller = Caller::new(server);
    let session = open(&caller, caller.bot(&[]).await).await;
    let path = format!("/v1/sessions/{session}/messages");
    for n in 1..=25 {
        let posted = caller.post(&path, &json!({"text": format!("{n}")})).await;
        assert_eq!(posted.status, 201, "{posted:?}");
        let posted: PostedMessage = posted.json();
        assert_eq!(
            (posted.seq.0, posted.duplicate, posted.reply),
            (n, false, None)
        );
    }
    let all: Vec<u64> = (1..=25).collect();
    let page = async |query: String| -> MessagePage {
        let page: MessagePage = caller.get(&format!("{path}?limit=7{query}")).await.json();
        assert!(page.messages.len() <= 7);
        page
    };
    let (mut up, mut query, mut more) = (Vec::new(), "&after=0".to_owned(), true);
    while more {
        let page = page(query).await;
        up.extend(page.messages.iter().map(|message| message.seq.0));
        (query, more) = (format!("&after={}", up.last().unwrap()), page.more);
    }
    assert_eq!(up, all);
    let (mut down, mut query, mut more) = (Vec::new(), String::new(), true);
    while more {
        let page = page(query).await;
        down.splice(0..0, page.messages.iter().map(|message| message.seq.0));
        (query, more) = (format!("&before={}", down[0]), page.more);
    }
    assert_eq!(down, all);
    let past = page("&after=25".to_owned()).await;
    assert!(past.messages.is_empty() && !past.more);
}

#[tokio::test]
async fn sessions_are_listed_last_active_first_and_page_without_overlap() {
    let server = shared().await;
    let caller = Caller::new(server);
    let bot = caller.bot(&[]).await;
    let mut opened = Vec::new();
    for _ in 0..5 {
        opened.push(open(&caller, bot).await);
    }
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/sessions?bot={bot}&limit=2{cursor}");
        let page: Page<Session> = caller.get(&path).await.json();
        listed.extend(page.items.iter().map(|session| session.id));
        let Some(next) = page.next else { break };
        cursor = format!("&cursor={next}");
    }
    opened.reverse();
    assert_eq!(listed, opened);
}

#[tokio::test]
async fn machines_that_watch_are_answered() {
    let server = shared().await;
    let caller = Caller::with(server, None);
    assert_eq!(caller.get("/livez").await.status, 200);
    let ready: Value = caller.get("/readyz").await.json();
    assert_eq!(
        ready,
        json!({"ready": true, "database": "ok", "draining": false})
    );
    let version: Value = caller.get("/version").await.json();
    assert_eq!(
        (&version["name"], &version["protocol"]),
        (&json!("hubbub"), &json!("hubbub.v1"))
    );
    let _device = Device::connect(server).await;
    let metrics = caller.get("/metrics").await;
    assert!(
        metrics.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    for name in [
        "hubbub_connections_open ",
        "hubbub_http_requests_total",
        "hubbub_db_connections",
    ] {
        assert!(
            metrics.text.contains(name),
            "{name} is not in\n{}",
            metrics.text
        );
    }
    let id = caller.get("/livez").await.headers["x-request-id"].clone();
    assert_ne!(caller.get("/livez").await.headers["x-request-id"], id);
}
