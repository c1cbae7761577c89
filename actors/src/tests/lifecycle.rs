//! What stays in memory, and for how long.

use std::time::Duration;

use futures_util::future::join_all;

use super::node::{Node, pass, run};
use crate::testing::Step;

#[test]
fn a_thousand_idle_sessions_leave_memory() {
    run(async || {
        let node = Node::start();
        let mut devices = Vec::new();
        for _ in 0..1_000 {
            let session = node.open().await;
            devices.push(node.join(session).await);
        }
        assert_eq!(node.hub.session_count(), 1_000);
        pass(3_600).await;
        assert_eq!(node.hub.session_count(), 1_000, "devices keep them");
        for device in devices {
            device.handle.leave(device.id);
            tokio::task::yield_now().await;
        }
        pass(59).await;
        assert_eq!(node.hub.session_count(), 1_000);
        pass(2).await;
        assert_eq!(node.hub.session_count(), 0);
    });
}

#[test]
fn devices_that_vanish_without_leaving_do_not_keep_a_session_that_speaks() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        drop(node.join(session).await);
        node.note(session, "anybody?").await;
        pass(61).await;
        assert_eq!(node.hub.session_count(), 0);
    });
}

#[test]
fn a_session_stays_until_its_reply_is_ended_though_nobody_is_there() {
    run(async || {
        let node = Node::start();
        node.upstream.usually(vec![
            Step::text("long"),
            Step::wait_ms(600_000),
            Step::Finish(None),
        ]);
        let session = node.open().await;
        node.post(session, "take your time").await.unwrap();
        pass(500).await;
        assert_eq!(node.hub.session_count(), 1);
        assert_eq!(node.upstream.running(), 1);
        pass(101).await;
        assert_eq!(node.store.messages(session).len(), 2);
        pass(61).await;
        assert_eq!(node.hub.session_count(), 0);
    });
}

#[test]
fn a_session_that_left_memory_comes_back_as_it_was() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        node.chat(session, "remember me").await;
        pass(120).await;
        assert_eq!(node.hub.session_count(), 0);
        let mut device = node.join(session).await;
        device.settle().await;
        assert_eq!(device.view().seqs(), vec![1, 2]);
        assert_eq!(node.hub.session_count(), 1);
    });
}

#[test]
fn asking_for_sessions_that_do_not_exist_leaves_nothing_behind() {
    run(async || {
        let node = Node::start();
        let asked =
            join_all((0..100).map(|_| node.post(hubbub_protocol::SessionId::generate(), "?")));
        assert!(asked.await.into_iter().all(|answer| answer.is_err()));
        pass(1).await;
        assert_eq!(node.hub.session_count(), 0);
    });
}

#[test]
fn many_who_ask_at_once_find_one_session() {
    run(async || {
        let node = Node::start();
        node.store.set_latency(Duration::from_millis(20));
        let session = node.open().await;
        let devices = join_all((0..10).map(|_| node.join(session))).await;
        assert_eq!(node.hub.session_count(), 1);
        assert_eq!(devices.len(), 10);
    });
}
