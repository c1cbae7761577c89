//! Upstreams that do wrong cost their own replies, and nothing else.

use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::{Mode, answer_text};
use hubbub_protocol::{ErrorCode, ReplyState, ServerFrame};
use serde_json::json;

use crate::client::{Caller, Device, is_end};
use crate::server::{Setup, TOKENS, quick, shared, spoiled};

// R005, P13
#[tokio::test]
async fn whatever_an_upstream_does_a_reply_has_one_typed_end_and_the_next_question_is_answered() {
    let server = shared().await;
    let mut rows = tokio::task::JoinSet::new();
    for name in ["error", "busy", "hang", "garbage", "half"] {
        rows.spawn(async move {
            let caller = Caller::new(server);
            let bot = caller.bot(&[name]).await;
            let mut device = Device::connect(server).await;
            let session = device.open(bot).await.session;
            let started = Instant::now();
            let state = device.ask(session, "hello").await.unwrap_err();
            let ReplyState::Failed { error } = state else {
                panic!("{name}: {state:?}")
            };
            println!(
                "{name}: {} after {:?}: {}",
                error.code,
                started.elapsed(),
                error.message
            );
            let expected = [ErrorCode::Unavailable, ErrorCode::Overloaded];
            assert!(expected.contains(&error.code), "{name}: {error:?}");
            assert!(!error.message.contains("127.0.0.1"), "{name}: {error:?}");

            let route = json!({"route": ["sim"]});
            let changed = caller
                .send("PATCH", &format!("/v1/bots/{bot}"), &route)
                .await;
            assert_eq!(changed.status, 200, "{changed:?}");
            device.say(session, "again").await.unwrap();
            let answer = loop {
                match device.next().await.unwrap() {
                    ServerFrame::Message(message) if message.reply.is_some() => break message,
                    ServerFrame::Reply(reply) if is_end(&reply.state) => {
                        panic!("{name}: a second end, or the change was not seen: {reply:?}")
                    }
                    _ => {}
                }
            };

            // Two turns of the visitor in a row are one, unless something of an answer was shown between them.
            let asked = if name == "half" {
                "again"
            } else {
                "hello\n\nagain"
            };
            assert_eq!(answer.text, answer_text(asked, TOKENS));
            let page = caller.transcript(session).await;
            assert_eq!(
                (page.messages.len(), page.ended.len()),
                (3, 1),
                "{name}: {page:?}"
            );
            assert_eq!(page.ended[0].to.0, 1);
            let is_cut = name == "half";
            assert_eq!(
                page.ended[0].text.is_empty(),
                !is_cut,
                "{name}: {:?}",
                page.ended
            );
        });
    }
    while let Some(row) = rows.join_next().await {
        row.unwrap();
    }
}

// R022
#[tokio::test]
async fn with_one_of_two_upstreams_dead_new_questions_are_answered_by_the_other() {
    let server = tokio::task::spawn_blocking(|| {
        let setup = Setup::default()
            .upstream("first", quick())
            .upstream("second", quick());
        setup
            .set("llm.default_route", "[\"first\", \"second\"]")
            .start()
    })
    .await
    .unwrap();
    let mut server = server;
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    device.ask(session, "before").await.unwrap();
    assert_eq!(server.upstream("first").counters().completed, 1);
    server.stop_upstream("first");
    for n in 0..5 {
        let question = format!("question {n}");
        let started = Instant::now();
        let answer = device.ask(session, &question).await.unwrap();
        assert_eq!(answer.text, answer_text(&question, TOKENS));
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
    }
    assert_eq!(server.upstream("second").counters().completed, 5);
}

#[tokio::test]
async fn a_silent_upstream_is_not_waited_for_alone_and_both_are_on_the_ledger() {
    let server = tokio::task::spawn_blocking(|| {
        let setup = Setup::default()
            .upstream("hang", spoiled(Mode::Hang))
            .upstream("good", quick());
        setup
            .set("llm.default_route", "[\"hang\", \"good\"]")
            .set("llm.hedge_after_ms", 100)
            .start()
    });
    let server = server.await.unwrap();
    let caller = Caller::new(&server);
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    let started = Instant::now();
    let answer = device.ask(session, "hello").await.unwrap();
    println!("answered after {:?}", started.elapsed());
    assert_eq!(answer.text, answer_text("hello", TOKENS));
    let is_closed = || server.upstream("hang").counters().running == 0;
    while !is_closed() {
        assert!(started.elapsed() < Duration::from_secs(1), "still open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let counters = ["hang", "good"].map(|name| server.upstream(name).counters());
    assert_eq!(counters.map(|c| (c.started, c.cancelled)), [(1, 1), (1, 0)]);
    let path = format!("/v1/usage?session={session}&by=model");
    let usage: serde_json::Value = caller.get(&path).await.json();
    assert_eq!(usage["total"]["attempts"], 2, "{usage}");
    let metrics = caller.get("/metrics").await;
    let taken = r#"hubbub_llm_hedges_total{taken="second"} 1"#;
    assert!(metrics.text.contains(taken), "{}", metrics.text);
}
