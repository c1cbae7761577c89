//! What upstreams make of an answer, from the bytes they send to what a device and the log hold.

use std::time::{Duration, Instant};

use hubbub_protocol::{Cut, ErrorCode, FailureReason, ReplyState, ServerFrame};
use serde_json::Value;

use crate::client::{Caller, Device};
use crate::scripted::{Scripted, events, finish, refusal, text};
use crate::server::{Setup, TestServer};

async fn server(upstreams: &[(&str, &Scripted)]) -> TestServer {
    let upstreams: Vec<_> = upstreams.iter().map(|(name, u)| u.config(name)).collect();
    let upstreams = format!("[{}]", upstreams.join(", "));
    tokio::task::spawn_blocking(move || Setup::default().set("upstreams", upstreams).start())
        .await
        .unwrap()
}

fn last(request: &Value) -> &str {
    let messages = request["messages"].as_array().unwrap();
    messages.last().unwrap()["content"].as_str().unwrap()
}

fn failure(
    ended: Result<hubbub_protocol::MessageFrame, ReplyState>,
) -> hubbub_protocol::reply::ErrorBody {
    match ended {
        Err(ReplyState::Failed { error }) => error,
        other => panic!("{other:?}"),
    }
}

// M1
#[tokio::test]
async fn an_answer_without_a_visible_word_costs_one_attempt_and_delays_nobody() {
    let upstream = Scripted::start(|_, request| {
        if last(request).starts_with("think") {
            let thought = r#"{"choices":[{"delta":{"content":null,"reasoning_content":"a"}}]}"#;
            return events(&[thought, thought, &finish("length"), "[DONE]"]);
        }
        events(&[&text("Hello."), &finish("stop"), "[DONE]"])
    })
    .await;
    let server = server(&[("one", &upstream)]).await;
    let mut device = Device::connect(&server).await;
    for n in 0..5 {
        let session = device.open(server.demo.bot).await.session;
        let error = failure(device.ask(session, &format!("think {n}")).await);
        assert_eq!(error.reason, Some(FailureReason::Empty));
    }
    assert_eq!(upstream.requests().len(), 5);
    let session = device.open(server.demo.bot).await.session;
    let asked = Instant::now();
    assert_eq!(device.ask(session, "hello").await.unwrap().text, "Hello.");
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "the breaker is closed"
    );
}

// M3
#[tokio::test]
async fn a_cut_answer_says_so_wherever_it_is_read() {
    let upstream = Scripted::start(|n, _| match n {
        0 => events(&[&text("Half of "), &finish("length"), "[DONE]"]),
        _ => events(&[&text("Half of ")]),
    })
    .await;
    let server = server(&[("one", &upstream)]).await;
    let caller = Caller::new(&server);
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    let message = device.ask(session, "one").await.unwrap();
    assert_eq!(message.cut, Some(Cut::Length));
    assert!(message.usage.unwrap().estimated);
    let error = failure(device.ask(session, "two").await);
    assert_eq!(error.reason, Some(FailureReason::Cut));
    assert_eq!(upstream.requests().len(), 2, "nothing is asked again");

    let page = caller.transcript(session).await;
    assert_eq!(page.messages[1], message);
    assert_eq!(page.ended[0].text, "Half of ");
    let told = serde_json::to_value(&page.ended[0].state).unwrap();
    assert_eq!(told["error"]["reason"], "cut");
    let joined = Device::connect(&server).await.join(session).await;
    assert_eq!((joined.messages, joined.ended), (page.messages, page.ended));
}

// M9, H12
#[tokio::test]
async fn an_upstream_with_a_wrong_key_is_passed_over_or_told_at_once() {
    let wrong = Scripted::start(|_, _| refusal(401, r#"{"error":{"message":"bad key"}}"#)).await;
    let good = Scripted::start(|_, _| events(&[&text("Yes."), &finish("stop"), "[DONE]"])).await;
    let server = server(&[("wrong", &wrong), ("good", &good)]).await;
    let caller = Caller::new(&server);
    let mut device = Device::connect(&server).await;
    for _ in 0..3 {
        let session = device.open(server.demo.bot).await.session;
        assert_eq!(device.ask(session, "hello").await.unwrap().text, "Yes.");
    }
    assert_eq!(wrong.requests().len(), 1, "not each visitor pays for it");
    let metrics = caller.get("/metrics").await.text;
    assert!(metrics.contains("hubbub_llm_set_aside{upstream=\"wrong\"} 1"));
    assert!(metrics.contains("hubbub_llm_breaker_open{upstream=\"wrong\"} 0"));

    let bot = caller.bot(&["wrong"]).await;
    let session = device.open(bot).await.session;
    let asked = Instant::now();
    let error = failure(device.ask(session, "hello").await);
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(asked.elapsed() < Duration::from_secs(4), "one attempt");
    assert_eq!(wrong.requests().len(), 2);
}

// M13
#[tokio::test]
async fn a_question_asked_during_an_answer_is_answered_with_it_in_view() {
    let upstream = Scripted::start(|n, _| {
        let mut script = events(&[&text(&format!("answer {}", n + 1)), &finish("stop")]);
        script[1].0 = Duration::from_millis(800);
        script
    })
    .await;
    let server = server(&[("one", &upstream)]).await;
    let mut device = Device::connect(&server).await;
    let session = device.open(server.demo.bot).await.session;
    device.say(session, "question 1").await.unwrap();
    device.say(session, "question 2").await.unwrap();
    let mut answers = 0;
    device
        .until(|frame| {
            answers += usize::from(matches!(&frame, ServerFrame::Message(m) if m.reply.is_some()));
            (answers == 2).then_some(())
        })
        .await;
    let requests = upstream.requests();
    let said = requests[1]["messages"].as_array().unwrap().iter();
    let said: Vec<_> = said
        .filter(|turn| turn["role"] != "system")
        .map(|turn| turn["content"].as_str().unwrap())
        .collect();
    assert_eq!(said, ["question 1", "answer 1", "question 2"]);
}
