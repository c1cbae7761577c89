//! Storage that is away, answers late or not at all; and replies whose node died.

use std::time::Duration;

use hubbub_protocol::{ClientMessageId, ErrorCode, ReplyState, Seq, ServerFrame};
use tokio::time::Instant;

use super::node::{Node, config, pass, run};
use super::view::End;
use crate::ports::{
    Append, AppendRefusal, Claim, Fence, FinishedReply, MessageStore, OwedReply, ReplyEnd,
    ReplyFailure, StoreError,
};
use crate::testing::{Fault, ScriptedUpstream, Step};
use crate::{Hub, Rejection};

#[test]
fn posts_wait_while_storage_is_away_and_are_committed_once() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        node.store.set_away(true);
        let back = async {
            pass(5).await;
            assert!(node.store.messages(session).is_empty());
            node.store.set_away(false);
        };
        let (a, b, ()) = tokio::join!(node.post(session, "a"), node.post(session, "b"), back);
        assert_eq!((a.unwrap().seq, b.unwrap().seq), (Seq(1), Seq(2)));
        device.settle().await;
        assert_eq!(device.view().seqs(), vec![1, 2, 3, 4]);
        assert_eq!(device.view().ends.len(), 2);
    });
}

#[test]
fn storage_that_stays_away_is_told_as_unavailable_in_time() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        node.store.set_away(true);
        let asked = Instant::now();
        let id = ClientMessageId::generate();
        let refused = node.post_as(session, id, "hi").await.unwrap_err();
        assert_eq!(refused, Rejection::unavailable());
        assert!(refused.retry_after_ms.is_some());
        assert!(asked.elapsed() < Duration::from_secs(12));
        node.store.set_away(false);
        // The client repeats it, and it is stored once.
        let posted = node.post_as(session, id, "hi").await.unwrap();
        assert!(!posted.duplicate);
        device.settle().await;
        assert_eq!(device.view().seqs(), vec![1, 2]);
    });
}

#[test]
fn a_commit_whose_answer_was_lost_is_one_message_with_one_answer() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        node.store.break_next(Fault::AppendUnanswered);
        let posted = node.post(session, "hi").await.unwrap();
        assert_eq!(posted.seq, Seq(1));
        assert!(!posted.duplicate, "the client sent it once");
        device.until_end_of(posted.reply.unwrap()).await;
        // The same at the other end.
        node.upstream
            .usually(Step::answer(&["bye"], Duration::from_secs(1)));
        let posted = node.post(session, "hi again").await.unwrap();
        node.store.break_next(Fault::AppendUnanswered);
        device.until_end_of(posted.reply.unwrap()).await;
        device.settle().await;
        assert_eq!(device.view().seqs(), vec![1, 2, 3, 4]);
        assert_eq!(device.view().ends.len(), 2);
        assert!(node.store.pending(session).is_empty());
    });
}

#[test]
fn a_batch_that_storage_refuses_fails_only_the_entry_that_is_wrong() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        for _ in 0..2 {
            node.store
                .break_next(Fault::AppendFails(StoreError::Internal));
        }
        let (a, b) = tokio::join!(node.post(session, "a"), node.post(session, "b"));
        assert_eq!(u8::from(a.is_ok()) + u8::from(b.is_ok()), 1, "{a:?} {b:?}");
        device.settle().await;
        assert_eq!(device.view().seqs(), vec![1, 2]);
    });
}

#[test]
fn an_end_is_committed_when_storage_is_back_however_late() {
    run(async || {
        let node = Node::start_with(|config| {
            config.session.idle_timeout = Duration::from_secs(5);
        });
        let session = node.open().await;
        let mut device = node.join(session).await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        device.until_text().await;
        node.store.set_away(true);
        device.handle.leave(device.id);
        drop(device);
        pass(100).await;
        node.store.set_away(false);
        pass(15).await;
        assert!(node.store.pending(session).is_empty());
        let messages = node.store.messages(session);
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[1].reply, Some(reply));
        pass(10).await;
        assert_eq!(node.hub.session_count(), 0);
    });
}

#[test]
fn replies_of_a_dead_node_are_ended_as_failed_exactly_once() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        // Another node, which dies in the middle of two answers.
        let dead_node = dead(&node, session).await;
        let mut device = node.join(session).await;
        pass(30).await;
        device.settle().await;
        let ends = device.view().ends;
        let replies: Vec<_> = dead_node.iter().map(|end| end.reply).collect();
        let failed = End::Failed(ErrorCode::Unavailable);
        assert_eq!(
            ends,
            replies
                .iter()
                .map(|r| (*r, failed.clone()))
                .collect::<Vec<_>>()
        );
        assert!(node.store.pending(session).is_empty());
        // The node was only slow: it wakes up and tries to end them.
        for end in dead_node {
            let refused = node.store.append(vec![Append::Reply(end)]).await.unwrap();
            assert_eq!(refused[0].as_ref().unwrap_err(), &AppendRefusal::StaleClaim);
        }
        device.settle().await;
        assert_eq!(device.view().ends.len(), 2);
        assert_eq!(node.store.messages(session).len(), 2);
    });
}

/// Two questions stored by a node that never comes back; how it would have ended them.
async fn dead(node: &Node, session: hubbub_protocol::SessionId) -> Vec<FinishedReply> {
    let dead = hubbub_protocol::NodeId::generate();
    node.store.renew_lease(dead).await.unwrap();
    let mut ends = Vec::new();
    for text in ["one", "two"] {
        let reply = hubbub_protocol::ReplyId::generate();
        let message = crate::ports::NewMessage {
            tenant: node.tenant,
            session,
            id: ClientMessageId::generate(),
            role: hubbub_protocol::Role::Visitor,
            author: "ann".into(),
            text: text.into(),
            metadata: None,
            reply: Some(OwedReply {
                reply,
                node: dead,
                fence: Fence::default(),
            }),
        };
        node.store
            .append(vec![Append::Message(message)])
            .await
            .unwrap()[0]
            .as_ref()
            .unwrap();
        ends.push(FinishedReply {
            tenant: node.tenant,
            session,
            reply,
            node: dead,
            claim: Claim::FIRST,
            end: ReplyEnd::Completed { cut: None },
            text: "too late".into(),
            author: "Bot".into(),
            model: None,
            usage: None,
            attempts: Vec::new(),
            first_token_ms: None,
            latency_ms: 1,
        });
    }
    ends
}

#[test]
fn orphans_are_ended_even_if_their_session_cannot_be_started() {
    run(async || {
        let node = Node::start_with(|config| config.max_sessions = 1);
        let session = node.open().await;
        dead(&node, session).await;
        let busy = node.open().await;
        let _device = node.join(busy).await;
        pass(60).await;
        assert!(node.store.pending(session).is_empty());
        assert_eq!(node.store.ended(session).len(), 2);
    });
}

#[test]
fn an_orphan_claimed_while_storage_fails_is_ended_when_it_is_back() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        dead(&node, session).await;
        let mut device = node.join(session).await;
        // Claiming works, ending does not, for longer than anything waits.
        for _ in 0..300 {
            let away = StoreError::Unavailable;
            node.store.break_next(Fault::AppendFails(away));
        }
        pass(40).await;
        assert!(
            node.store
                .pending(session)
                .iter()
                .all(|p| p.claim == Claim::FIRST.next())
        );
        assert_eq!(node.store.pending(session).len(), 2);
        pass(60).await;
        assert!(node.store.pending(session).is_empty());
        device.settle().await;
        assert_eq!(device.view().ends.len(), 2);
    });
}

#[test]
fn a_message_stored_behind_the_sessions_back_is_shown_and_answered_though_nobody_asks_again() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        // Committed, but its answer is lost, and then storage stays away for too long.
        node.store.break_next(Fault::AppendUnanswered);
        for _ in 0..60 {
            let away = StoreError::Unavailable;
            node.store.break_next(Fault::AppendFails(away));
        }
        let refused = node.post(session, "hi").await.unwrap_err();
        assert_eq!(refused, Rejection::unavailable());
        pass(60).await;
        device.settle().await;
        assert_eq!(device.view().seqs(), vec![1, 2]);
        assert_eq!(device.view().ends.len(), 1);
        assert!(node.store.pending(session).is_empty());
        assert_eq!(node.upstream.requests().len(), 1);
    });
}

// H22
#[test]
fn a_message_is_refused_at_once_while_the_database_is_known_to_be_down() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        for _ in 0..3 {
            let down = StoreError::Down;
            node.store.break_next(Fault::AppendFails(down));
            let asked = Instant::now();
            let refused = node.post(session, "hi").await.unwrap_err();
            assert_eq!(refused, Rejection::unavailable());
            assert!(refused.retry_after_ms.is_some());
            assert!(asked.elapsed() < Duration::from_millis(100));
        }
        node.post(session, "hi").await.unwrap();
    });
}

// H22
#[test]
fn the_end_of_a_reply_waits_until_the_database_is_no_longer_down() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        for _ in 0..5 {
            let down = StoreError::Down;
            node.store.break_next(Fault::AppendFails(down));
        }
        device.until_end_of(reply).await;
        assert_eq!(device.view().seqs(), vec![1, 2]);
        assert!(node.store.pending(session).is_empty());
    });
}

#[test]
fn an_end_that_storage_cannot_store_fails_the_reply_instead() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        for _ in 0..2 {
            let broken = StoreError::Internal;
            node.store.break_next(Fault::AppendFails(broken));
        }
        device.until_end_of(reply).await;
        let ends = device.view().ends;
        assert_eq!(ends, vec![(reply, End::Failed(ErrorCode::Internal))]);
        assert!(node.store.pending(session).is_empty());
    });
}

#[test]
fn a_node_that_lost_its_lease_tells_its_devices_the_end_that_was_stored() {
    run(async || {
        let node = Node::start();
        node.upstream.usually(vec![
            Step::text("so"),
            Step::wait_ms(60_000),
            Step::Finish(None),
        ]);
        let session = node.open().await;
        let mut device = node.join(session).await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        device.until_text().await;
        // Another node takes it over behind this one's back.
        let other = hubbub_protocol::NodeId::generate();
        node.store.expire_lease(node_of(&node, session));
        let claimed = node.store.claim_orphans(other, 10).await.unwrap();
        assert_eq!(claimed.len(), 1);
        let end = FinishedReply {
            tenant: node.tenant,
            session,
            reply,
            node: other,
            claim: claimed[0].1.claim,
            end: ReplyEnd::Failed(ReplyFailure {
                code: ErrorCode::Unavailable,
                message: "interrupted".into(),
                reason: None,
                retry_after_ms: None,
            }),
            text: String::new(),
            author: String::new(),
            model: None,
            usage: None,
            attempts: Vec::new(),
            first_token_ms: None,
            latency_ms: 1,
        };
        node.store.append(vec![Append::Reply(end)]).await.unwrap()[0]
            .as_ref()
            .unwrap();
        let end = device.until_end_of(reply).await;
        assert!(
            matches!(end, ServerFrame::Reply(r) if matches!(r.state, ReplyState::Failed { .. }))
        );
        device.settle().await;
        assert_eq!(device.view().ends.len(), 1);
        assert_eq!(node.store.messages(session).len(), 1);
    });
}

fn node_of(node: &Node, session: hubbub_protocol::SessionId) -> hubbub_protocol::NodeId {
    node.store.pending(session)[0].node
}

#[test]
fn a_new_process_ends_what_the_old_one_left() {
    run(async || {
        let node = Node::start();
        node.upstream.usually(vec![Step::text("so"), Step::Hang]);
        let session = node.open().await;
        node.post(session, "hi").await.unwrap();
        pass(1).await;
        let owner = node_of(&node, session);
        node.store.expire_lease(owner);
        // The old one cannot renew: it is dead as far as the others can tell.
        let hub = Hub::start(
            config(&[ScriptedUpstream::new("one", 8)]),
            node.store.clone(),
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(node.store.ended(session).len(), 1);
        assert!(node.store.pending(session).is_empty());
        drop(hub);
    });
}
