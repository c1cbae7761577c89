//! The same conversation with upstreams of every dialect.

use std::time::Duration;

use hubbub_loadtest::simllm::{self, Behaviour, Mode, SimLlm, answer_text};
use hubbub_protocol::client::Stop;
use hubbub_protocol::{ClientFrame, ErrorCode, ReplyState, ServerFrame};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::{Caller, Device};
use crate::server::{Setup, quick, spoiled};

async fn upstream(behaviour: Behaviour) -> SimLlm {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    simllm::serve(listener, behaviour).unwrap()
}

// R023
#[tokio::test]
async fn every_dialect_answers_counts_stops_and_fails_over_alike() {
    for api in ["openai", "anthropic", "ollama"] {
        let failing = upstream(spoiled(Mode::Error)).await;
        let half = upstream(spoiled(Mode::Half)).await;
        let good = upstream(quick()).await;
        let base = |of: &SimLlm| match api {
            "ollama" => of.ollama_url(),
            _ => of.base_url(),
        };
        let setup = Setup::default()
            .speaking("failing", &base(&failing), api)
            .speaking("half", &base(&half), api)
            .speaking("good", &base(&good), api);
        let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
        let caller = Caller::new(&server);
        let body = json!({"name": "Fern", "prompt": "be kind", "route": ["failing", "good"],
            "max_output_tokens": 10});
        let bot: Value = caller.post("/v1/bots", &body).await.json();
        let bot = serde_json::from_value(bot["id"].clone()).unwrap();
        let mut device = Device::connect(&server).await;
        let session = device.open(bot).await.session;

        // The first fails and is asked once; the bound is kept and told.
        let answer = device.ask(session, "one two three").await.unwrap();
        assert_eq!(answer.text, answer_text("one two three", 10), "{api}");
        assert_eq!(answer.cut, Some(hubbub_protocol::Cut::Length), "{api}");
        let usage = answer.usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (5, 10), "{api}");
        assert!(!usage.estimated, "{api}");
        assert_eq!(failing.counters().started, 1, "{api}");
        // What was said goes along.
        let answer = device.ask(session, "four").await.unwrap();
        assert_eq!(answer.usage.unwrap().input_tokens, 2 + 3 + 10 + 1, "{api}");

        // Stopped: the request is closed, what was written stays.
        good.set_behaviour(Behaviour {
            token_interval_ms: 50,
            ..quick()
        });
        device.say(session, "five").await.unwrap();
        let is_text = |frame| matches!(frame, ServerFrame::Delta(_)).then_some(());
        device.until(is_text).await;
        let reference = None;
        let stop = ClientFrame::Stop(Stop { reference, session });
        device.send(&stop).await.unwrap();
        let end = device.reply_end().await.unwrap_err();
        assert_eq!(end, ReplyState::Cancelled, "{api}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let counters = good.counters();
        assert_eq!((counters.running, counters.cancelled), (0, 1), "{api}");

        // It breaks off in the middle: typed, and not asked again.
        let broken = caller.bot(&["half"]).await;
        let session = device.open(broken).await.session;
        let Err(ReplyState::Failed { error }) = device.ask(session, "six").await else {
            panic!("{api}: it did not fail")
        };
        assert_eq!(error.code, ErrorCode::Unavailable, "{api}");
        assert_eq!(half.counters().started, 1, "{api}");
    }
}
