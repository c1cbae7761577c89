//! A visitor's share of the node: the same however many sessions it has, given back by every end.

use std::time::Duration;

use hubbub_protocol::{ClientMessageId, ErrorCode, SessionId, VisitorId};

use super::node::{Node, pass, post, run};
use crate::testing::Step;
use crate::{Caller, Posted, Rejection};

/// A visitor, and sessions of its own.
struct Visitor {
    caller: Caller,
    sessions: Vec<SessionId>,
}

impl Visitor {
    async fn with_sessions(node: &Node, count: usize) -> Self {
        let visitor = VisitorId::generate();
        let mut sessions = Vec::new();
        for _ in 0..count {
            sessions.push(node.open_for(Some(visitor)).await);
        }
        let caller = node.visitor(visitor);
        Self { caller, sessions }
    }

    async fn post(&self, node: &Node, session: usize) -> Result<Posted, Rejection> {
        self.post_as(node, session, ClientMessageId::generate())
            .await
    }

    async fn post_as(
        &self,
        node: &Node,
        session: usize,
        id: ClientMessageId,
    ) -> Result<Posted, Rejection> {
        let handle = node.handle(self.sessions[session]);
        handle
            .post_message(self.caller.clone(), post(id, "and?"))
            .await
    }
}

#[track_caller]
fn is_told(refused: Result<Posted, Rejection>) {
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RateLimited, "{refused}");
    assert!(refused.retry_after_ms.is_some_and(|ms| ms > 0), "{refused}");
}

// X8
#[test]
fn a_visitor_waits_for_only_so_many_replies_in_all_its_sessions() {
    run(async || {
        let node = Node::start_with(|config| config.visitor.replies = 2);
        let slow = Step::answer(&["ok"], Duration::from_secs(10));
        node.upstream.usually(slow);
        let (greedy, other) = (
            Visitor::with_sessions(&node, 3).await,
            Visitor::with_sessions(&node, 1).await,
        );
        greedy.post(&node, 0).await.unwrap();
        greedy.post(&node, 1).await.unwrap();
        for session in [0, 1, 2] {
            is_told(greedy.post(&node, session).await);
        }
        other.post(&node, 0).await.unwrap();
        // The tenant's own key has no share, in a visitor's session neither.
        node.post(greedy.sessions[2], "hello?").await.unwrap();
        pass(25).await;
        greedy.post(&node, 2).await.unwrap();
        greedy.post(&node, 0).await.unwrap();
        is_told(greedy.post(&node, 1).await);
    });
}

// X8
#[test]
fn a_share_is_given_back_however_a_question_ends() {
    run(async || {
        let node = Node::start_with(|config| config.visitor.replies = 1);
        let visitor = Visitor::with_sessions(&node, 2).await;
        let slow = || Step::answer(&["ok"], Duration::from_secs(10));
        // Stopped.
        node.upstream.then(slow());
        visitor.post(&node, 0).await.unwrap();
        is_told(visitor.post(&node, 1).await);
        pass(1).await;
        let handle = node.handle(visitor.sessions[0]);
        handle.stop_reply(visitor.caller.clone()).await.unwrap();
        pass(1).await;
        // Sent twice: the repeat asks nothing.
        let id = ClientMessageId::generate();
        visitor.post_as(&node, 0, id).await.unwrap();
        pass(1).await;
        assert!(visitor.post_as(&node, 0, id).await.unwrap().duplicate);
        // Not stored.
        node.store.set_away(true);
        visitor.post(&node, 0).await.unwrap_err();
        node.store.set_away(false);
        pass(30).await;
        // And of an assistant that says nothing there is none to wait for.
        visitor.post(&node, 1).await.unwrap();
        pass(30).await;
        node.store
            .change_bot(node.tenant, node.bot, |bot| bot.replies = false);
        pass(6).await;
        for _ in 0..3 {
            visitor.post(&node, 1).await.unwrap();
        }
    });
}
