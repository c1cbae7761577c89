//! Stopping a reply.

use std::time::Duration;

use hubbub_protocol::client::SendMode;
use hubbub_protocol::{ClientMessageId, ErrorCode, ReplyState, ServerFrame};

use super::node::{Node, post, run};
use super::view::End;
use crate::Rejection;
use crate::testing::Step;

#[test]
fn stop_is_told_to_every_device_closes_the_request_and_keeps_the_text() {
    run(async || {
        let node = Node::start();
        node.upstream.usually(vec![
            Step::text("So far"),
            Step::wait_ms(100),
            Step::text(", and"),
            Step::Hang,
        ]);
        let session = node.open().await;
        let mut devices = vec![node.join(session).await, node.join(session).await];
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(node.upstream.running(), 1);
        let handle = node.handle(session);
        handle.stop_reply(node.caller()).await.unwrap();
        for device in &mut devices {
            let end = device.until_end_of(reply).await;
            assert!(matches!(end, ServerFrame::Reply(r) if r.state == ReplyState::Cancelled));
            device.settle().await;
            assert_eq!(device.view().ends, vec![(reply, End::Cancelled)]);
        }
        assert_eq!((node.upstream.running(), node.upstream.abandoned()), (0, 1));
        let ended = node.store.ended(session);
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].text, "So far, and");
        assert_eq!(node.store.messages(session).len(), 1);
        // A device that comes later learns it too.
        let mut late = node.join(session).await;
        late.settle().await;
        assert_eq!(late.view().ends, vec![(reply, End::Cancelled)]);
        // And the session goes on.
        node.upstream
            .usually(Step::answer(&["again"], Duration::ZERO));
        let frames = node.chat(session, "once more").await;
        assert!(matches!(frames.last(), Some(ServerFrame::Message(m)) if m.text == "again"));
    });
}

#[test]
fn stopping_when_nothing_is_answered_is_a_conflict() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let handle = node.handle(session);
        let refused = handle.stop_reply(node.caller()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        node.chat(session, "hi").await;
        let refused = handle.stop_reply(node.caller()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
    });
}

#[test]
fn nothing_is_shown_after_a_stop_even_while_its_commit_is_slow() {
    run(async || {
        let node = Node::start();
        let pieces = vec!["more "; 500];
        node.upstream
            .usually(Step::answer(&pieces, Duration::from_millis(5)));
        let session = node.open().await;
        let mut device = node.join(session).await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        device.until_text().await;
        node.store.set_latency(Duration::from_secs(2));
        let handle = node.handle(session);
        handle.stop_reply(node.caller()).await.unwrap();
        // Twice does not help.
        let again = handle.stop_reply(node.caller()).await;
        assert_eq!(
            again.map_err(|r: Rejection| r.code),
            Err(ErrorCode::Conflict)
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(node.upstream.running(), 0, "closed at once");
        device.until_end_of(reply).await;
        device.settle().await;
        let shown = device.shown();
        assert_eq!(
            node.store.ended(session)[0].text,
            shown,
            "what was shown is what is kept"
        );
        assert_eq!(device.view().ends, vec![(reply, End::Cancelled)]);
    });
}

#[test]
fn stopping_a_queued_reply_gives_its_place_to_the_next() {
    run(async || {
        let upstream = crate::testing::ScriptedUpstream::new("one", 1);
        upstream.then(vec![
            Step::text("x"),
            Step::wait_ms(3_000),
            Step::Finish(None),
        ]);
        let node = Node::start_on(&[upstream], |_| {});
        let (busy, queued, next) = (node.open().await, node.open().await, node.open().await);
        node.post(busy, "long").await.unwrap();
        let stopped = node.post(queued, "stop me").await.unwrap().reply.unwrap();
        let mut device = node.join(next).await;
        let answered = node.post(next, "answer me").await.unwrap().reply.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let handle = node.handle(queued);
        handle.stop_reply(node.caller()).await.unwrap();
        device.until_end_of(answered).await;
        assert_eq!(node.store.ended(queued)[0].reply, stopped);
        assert_eq!(node.upstream.requests().len(), 2, "it was never asked");
        let positions: Vec<u32> = device
            .frames
            .iter()
            .filter_map(|frame| match frame {
                ServerFrame::Reply(r) => match r.state {
                    ReplyState::Queued { position, .. } => Some(position),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        assert_eq!(positions, vec![2, 1]);
    });
}

#[test]
fn after_a_stop_the_next_question_in_line_is_answered() {
    run(async || {
        let node = Node::start();
        node.upstream.then(vec![Step::text("first"), Step::Hang]);
        let session = node.open().await;
        let mut device = node.join(session).await;
        let first = node.post(session, "1").await.unwrap().reply.unwrap();
        device.until_text().await;
        let second = node.post(session, "2").await.unwrap().reply.unwrap();
        node.handle(session)
            .stop_reply(node.caller())
            .await
            .unwrap();
        device.until_end_of(second).await;
        let ends = device.view().ends;
        assert_eq!(ends[0], (first, End::Cancelled));
        assert_eq!(ends[1], (second, End::Completed("Hello, world.".into())));
    });
}

// R152
#[test]
fn a_message_that_interrupts_is_answered_next_and_what_was_written_is_kept() {
    run(async || {
        let node = Node::start();
        node.upstream
            .then(vec![Step::text("I was about"), Step::Hang]);
        let session = node.open().await;
        let mut device = node.join(session).await;
        let first = node.post(session, "one").await.unwrap().reply.unwrap();
        let second = node.post(session, "two").await.unwrap().reply.unwrap();
        device.until_text().await;
        let message = crate::Post {
            mode: SendMode::Interrupt,
            ..post(ClientMessageId::generate(), "no, wait")
        };
        let handle = node.handle(session);
        let third = handle.post_message(node.caller(), message).await.unwrap();
        let third = third.reply.unwrap();
        device.until_end_of(second).await;
        let ends: Vec<_> = device
            .view()
            .ends
            .into_iter()
            .map(|(reply, _)| reply)
            .collect();
        assert_eq!(ends, [first, third, second]);
        assert_eq!(node.store.ended(session)[0].text, "I was about");
        // Said while nothing is being written it is a message like any other.
        let message = crate::Post {
            mode: SendMode::Interrupt,
            ..post(ClientMessageId::generate(), "and now?")
        };
        let posted = handle.post_message(node.caller(), message).await.unwrap();
        device.until_end_of(posted.reply.unwrap()).await;
        assert_eq!(node.store.ended(session).len(), 1);
    });
}
