//! Joining: whatever a device holds and whenever it comes, it misses nothing and gets nothing twice.

use std::time::Duration;

use futures_util::future::join_all;
use hubbub_protocol::{Epoch, Seq, ServerFrame, SessionId};

use super::node::{Device, Node, join_request, run};
use crate::JoinRequest;
use crate::ports::UpstreamError;
use crate::testing::Step;

async fn session_of(node: &Node, messages: u64) -> SessionId {
    let session = node.open().await;
    for n in 1..=messages {
        node.note(session, &format!("m{n}")).await;
    }
    session
}

#[test]
fn joining_after_any_point_gives_no_gap_and_no_duplicate() {
    run(async || {
        let node = Node::start();
        let session = session_of(&node, 12).await;
        for after in 0..=12 {
            let mut device = node.join_after(session, Some(Seq(after))).await;
            device.until(|f| matches!(f, ServerFrame::Joined(_))).await;
            assert_eq!(device.joined().head, Seq(12));
            assert!(!device.joined().more && !device.joined().resync);
            assert_eq!(device.view().seqs(), (after + 1..=12).collect::<Vec<_>>());
        }
    });
}

#[test]
fn joining_while_messages_are_posted_and_a_reply_streams_misses_nothing() {
    run(async || {
        let node = Node::start_with(|config| config.session.max_devices = 100);
        // Reading and committing take time, so that joins, commits and deltas overlap in every way.
        node.store.set_latency(Duration::from_millis(7));
        let pieces = vec!["wörd 🙂 "; 60];
        let answer = Step::answer(&pieces, Duration::from_millis(5));
        node.upstream.usually(answer);
        let session = session_of(&node, 5).await;
        let posting = async {
            for n in 0..8 {
                node.note(session, &format!("during {n}")).await;
                if n == 1 {
                    node.post(session, "and now?").await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(11)).await;
            }
        };
        let joining = join_all((0..60).map(|n| {
            let node = &node;
            async move {
                tokio::time::sleep(Duration::from_millis(n * 6)).await;
                let after = Seq(n % 6);
                let mut device = node.join_after(session, Some(after)).await;
                device.settle().await;
                device.handle.leave(device.id);
                (after, device)
            }
        }));
        let ((), devices) = tokio::join!(posting, joining);
        for (after, device) in devices {
            let view = device.view();
            assert_eq!(view.seqs(), (after.0 + 1..=15).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_limited_page_says_that_there_is_more() {
    run(async || {
        let node = Node::start();
        let session = session_of(&node, 10).await;
        let join = JoinRequest {
            limit: 4,
            ..join_request(Some(Seq(2)))
        };
        let mut device = node.try_join(session, join, 64).await.unwrap();
        device.until(|f| matches!(f, ServerFrame::Joined(_))).await;
        assert!(device.joined().more);
        assert_eq!(device.view().seqs(), vec![3, 4, 5, 6]);
        assert_eq!(device.joined().head, Seq(10));
        // It follows from the head on; what lies between is paged over HTTP.
        node.note(session, "m11").await;
        device.until_seq(Seq(11)).await;
        device.settle().await;
        assert_eq!(device.view().seqs(), vec![3, 4, 5, 6, 11]);
    });
}

#[test]
fn a_new_device_gets_the_newest_messages() {
    run(async || {
        let node = Node::start();
        let session = session_of(&node, 10).await;
        let join = JoinRequest {
            limit: 3,
            reference: Some("r1".into()),
            ..join_request(None)
        };
        let mut device = node.try_join(session, join, 64).await.unwrap();
        device.until(|f| matches!(f, ServerFrame::Joined(_))).await;
        assert_eq!(device.view().seqs(), vec![8, 9, 10]);
        assert!(device.joined().more);
        assert_eq!(device.joined().reference.as_deref(), Some("r1"));
        assert_eq!(device.joined().bot, node.bot);
    });
}

#[test]
fn a_log_of_another_epoch_is_sent_afresh() {
    run(async || {
        let node = Node::start();
        let session = session_of(&node, 3).await;
        let epoch = {
            let mut device = node.join(session).await;
            device.until(|f| matches!(f, ServerFrame::Joined(_))).await;
            device.joined().epoch
        };
        for (known, resync, seqs) in [
            (epoch, false, vec![3]),
            (Epoch::generate(), true, vec![1, 2, 3]),
        ] {
            let join = JoinRequest {
                epoch: Some(known),
                ..join_request(Some(Seq(2)))
            };
            let mut device = node.try_join(session, join, 64).await.unwrap();
            device.until(|f| matches!(f, ServerFrame::Joined(_))).await;
            let joined = device.joined();
            assert_eq!(joined.resync, resync);
            assert_eq!(joined.epoch, epoch);
            let got: Vec<u64> = joined.messages.iter().map(|m| m.seq.0).collect();
            assert_eq!(got, seqs);
        }
    });
}

#[test]
fn a_device_that_joins_during_a_reply_gets_it_whole_so_far_and_then_the_rest() {
    run(async || {
        let node = Node::start();
        let pieces = ["a😀", "b", "c", "d", "e", "f"];
        node.upstream
            .usually(Step::answer(&pieces, Duration::from_millis(100)));
        let session = node.open().await;
        let posted = node.post(session, "hi").await.unwrap();
        tokio::time::sleep(Duration::from_millis(330)).await;
        let mut device = node.join(session).await;
        device.until_end_of(posted.reply.unwrap()).await;
        let running = device.joined().replying.clone().unwrap();
        assert_eq!(running.reply, posted.reply.unwrap());
        assert_eq!((running.to, running.text.as_str()), (Seq(1), "a😀bc"));
        let offset = device.frames.iter().find_map(|frame| match frame {
            ServerFrame::Delta(delta) => Some(delta.offset),
            _ => None,
        });
        assert_eq!(offset, Some(5), "in UTF-16");
        assert_eq!(device.view().seqs(), vec![1, 2]);
    });
}

#[test]
fn joining_twice_replaces_and_leaving_ends_it() {
    run(async || {
        let node = Node::start();
        let session = session_of(&node, 2).await;
        let join = join_request(Some(Seq(0)));
        let mut first = node.try_join(session, join.clone(), 64).await.unwrap();
        let mut second = node.try_join(session, join, 64).await.unwrap();
        node.note(session, "m3").await;
        second.until_seq(Seq(3)).await;
        first.settle().await;
        assert_eq!(
            first.view().seqs(),
            vec![1, 2],
            "nothing after its replacement"
        );
        second.handle.leave(second.id);
        node.note(session, "m4").await;
        second.settle().await;
        assert_eq!(second.view().seqs(), vec![1, 2, 3]);
        let told = |device: &Device| (device.log.times_lost(), device.log.cuts().len());
        assert_eq!((told(&first), told(&second)), ((0, 0), (0, 0)));
    });
}

#[test]
fn a_failed_page_refuses_the_join_and_the_next_one_works() {
    run(async || {
        let node = Node::start();
        let session = session_of(&node, 2).await;
        node.store.break_next(crate::testing::Fault::ListFails(
            crate::ports::StoreError::Unavailable,
        ));
        let refused = node
            .try_join(session, join_request(None), 64)
            .await
            .err()
            .unwrap();
        assert_eq!(refused, crate::Rejection::unavailable());
        let mut device = node.join(session).await;
        device.until(|f| matches!(f, ServerFrame::Joined(_))).await;
        assert_eq!(device.view().seqs(), vec![1, 2]);
    });
}

// S2
#[test]
fn a_long_answer_is_joined_with_its_beginning_and_goes_on_in_deltas() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let piece = "long ü🙂 ".repeat(20_000);
        node.upstream.then(vec![Step::text(&piece), Step::Hang]);
        let mut first = node.join(session).await;
        node.post(session, "tell me everything").await.unwrap();
        first.settle().await;
        // Takes one delivery at a time.
        let mut device = node.join_unread(session).await;
        device.until(|f| matches!(f, ServerFrame::Joined(_))).await;
        let begun = device.joined().replying.clone().unwrap();
        assert!((1..=crate::capacity::REPLYING_BYTES).contains(&begun.text.len()));
        let frame = ServerFrame::Joined(Box::new(device.joined().clone()));
        assert!(frame.encode().len() < 48 * 1024);
        device.settle().await;
        let mut text = begun.text;
        for frame in &device.frames {
            if let ServerFrame::Delta(delta) = frame {
                assert_eq!(delta.offset, text.encode_utf16().count() as u64);
                text.push_str(&delta.text);
            }
        }
        assert_eq!(text, piece);
    });
}

// S2
#[test]
fn ends_count_towards_the_page_of_a_joined_and_each_is_told() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let long = "x".repeat(1_000_000);
        for n in 0..12 {
            let steps = vec![Step::text(&long), Step::Fail(UpstreamError::Cut)];
            node.upstream.then(steps);
            node.chat(session, &format!("question {n}")).await;
        }
        let (mut after, mut ends) = (Seq::ZERO, Vec::new());
        loop {
            let mut device = node.join_after(session, Some(after)).await;
            device.until(|f| matches!(f, ServerFrame::Joined(_))).await;
            let joined = device.joined();
            let bytes = ServerFrame::Joined(Box::new(joined.clone())).encode().len();
            assert!(bytes < 144 * 1024, "{bytes}");
            for ended in &joined.ended {
                assert!(ended.text.len() <= 16 * 1024);
                assert_eq!(ended.text_bytes, Some(1_000_000));
            }
            let last = joined.messages.last().map_or(after, |message| message.seq);
            ends.extend(
                joined
                    .ended
                    .iter()
                    .filter(|end| end.to > after)
                    .map(|end| end.to.0),
            );
            assert_eq!(joined.more, last < joined.head);
            if !joined.more {
                break;
            }
            after = last;
        }
        assert_eq!(ends, (1..=12).collect::<Vec<_>>());
    });
}
