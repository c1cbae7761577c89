//! Panics: whatever dies, the node lives, nothing stored is lost, and every reply gets its one end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use hubbub_protocol::{ClientMessageId, CloseCode, ErrorCode, Seq, ServerFrame, SessionId};

use super::node::{Device, Node, caller, join_request, pass, run_and_count};
use super::view::End;
use crate::device::{Delivery, Outlet, Undelivered};
use crate::testing::{Fault, Step};
use crate::{Rejection, SessionHandle};

/// Makes the session's actor panic: a page of history that cannot be read without it.
async fn kill_session(node: &Node, session: SessionId) {
    node.store.break_next(Fault::ListPanics);
    let died = node.try_join(session, join_request(Some(Seq::ZERO)), 8);
    assert_eq!(died.await.err(), Some(Rejection::unavailable()));
}

async fn chat_works(node: &Node, session: SessionId) {
    let frames = node.chat(session, "still there?").await;
    assert!(matches!(frames.last(), Some(ServerFrame::Message(m)) if m.reply.is_some()));
}

/// The device joins again, as the client behind it does when its session is lost.
async fn rejoin(node: &Node, device: &Device) -> Device {
    node.join_after(device.joined().session, Some(device.view().head))
        .await
}

#[test]
fn a_session_that_dies_is_rebuilt_and_its_running_reply_ends_once() {
    let panics = run_and_count(async || {
        let node = Node::start();
        node.upstream.then(vec![
            Step::text("half an ans"),
            Step::wait_ms(200),
            Step::text("wer"),
            Step::Hang,
        ]);
        let session = node.open().await;
        let mut device = node.join(session).await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        device.until_text().await;
        kill_session(&node, session).await;
        assert_eq!(device.log.times_lost(), 1);
        assert!(!device.handle.is_live());
        let mut again = rejoin(&node, &device).await;
        again.settle().await;
        assert_eq!(
            again.view().ends,
            vec![(reply, End::Failed(ErrorCode::Unavailable))]
        );
        assert_eq!(
            node.upstream.running(),
            0,
            "the old reply found its session gone"
        );
        assert!(node.store.pending(session).is_empty());
        chat_works(&node, session).await;
        again.settle().await;
        assert_eq!(again.view().ends.len(), 2);
        assert!(again.log.cuts().is_empty());
    });
    assert_eq!(panics, 1);
}

#[test]
fn a_session_that_dies_with_nobody_left_still_ends_its_reply() {
    run_and_count(async || {
        let node = Node::start();
        node.upstream.then(vec![Step::text("half"), Step::Hang]);
        let session = node.open().await;
        node.note(session, "something to read").await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        kill_session(&node, session).await;
        pass(1).await;
        assert!(node.store.pending(session).is_empty());
        assert_eq!(node.store.ended(session)[0].reply, reply);
    });
}

#[test]
fn a_session_that_cannot_be_loaded_does_not_spin() {
    let panics = run_and_count(async || {
        let node = Node::start();
        let session = node.open().await;
        for _ in 0..100 {
            node.store.break_next(Fault::LoadPanics);
        }
        let refused = node.post(session, "hi").await.unwrap_err();
        assert_eq!(refused, Rejection::unavailable());
        pass(60).await;
    });
    assert!((3..=12).contains(&panics), "{panics} panics");
}

#[test]
fn a_reply_that_panics_ends_as_failed_and_the_next_one_works() {
    let panics = run_and_count(async || {
        let node = Node::start();
        node.upstream.then(vec![Step::Panic]);
        node.upstream
            .then(vec![Step::text("a word"), Step::wait_ms(100), Step::Panic]);
        let session = node.open().await;
        let mut device = node.join(session).await;
        for _ in 0..2 {
            let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
            device.until_end_of(reply).await;
            let last = device.view().ends.pop();
            assert_eq!(last, Some((reply, End::Failed(ErrorCode::Internal))));
        }
        assert_eq!(node.store.ended(session)[1].text, "a word");
        assert_eq!(node.upstream.running(), 0);
        chat_works(&node, session).await;
        assert_eq!(device.log.times_lost(), 0, "the session did not die");
    });
    assert_eq!(panics, 2);
}

#[test]
fn a_panic_while_committing_loses_nothing_and_stores_nothing_twice() {
    for fault in [Fault::AppendPanics, Fault::AppendPanicsAfterCommit] {
        let panics = run_and_count(async || {
            let node = Node::start();
            let session = node.open().await;
            let mut device = node.join(session).await;
            node.store.break_next(fault.clone());
            let posted = node.post(session, "hi").await.unwrap();
            assert!(!posted.duplicate);
            device.until_end_of(posted.reply.unwrap()).await;
            device.settle().await;
            assert_eq!(device.view().seqs(), vec![1, 2]);
            assert_eq!(device.view().ends.len(), 1);
        });
        assert_eq!(panics, 1);
    }
}

#[test]
fn a_poisonous_message_is_refused_and_those_committed_with_it_are_stored() {
    run_and_count(async || {
        let node = Node::start();
        node.store.set_poison(Some("poison"));
        node.store.set_latency(Duration::from_millis(5));
        let session = node.open().await;
        let mut device = node.join(session).await;
        let (a, poison, b) = tokio::join!(
            node.post(session, "a"),
            node.post(session, "poison"),
            node.post(session, "b")
        );
        assert_eq!(poison, Err(Rejection::internal()));
        assert_eq!((a.unwrap().seq, b.unwrap().seq), (Seq(1), Seq(2)));
        device.settle().await;
        assert_eq!(device.view().seqs(), vec![1, 2, 3, 4]);
        assert_eq!(device.view().ends.len(), 2);
    });
}

#[test]
fn a_reply_whose_end_kills_the_writer_is_ended_all_the_same() {
    for fault in [Fault::AppendPanics, Fault::AppendPanicsAfterCommit] {
        let panics = run_and_count(async || {
            let node = Node::start();
            let session = node.open().await;
            let mut device = node.join(session).await;
            let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
            node.store.break_next(fault.clone());
            device.until_end_of(reply).await;
            device.settle().await;
            assert_eq!(device.view().ends.len(), 1);
            assert_eq!(device.view().seqs(), vec![1, 2]);
        });
        assert_eq!(panics, 1);
    }
}

#[test]
fn a_message_that_kills_the_writer_does_not_end_the_node() {
    run_and_count(async || {
        let node = Node::start();
        node.store.set_poison(Some("poison"));
        let session = node.open().await;
        let id = ClientMessageId::generate();
        // A client that repeats it for ever.
        for _ in 0..20 {
            assert!(node.post_as(session, id, "poison").await.is_err());
            pass(6).await;
        }
        let failed = tokio::time::timeout(Duration::from_secs(1), node.hub.failed());
        assert!(failed.await.is_err(), "a writer was given up");
        chat_works(&node, session).await;
    });
}

#[test]
fn a_tenant_whose_actor_dies_can_start_sessions_again() {
    run_and_count(async || {
        let node = Node::start();
        let _open = node.hub.tenant(node.tenant).await.unwrap();
        let session = node.open().await;
        node.store.break_next(Fault::FindBotPanics);
        assert!(node.post(session, "hi").await.is_err());
        pass(1).await;
        chat_works(&node, session).await;
    });
}

/// A device that panics when told to, and reads nothing when told to.
struct Trap(Arc<AtomicU8>);

const TAKES: u8 = 0;
const FULL: u8 = 1;
const PANICS: u8 = 2;

impl Outlet for Trap {
    fn try_deliver(&self, _: Delivery) -> Result<(), Undelivered> {
        match self.0.load(Ordering::Relaxed) {
            TAKES => Ok(()),
            FULL => Err(Undelivered::Full),
            _ => panic!("a panic that the test asked for"),
        }
    }

    fn cut(&self, _: CloseCode) {}

    fn session_lost(&self, _: SessionId) {}
}

/// A live session whose actor panics at the next thing it has to say.
async fn trapped(node: &Node, session: SessionId) -> SessionHandle {
    let mode = Arc::new(AtomicU8::new(TAKES));
    let handle = node.handle(session);
    let join = join_request(None);
    let device = join.device;
    for join in [join_request(None), join] {
        let trap = Box::new(Trap(mode.clone()));
        handle.join(node.caller(), join, trap).await.unwrap();
    }
    mode.store(FULL, Ordering::Relaxed);
    let typing = handle.typing(caller(node.tenant, "bob"), device, true);
    typing.await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    mode.store(PANICS, Ordering::Relaxed);
    handle
}

#[test]
fn a_message_that_kills_its_session_three_times_is_quarantined() {
    let panics = run_and_count(async || {
        let node = Node::start();
        let session = node.open().await;
        let id = ClientMessageId::generate();
        let poison = || super::node::post(id, "poison");
        for _ in 0..3 {
            let handle = trapped(&node, session).await;
            let died = handle.post_message(node.caller(), poison()).await;
            assert_eq!(died, Err(Rejection::unavailable()));
            assert!(!handle.is_live());
            pass(1).await;
        }
        let handle = trapped(&node, session).await;
        let refused = handle.post_message(node.caller(), poison()).await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::Invalid);
        assert!(handle.is_live(), "it did not reach the session");
        for session in [session, node.open().await] {
            drop(node.try_join(session, join_request(None), 8).await);
        }
    });
    assert!((3..=4).contains(&panics), "{panics}");
}

#[test]
fn one_session_that_dies_disturbs_no_other() {
    run_and_count(async || {
        let node = Node::start();
        let (victim, other) = (node.open().await, node.open().await);
        node.note(victim, "x").await;
        let mut device = node.join(other).await;
        node.upstream.usually(Step::answer(
            &["a", "b", "c", "d"],
            Duration::from_millis(50),
        ));
        let reply = node.post(other, "hi").await.unwrap().reply.unwrap();
        device.until_text().await;
        kill_session(&node, victim).await;
        device.until_end_of(reply).await;
        assert_eq!(
            device.view().ends,
            vec![(reply, End::Completed("abcd".into()))]
        );
        assert_eq!(device.log.times_lost(), 0);
    });
}
