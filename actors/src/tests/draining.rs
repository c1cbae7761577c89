//! Draining: replies may finish for a while, then they are ended, and every end is committed.

use std::time::Duration;

use hubbub_protocol::ErrorCode;
use tokio::time::Instant;

use super::log::Log;
use super::node::{Node, run};
use super::view::End;
use crate::testing::{ScriptedUpstream, Step};

const GRACE: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn replies_that_finish_within_the_grace_are_whole() {
    run(async || {
        let node = Node::start();
        node.upstream
            .usually(Step::answer(&["slow", "ly"], Duration::from_secs(2)));
        let session = node.open().await;
        let mut device = node.join(session).await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        let asked = Instant::now();
        assert!(node.hub.drain(GRACE, DEADLINE).await);
        assert!(asked.elapsed() < GRACE, "not longer than needed");
        assert!(node.store.pending(session).is_empty());
        device.until_end_of(reply).await;
        assert_eq!(device.view().ends[0].1, End::Completed("slowly".into()));
    });
}

#[test]
fn replies_that_do_not_are_ended_as_failed_with_all_that_waits() {
    run(async || {
        let node = Node::start_on(&[ScriptedUpstream::new("one", 20)], |_| {});
        node.upstream
            .usually(vec![Step::text("endless"), Step::Hang]);
        let mut devices = Vec::new();
        for _ in 0..20 {
            let session = node.open().await;
            let device = node.join(session).await;
            for _ in 0..3 {
                node.post(session, "hi").await.unwrap();
            }
            devices.push((session, device));
        }
        let asked = Instant::now();
        assert!(node.hub.drain(GRACE, DEADLINE).await);
        assert!(asked.elapsed() >= GRACE && asked.elapsed() < DEADLINE);
        for (session, mut device) in devices {
            assert!(node.store.pending(session).is_empty());
            assert_eq!(node.store.ended(session).len(), 3);
            assert_eq!(node.store.ended(session)[0].text, "endless");
            device.settle().await;
            let ends: Vec<_> = device.view().ends.into_iter().map(|(_, end)| end).collect();
            assert_eq!(ends, vec![End::Failed(ErrorCode::Unavailable); 3]);
        }
        assert_eq!(node.upstream.running(), 0);
    });
}

#[test]
fn a_drain_waits_for_commits_and_gives_up_at_its_deadline() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        node.post(session, "hi").await.unwrap();
        device.until_text().await;
        node.store.set_away(true);
        let asked = Instant::now();
        assert!(!node.hub.drain(GRACE, DEADLINE).await);
        assert!(asked.elapsed() >= DEADLINE);
        node.store.set_away(false);
        assert!(node.hub.drain(GRACE, DEADLINE).await);
        assert!(node.store.pending(session).is_empty());
    });
}

#[test]
fn a_drain_that_waits_for_storage_says_so_once() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        node.upstream
            .usually(vec![Step::text("endless"), Step::Hang]);
        node.post(session, "hi").await.unwrap();
        device.until_text().await;
        node.store.set_away(true);
        let log = Log::default();
        let listening = tracing::subscriber::set_default(log.clone());
        assert!(!node.hub.drain(GRACE, DEADLINE).await);
        drop(listening);
        assert_eq!(log.count("ending the replies that are left"), 1);
        node.store.set_away(false);
        assert!(node.hub.drain(Duration::ZERO, DEADLINE).await);
    });
}

#[test]
fn an_idle_node_drains_at_once() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let _device = node.join(session).await;
        let asked = Instant::now();
        assert!(node.hub.drain(GRACE, DEADLINE).await);
        assert!(asked.elapsed() < Duration::from_millis(1));
    });
}
