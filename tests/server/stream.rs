//! Answers as server-sent events.

use hubbub_loadtest::simllm::answer_text;
use hubbub_protocol::http::PostedMessage;
use hubbub_protocol::{ClientMessageId, ErrorCode, ServerFrame};
use serde_json::json;

use crate::client::Caller;
use crate::http::open;
use crate::server::{TOKENS, shared};

/// The frames of an event stream.
fn events(text: &str) -> Vec<ServerFrame> {
    let blocks = text
        .split("\n\n")
        .filter(|block| !block.is_empty() && !block.starts_with(':'));
    blocks
        .map(|block| {
            let (event, data) = block.split_once('\n').unwrap();
            let frame: ServerFrame =
                serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(event, format!("event: {}", frame.kind()));
            frame
        })
        .collect()
}

#[tokio::test]
async fn a_posted_message_streams_its_answer_and_a_repeat_its_end() {
    let server = shared().await;
    let caller = Caller::new(server);
    let session = open(&caller, server.demo.bot).await;
    let path = format!("/v1/sessions/{session}/messages");
    let id = ClientMessageId::generate();
    let body = json!({"id": id, "text": "stream it", "stream": true});
    let streamed = caller.post(&path, &body).await;
    assert_eq!(streamed.headers["content-type"], "text/event-stream");
    let frames = events(&streamed.text);
    let Some(ServerFrame::Ack(ack)) = frames.first() else {
        panic!("{frames:?}")
    };
    assert_eq!((ack.id, ack.seq.0, ack.duplicate), (id, 1, false));
    let text: String = frames
        .iter()
        .filter_map(|frame| match frame {
            ServerFrame::Delta(delta) => Some(delta.text.as_str()),
            _ => None,
        })
        .collect();
    let Some(ServerFrame::Message(end)) = frames.last() else {
        panic!("{frames:?}")
    };
    assert_eq!(end.text, answer_text("stream it", TOKENS));
    assert_eq!(text, end.text);

    let again = events(&caller.post(&path, &body).await.text);
    let [ServerFrame::Ack(ack), ServerFrame::Message(message)] = again.as_slice() else {
        panic!("{again:?}")
    };
    assert!(ack.duplicate);
    assert_eq!(message, end);

    // Without a stream, the repeat is 200 and the first 201; another text under the id is a conflict.
    let repeat = caller
        .post(&path, &json!({"id": id, "text": "stream it"}))
        .await;
    assert_eq!(repeat.status, 200);
    assert!(repeat.json::<PostedMessage>().duplicate);
    for stream in [false, true] {
        let body = json!({"id": id, "text": "other", "stream": stream});
        assert_eq!(
            caller.post(&path, &body).await.problem().code,
            ErrorCode::Conflict
        );
    }
    assert_eq!(caller.transcript(session).await.messages.len(), 2);
}

#[tokio::test]
async fn a_stream_of_a_failed_reply_ends_with_the_failure_and_so_does_its_repeat() {
    let server = shared().await;
    let caller = Caller::new(server);
    let session = open(&caller, caller.bot(&["half"]).await).await;
    let path = format!("/v1/sessions/{session}/messages");
    let body = json!({"id": ClientMessageId::generate(), "text": "x", "stream": true});
    let first = events(&caller.post(&path, &body).await.text);
    let again = events(&caller.post(&path, &body).await.text);
    let (Some(ServerFrame::Reply(end)), Some(ServerFrame::Reply(repeated))) =
        (first.last(), again.last())
    else {
        panic!("{first:?} {again:?}")
    };
    assert!(crate::client::is_end(&end.state));
    assert_eq!(end, repeated);
    let ended = first.iter().filter(
        |frame| matches!(frame, ServerFrame::Reply(reply) if crate::client::is_end(&reply.state)),
    );
    assert_eq!(ended.count(), 1);
}
