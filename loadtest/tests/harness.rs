//! The harness, the simulated upstream and the bare reference against each other, in one process.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::time::Duration;

use hubbub_loadtest::harness::report::Report;
use hubbub_loadtest::harness::target::{Target, TargetArguments};
use hubbub_loadtest::harness::{chats, fanout};
use hubbub_loadtest::simllm::{self, Behaviour, Mode, SimLlm, answer_text};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

async fn upstream(behaviour: Behaviour) -> SimLlm {
    simllm::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), behaviour).unwrap()
}

fn quick() -> Behaviour {
    Behaviour {
        ttft_ms: 20,
        token_interval_ms: 2,
        tokens: 20,
        ..Behaviour::default()
    }
}

async fn bare(upstream: &SimLlm) -> (Target, JoinHandle<anyhow::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(hubbub_loadtest::bare::serve(
        listener,
        Some(upstream.base_url()),
    ));
    let target = Target::new(&TargetArguments {
        url: Some(url),
        api_key: String::new(),
        bot: None,
        demo: None,
        bare: true,
        server_pid: None,
        connect_rate: 1_000,
        report: None,
    });
    (target.unwrap(), serving)
}

async fn chat(upstream: &SimLlm) -> Report {
    let (target, serving) = bare(upstream).await;
    let options = chats::Chats {
        concurrency: 10,
        rounds: 2,
        duration: 20,
        ramp: 0.1,
        deadline: 10,
        simllm: Some(upstream.base_url()),
        upstream_ttft_ms: 0,
        no_read_back: false,
        patient: false,
        fresh: false,
        late_ms: 0,
    };
    let report = chats::run(&target, &options, &CancellationToken::new())
        .await
        .unwrap();
    serving.abort();
    report
}

async fn ask(upstream: &SimLlm, body: &str) -> (u16, String) {
    let response = reqwest::Client::new()
        .post(format!("{}/chat/completions", upstream.base_url()))
        .body(body.to_owned())
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    (
        status,
        response.text().await.unwrap_or_else(|_| "cut".to_owned()),
    )
}

const STREAMED: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},
    "messages":[{"role":"system","content":"be"},{"role":"user","content":"hi there"}]}"#;

#[tokio::test]
async fn chats_over_the_bare_reference_keep_every_promise() {
    let upstream = upstream(quick()).await;
    let report = chat(&upstream).await;
    assert_eq!(report.violations.told, Vec::<String>::new());
    assert_eq!(report.value("asked"), Some(20.0));
    assert_eq!(report.value("answered"), Some(20.0));
    assert_eq!(report.value("tokens"), Some(400.0));
    assert!(report.value("time to first token p50").unwrap() >= 19.0);
    assert_eq!(
        (upstream.counters().completed, upstream.counters().tokens),
        (20, 400)
    );
}

#[tokio::test]
async fn failed_answers_are_counted_by_code() {
    let upstream = upstream(Behaviour {
        mode: Mode::Error,
        ..quick()
    })
    .await;
    let report = chat(&upstream).await;
    assert_eq!(report.value("error unavailable"), Some(20.0));
    assert_eq!(report.value("answered"), Some(0.0));
}

#[tokio::test]
async fn fanout_over_the_bare_reference_reaches_every_device() {
    let (target, serving) = bare(&upstream(quick()).await).await;
    let options = fanout::Fanout {
        sessions: 3,
        devices: 4,
        rate: 60.0,
        duration: 1,
        chars: 50,
    };
    let report = fanout::run(&target, &options, &CancellationToken::new())
        .await
        .unwrap();
    serving.abort();
    assert_eq!(report.violations.told, Vec::<String>::new());
    let sent = report.value("messages sent").unwrap();
    assert!(sent >= 30.0, "{sent}");
    assert_eq!(report.value("deliveries"), Some(sent * 4.0));
}

#[tokio::test]
async fn a_stream_carries_the_expected_text_and_its_usage() {
    let upstream = upstream(quick()).await;
    let (status, text) = ask(&upstream, STREAMED).await;
    let events: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|event| serde_json::from_str(event).ok())
        .collect();
    let said: String = events
        .iter()
        .filter_map(|e| e["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!((status, said), (200, answer_text("hi there", 20)));
    let usage = &events.last().unwrap()["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&3.into(), &20.into())
    );
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn an_answer_without_streaming_is_whole_and_obeys_max_tokens() {
    let upstream = upstream(quick()).await;
    let body = r#"{"max_tokens":3,"messages":[{"role":"user","content":"x"}]}"#;
    let (status, text) = ask(&upstream, body).await;
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        answer_text("x", 3)
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn every_mode_misbehaves_in_its_own_way() {
    let upstream = upstream(quick()).await;
    let set = |mode| upstream.set_behaviour(Behaviour { mode, ..quick() });
    set(Mode::Error);
    assert_eq!(ask(&upstream, STREAMED).await.0, 500);
    set(Mode::Busy);
    assert_eq!(ask(&upstream, STREAMED).await.0, 429);
    set(Mode::Half);
    assert_eq!(ask(&upstream, STREAMED).await, (200, "cut".to_owned()));
    set(Mode::Garbage);
    let (status, garbage) = ask(&upstream, STREAMED).await;
    assert!(status == 200 && !garbage.contains("data:"), "{garbage}");
    set(Mode::Hang);
    let hanging = tokio::time::timeout(Duration::from_millis(100), ask(&upstream, STREAMED));
    assert!(hanging.await.is_err());
    assert_eq!(upstream.counters().started, 5);
}

#[tokio::test]
async fn a_client_that_closes_is_counted_and_control_tells_it() {
    let upstream = upstream(Behaviour {
        ttft_ms: 60_000,
        ..quick()
    })
    .await;
    let asking = tokio::time::timeout(Duration::from_millis(100), ask(&upstream, STREAMED));
    assert!(asking.await.is_err());
    tokio::time::timeout(Duration::from_secs(5), async {
        while upstream.counters().cancelled != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(upstream.counters().running, 0);
    let url = format!("http://{}/control", upstream.address());
    let put = |body: &'static str| reqwest::Client::new().put(&url).body(body).send();
    assert_eq!(put(r#"{"mode":"nonsense"}"#).await.unwrap().status(), 400);
    assert_eq!(put(r#"{"error_rate":2}"#).await.unwrap().status(), 400);
    let changed = put(r#"{"mode":"busy","reset_counters":true}"#)
        .await
        .unwrap();
    let told: serde_json::Value = serde_json::from_str(&changed.text().await.unwrap()).unwrap();
    assert_eq!(told["behaviour"]["mode"], "busy");
    assert_eq!(told["counters"]["cancelled"], 0);
    assert_eq!(upstream.behaviour().mode, Mode::Busy);
}

#[tokio::test]
async fn requests_beyond_the_slots_are_refused() {
    let upstream = upstream(Behaviour {
        slots: 1,
        ttft_ms: 200,
        tokens: 1,
        ..quick()
    })
    .await;
    let (first, second) = tokio::join!(ask(&upstream, STREAMED), ask(&upstream, STREAMED));
    let mut statuses = [first.0, second.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429]);
    assert_eq!(upstream.counters().max_running, 2);
}
