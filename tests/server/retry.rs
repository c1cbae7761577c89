//! A refusal that passes by itself says when to come back, by whatever door it is told.

use hubbub_protocol::client::Join;
use hubbub_protocol::reply::ErrorBody;
use hubbub_protocol::{ErrorCode, ReplyState};
use serde_json::{Value, json};

use crate::client::{Caller, Device, of};
use crate::server::{Setup, shared};

fn failure(state: ReplyState) -> ErrorBody {
    match state {
        ReplyState::Failed { error } => error,
        other => panic!("not failed: {other:?}"),
    }
}

#[tokio::test]
async fn a_failed_reply_says_when_to_ask_again_live_and_in_the_log() {
    let server = shared().await;
    let caller = Caller::new(server);
    let bot = caller.bot(&["error"]).await;
    let mut device = Device::connect(server).await;
    let session = device.open(bot).await.session;
    let error = failure(device.ask(session, "hello").await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.retry_after_ms.is_some_and(|ms| ms > 0), "{error:?}");

    // As everybody learns it who comes later.
    let joined = Device::connect(server).await.join(session).await;
    let mut ended = joined.ended;
    ended.extend(caller.transcript(session).await.ended);
    assert_eq!(ended.len(), 2);
    for ended in ended {
        let stored = failure(ended.state);
        assert_eq!(stored.code, error.code);
        assert!(stored.retry_after_ms.is_some_and(|ms| ms > 0), "{stored:?}");
    }
    let path = format!("/v1/sessions/{session}/messages");
    let body = json!({"text": "again", "stream": true});
    let streamed = caller.post(&path, &body).await;
    let failed = streamed
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let failed: Vec<Value> = failed
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|frame: &Value| frame["state"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{}", streamed.text);
    assert!(failed[0]["error"]["retry_after_ms"].as_u64().is_some());
}

#[tokio::test]
async fn a_device_too_many_is_told_when_another_may_have_left() {
    let setup = Setup::new().set("limits.devices_per_session", 1);
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let mut first = Device::connect(&server).await;
    let session = first.open(server.demo.bot).await.session;
    let mut second = Device::connect(&server).await;
    let join = Join {
        after: None,
        ..of(session)
    };
    let refused = second.try_join(join).await.unwrap_err().error;
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(
        refused.retry_after_ms.is_some_and(|ms| ms > 0),
        "{refused:?}"
    );
}
