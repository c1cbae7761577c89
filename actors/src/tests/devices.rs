//! Fan-out: a slow device costs only itself; what matters only now may be lost, nothing else.

use std::time::Duration;

use hubbub_protocol::{CloseCode, Seq, ServerFrame};
use tokio::time::{Instant, timeout};

use super::node::{Node, caller, join_request, run};
use super::view::View;
use crate::OperatorRole;
use crate::capacity;
use crate::ports::{StoreError, UpstreamError};
use crate::testing::{Fault, Step};

fn long_answer(pieces: usize) -> Vec<Step> {
    Step::answer(&vec!["lorem 🦀 "; pieces], Duration::from_millis(20))
}

#[test]
fn a_slow_device_costs_nobody_else_and_catches_up_with_one_merged_delta() {
    run(async || {
        let node = Node::start();
        node.upstream.usually(long_answer(100));
        let session = node.open().await;
        let mut fast = node.join(session).await;
        // One delivery fits: `joined`. It is not read while the reply streams.
        let mut slow = node.join_unread(session).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asked = Instant::now();
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        let half = |fast: &super::node::Device| {
            let deltas = fast.frames.iter();
            deltas
                .filter(|f| matches!(f, ServerFrame::Delta(_)))
                .count()
                >= 25
        };
        while !half(&fast) {
            fast.until_text().await;
        }
        assert!(asked.elapsed() < Duration::from_millis(1_300), "full rate");
        let joined = slow.log.next_delivery().await.unwrap();
        assert!(matches!(joined[..], [ServerFrame::Joined(_)]));
        let woken = slow.log.next_delivery().await.unwrap();
        let merged: Vec<&str> = woken
            .iter()
            .filter_map(|frame| match frame {
                ServerFrame::Delta(delta) => Some(delta.text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(merged.len(), 1, "one delta");
        assert!(
            merged[0].chars().count() > 7 * 40,
            "with all that it missed"
        );
        slow.frames.extend(joined.into_iter().chain(woken));
        let (fast_end, slow_end) = tokio::join!(fast.until_end_of(reply), slow.until_end_of(reply));
        assert_eq!(fast_end, slow_end);
        assert_eq!(fast.view().messages, slow.view().messages);
        assert!(slow.log.cuts().is_empty());
    });
}

#[test]
fn a_device_that_stands_still_is_cut_as_slow_and_others_are_not() {
    run(async || {
        let node = Node::start();
        node.upstream.usually(long_answer(1_000));
        let session = node.open().await;
        let mut fast = node.join(session).await;
        let stuck = node.join_unread(session).await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(stuck.log.cuts().is_empty(), "not yet");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(stuck.log.cuts(), vec![CloseCode::Slow]);
        fast.until_end_of(reply).await;
        assert_eq!(fast.view().seqs(), vec![1, 2]);
        assert!(fast.log.cuts().is_empty());
        assert_eq!(stuck.log.times_lost(), 0);
    });
}

#[test]
fn a_device_that_stands_still_is_cut_even_when_nothing_else_happens() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let stuck = node.join_unread(session).await;
        node.note(session, "read this").await;
        super::node::pass(11).await;
        assert_eq!(stuck.log.cuts(), vec![CloseCode::Slow]);
    });
}

#[test]
fn a_device_further_behind_than_the_feed_holds_gets_the_rest_from_storage() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut fast = node.join(session).await;
        let mut slow = node.join_unread(session).await;
        let text = "x".repeat(500);
        let messages = 16 * capacity::FETCH_BYTES as usize / text.len();
        for n in 0..messages {
            node.note(session, &format!("{n} {text}")).await;
            if n % 100 == 0 {
                // Ends with a frame that has no seq: what is read from storage goes around it.
                node.upstream.then(vec![Step::Fail(UpstreamError::Refused)]);
                let asked = node.post(session, "hi").await.unwrap();
                fast.until_end_of(asked.reply.unwrap()).await;
            }
        }
        assert!(slow.log.cuts().is_empty());
        let reads = node.store.lists();
        node.store
            .break_next(Fault::ListFails(StoreError::Unavailable));
        fast.settle().await;
        slow.settle().await;
        assert_eq!(slow.view().messages, fast.view().messages);
        assert_eq!(slow.view().ends, fast.view().ends);
        assert!(slow.log.cuts().is_empty() && fast.log.cuts().is_empty());
        let reads = node.store.lists() - reads;
        assert!((8..30).contains(&reads), "{reads} pages were read");
    });
}

#[test]
fn a_device_that_falls_further_behind_than_the_feed_is_cut_and_resumes() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut fast = node.join(session).await;
        let mut slow = node.join_unread(session).await;
        let messages = capacity::FEED_ENTRIES as u64 + 10;
        for n in 0..messages {
            node.note(session, &format!("m{n}")).await;
        }
        fast.until_seq(Seq(messages)).await;
        assert_eq!(fast.view().head, Seq(messages));
        assert_eq!(slow.log.cuts(), vec![CloseCode::Slow]);
        // What it was given before is whole; from there it can go on.
        while let Ok(Some(frame)) = timeout(Duration::from_secs(1), slow.log.next()).await {
            slow.frames.push(frame);
        }
        let held = View::of(&slow.frames, Seq::ZERO).head;
        assert!(held < Seq(messages));
        let mut again = node.join_after(session, Some(held)).await;
        again.settle().await;
        assert_eq!(again.view().seqs().first(), Some(&(held.0 + 1)));
    });
}

#[test]
fn a_device_that_is_gone_is_forgotten() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut stays = node.join(session).await;
        drop(node.join(session).await.log);
        node.note(session, "anybody?").await;
        stays.settle().await;
        let mut presence = stays.frames.iter().filter_map(|frame| match frame {
            ServerFrame::Presence(presence) => Some(presence.devices),
            _ => None,
        });
        assert!(presence.next_back().is_some_and(|devices| devices <= 2));
        assert_eq!(stays.view().seqs(), vec![1]);
    });
}

#[test]
fn typing_reading_and_presence_reach_the_other_devices_and_are_not_stored() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut ann = node.join(session).await;
        ann.settle().await;
        let bob = caller(node.tenant, "bob");
        let (outlet, _log) = crate::testing::channel_outlet(64);
        let handle = node.handle(session);
        let join = join_request(None);
        let device = join.device;
        handle
            .join(bob.clone(), join, Box::new(outlet))
            .await
            .unwrap();
        let is_bob = |frame: &ServerFrame, online: bool| matches!(frame, ServerFrame::Presence(p) if p.who.id == "bob" && p.online == online);
        ann.until(|frame| is_bob(frame, true)).await;
        handle.typing(bob.clone(), device, true).await.unwrap();
        ann.until(|f| matches!(f, ServerFrame::Typing(t) if t.on && t.who.id == "bob"))
            .await;
        handle.read(bob, device, Seq(0)).await.unwrap();
        ann.until(|f| matches!(f, ServerFrame::Read(r) if r.seq == Seq(0)))
            .await;
        handle.leave(device);
        ann.until(|frame| is_bob(frame, false)).await;
        assert!(node.store.messages(session).is_empty());
    });
}

#[test]
fn under_load_typing_is_dropped_and_messages_are_not() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut ann = node.join_unread(session).await;
        let bob = caller(node.tenant, "bob");
        let bobs = node.join(session).await;
        let handle = node.handle(session);
        for n in 0..300 {
            handle
                .typing(bob.clone(), bobs.id, n % 2 == 0)
                .await
                .unwrap();
            if n % 2 == 0 {
                node.note(session, "durable").await;
            }
            tokio::task::yield_now().await;
        }
        ann.settle().await;
        assert_eq!(ann.view().seqs(), (1..=150).collect::<Vec<_>>());
        let typing = |frame: &&ServerFrame| matches!(frame, ServerFrame::Typing(_));
        let typed = ann.frames.iter().filter(typing).count();
        assert!(typed < 200, "{typed} of 300 came through");
        assert!(ann.log.cuts().is_empty());
    });
}

#[test]
fn a_burst_of_a_thousand_posts_is_acknowledged_in_order_or_refused_typed() {
    run(async || {
        let node = Node::start();
        node.store.set_latency(Duration::from_millis(3));
        let session = node.open().await;
        let mut device = node.join(session).await;
        // One handle, as of one connection: the mailbox's bound applies.
        let handle = node.handle(session);
        let posts = (0..1_000).map(|n| {
            let id = hubbub_protocol::ClientMessageId::generate();
            let message = super::node::post(id, &format!("m{n}"));
            handle.post_message(node.operator(OperatorRole::Agent), message)
        });
        let answers = futures_util::future::join_all(posts).await;
        let mut stored = Vec::new();
        for (n, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(posted) => stored.push((posted.seq, format!("m{n}"))),
                Err(refused) => {
                    assert_eq!(refused.code, hubbub_protocol::ErrorCode::Overloaded);
                    assert!(refused.retry_after_ms.is_some());
                }
            }
        }
        assert!(stored.len() >= capacity::SESSION_MAILBOX);
        assert!(stored.len() < 1_000, "the bound held");
        device.settle().await;
        assert_eq!(device.view().messages, stored, "in order, and nothing else");
        assert_eq!(node.store.messages(session).len(), stored.len());
        assert!(node.store.appends() < stored.len(), "committed in groups");
    });
}

#[test]
fn a_thousand_posts_from_many_connections_keep_their_numbers_whole() {
    run(async || {
        let node = Node::start();
        node.store.set_latency(Duration::from_millis(3));
        let session = node.open().await;
        let mut device = node.join(session).await;
        let posts = (0..1_000).map(|n| {
            let node = &node;
            async move { node.post(session, &format!("m{n}")).await }
        });
        let answers = futures_util::future::join_all(posts).await;
        device.settle().await;
        let mut seqs: Vec<u64> = answers
            .iter()
            .filter_map(|answer| answer.as_ref().ok())
            .map(|posted| posted.seq.0)
            .collect();
        let accepted = seqs.len();
        seqs.sort_unstable();
        seqs.dedup();
        assert_eq!(seqs.len(), accepted);
        for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert!(refused.retry_after_ms.is_some(), "{refused:?}");
        }
        let view = device.view();
        assert_eq!(view.seqs(), (1..=view.head.0).collect::<Vec<_>>());
        assert_eq!(view.ends.len(), accepted, "each was answered once");
        assert!(node.store.pending(session).is_empty());
    });
}
