//! Limits: each is told with a code that a program understands, and none is silent.

use std::time::Duration;

use hubbub_protocol::{ClientMessageId, ErrorCode, SessionId};

use super::node::{Node, caller, join_request, pass, post, run};
use crate::Rejection;
use crate::ports::TenantLimits;
use crate::testing::Step;

#[track_caller]
fn is_told(refused: &Rejection, code: ErrorCode) {
    assert_eq!(refused.code, code, "{refused}");
    assert!(refused.retry_after_ms.is_some_and(|ms| ms > 0), "{refused}");
}

#[test]
fn the_node_holds_only_so_many_live_sessions() {
    run(async || {
        let node = Node::start_with(|config| config.max_sessions = 2);
        let (a, b, c) = (node.open().await, node.open().await, node.open().await);
        let first = node.join(a).await;
        let _second = node.join(b).await;
        is_told(
            &node.post(c, "hi").await.unwrap_err(),
            ErrorCode::Overloaded,
        );
        first.handle.leave(first.id);
        pass(61).await;
        assert!(node.post(c, "hi").await.is_ok());
    });
}

#[test]
fn asking_for_sessions_that_do_not_exist_takes_no_places() {
    run(async || {
        let node = Node::start_with(|config| config.max_sessions = 3);
        let session = node.open().await;
        // No time passes meanwhile. Of two, at once: who is told no makes room for the next.
        for _ in 0..50 {
            let (one, two) = tokio::join!(
                node.post(SessionId::generate(), "is anybody there?"),
                node.post(SessionId::generate(), "is anybody there?"),
            );
            assert_eq!(one, Err(Rejection::no_session()));
            assert_eq!(two, Err(Rejection::no_session()));
        }
        assert!(node.post(session, "hi").await.is_ok());
        assert_eq!(node.hub.session_count(), 1);
    });
}

#[test]
fn a_tenant_holds_only_so_many_live_sessions_and_does_not_starve_others() {
    run(async || {
        let node = Node::start_with(|config| config.tenant.sessions = 2);
        let (a, b, c) = (node.open().await, node.open().await, node.open().await);
        let _first = node.join(a).await;
        let second = node.join(b).await;
        is_told(
            &node.post(c, "hi").await.unwrap_err(),
            ErrorCode::RateLimited,
        );
        let other = node.store.add_tenant(TenantLimits::default());
        let (bob, bot) = (caller(other, "bob"), node.store.add_bot(other));
        let session = node.hub.open_session(&bob, bot).await.unwrap();
        let handle = node.hub.session(other, session).unwrap();
        let message = post(ClientMessageId::generate(), "hi");
        let posted = handle.post_message(bob, message).await;
        assert!(posted.is_ok(), "another tenant is not concerned");
        second.handle.leave(second.id);
        drop(second);
        pass(61).await;
        assert!(node.post(c, "hi").await.is_ok());
    });
}

#[test]
fn a_tenants_record_overrides_the_defaults() {
    run(async || {
        let node = Node::start();
        let tenant = node.store.add_tenant(TenantLimits {
            connections: Some(1),
            ..TenantLimits::default()
        });
        let handle = node.hub.tenant(tenant).await.unwrap();
        let permit = handle.admit_connection().unwrap();
        // Another handle is the same tenant.
        let again = node.hub.tenant(tenant).await.unwrap();
        is_told(
            &again.admit_connection().err().unwrap(),
            ErrorCode::RateLimited,
        );
        drop(permit);
        assert!(again.admit_connection().is_ok());
        let unlimited = node.hub.tenant(node.tenant).await.unwrap();
        let permits: Vec<_> = (0..1_000).map(|_| unlimited.admit_connection()).collect();
        assert!(permits.iter().all(Result::is_ok));
        is_told(
            &unlimited.admit_connection().err().unwrap(),
            ErrorCode::RateLimited,
        );
    });
}

#[test]
fn a_tenant_that_does_not_exist_is_unauthorized() {
    run(async || {
        let node = Node::start();
        let nobody = hubbub_protocol::TenantId::generate();
        let refused = node.hub.tenant(nobody).await.err().unwrap();
        assert_eq!(refused.code, ErrorCode::Unauthorized);
    });
}

#[test]
fn a_tenant_that_sends_too_fast_is_told_when_to_go_on() {
    run(async || {
        let node = Node::start_with(|config| config.tenant.messages_per_second = 5);
        let (a, b) = (node.open().await, node.open().await);
        node.store
            .change_bot(node.tenant, node.bot, |bot| bot.replies = false);
        let mut accepted = 0;
        let mut refused = Vec::new();
        for n in 0..20 {
            match node.post(if n % 2 == 0 { a } else { b }, "hi").await {
                Ok(_) => accepted += 1,
                Err(rejection) => refused.push(rejection),
            }
        }
        assert!((5..10).contains(&accepted), "{accepted}");
        for rejection in &refused {
            is_told(rejection, ErrorCode::RateLimited);
        }
        assert_eq!(
            node.store.messages(a).len() + node.store.messages(b).len(),
            accepted
        );
    });
}

#[test]
fn a_session_takes_only_so_many_devices() {
    run(async || {
        let node = Node::start_with(|config| config.session.max_devices = 2);
        let session = node.open().await;
        let first = node.join(session).await;
        let _second = node.join(session).await;
        let refused = node.try_join(session, join_request(None), 8).await.err();
        is_told(&refused.unwrap(), ErrorCode::RateLimited);
        first.handle.leave(first.id);
        assert!(node.try_join(session, join_request(None), 8).await.is_ok());
    });
}

#[test]
fn only_so_many_questions_wait_for_their_answer() {
    run(async || {
        let node = Node::start();
        node.upstream
            .usually(Step::answer(&["ok"], Duration::from_secs(1)));
        let session = node.open().await;
        let mut device = node.join(session).await;
        for _ in 0..4 {
            node.post(session, "and?").await.unwrap();
        }
        is_told(
            &node.post(session, "and?").await.unwrap_err(),
            ErrorCode::RateLimited,
        );
        // What asks nothing may be said.
        node.note(session, "patience").await;
        device.settle().await;
        assert_eq!(device.view().ends.len(), 4);
        assert!(node.post(session, "and now?").await.is_ok());
    });
}

#[test]
fn a_message_longer_than_the_model_reads_fails_typed() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        let long = "word ".repeat(16_000);
        let reply = node.post(session, &long).await.unwrap().reply.unwrap();
        device.until_end_of(reply).await;
        let end = device.view().ends.pop().unwrap().1;
        assert_eq!(end, super::view::End::Failed(ErrorCode::TooLarge));
        assert!(node.upstream.requests().is_empty());
    });
}
