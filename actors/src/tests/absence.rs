//! Who has left stands in nobody's way: its question is answered after those of people who wait.

use std::time::Duration;

use hubbub_protocol::{ReplyId, SessionId};

use super::node::{Device, Node, pass, run};
use crate::testing::{ScriptedUpstream, Step};

/// Somebody whose question waits behind another that is being answered, on an upstream with one slot.
struct Queue {
    node: Node,
    session: SessionId,
    device: Device,
    reply: ReplyId,
}

impl Queue {
    async fn start() -> Self {
        let node = Node::start_on(&[ScriptedUpstream::new("one", 1)], |config| {
            config.pool.queue_wait = Duration::from_mins(3);
            config.pool.first_sign_wait = Duration::from_mins(3);
        });
        node.upstream
            .usually(Step::answer(&["ok"], Duration::from_secs(20)));
        let first = node.open().await;
        node.post(first, "first").await.unwrap();
        pass(1).await;
        let session = node.open().await;
        let device = node.join(session).await;
        let reply = node.post(session, "second").await.unwrap().reply.unwrap();
        pass(1).await;
        Self {
            node,
            session,
            device,
            reply,
        }
    }

    fn leave(&self) {
        self.device.handle.leave(self.device.id);
    }

    /// Somebody else asks, and waits for the answer; whether it came before the other's.
    async fn is_overtaken(&self) -> bool {
        let other = self.node.open().await;
        let mut device = self.node.join(other).await;
        let reply = self.node.post(other, "third").await.unwrap().reply.unwrap();
        device.until_end_of(reply).await;
        self.node.store.messages(self.session).len() == 1
    }

    /// The question has its answer in the end.
    async fn assert_answered(&self) {
        let mut device = self.node.join(self.session).await;
        let is_answer = |reply| move |message: &_| is_of(message, reply);
        if !self
            .node
            .store
            .messages(self.session)
            .iter()
            .any(is_answer(self.reply))
        {
            device.until_end_of(self.reply).await;
        }
        assert_eq!(self.node.store.messages(self.session).len(), 2);
    }
}

fn is_of(message: &hubbub_protocol::MessageFrame, reply: ReplyId) -> bool {
    message.reply == Some(reply)
}

// X8
#[test]
fn the_question_of_somebody_who_left_is_answered_after_those_of_people_who_wait() {
    run(async || {
        let queue = Queue::start().await;
        queue.leave();
        pass(10).await;
        assert!(queue.is_overtaken().await);
        queue.assert_answered().await;
    });
}

// X8, H13
#[test]
fn the_wait_of_somebody_who_left_ends_like_any_other() {
    run(async || {
        let upstream = ScriptedUpstream::new("one", 1);
        upstream.usually(vec![Step::text("endless"), Step::Hang]);
        let node = Node::start_on(&[upstream], |config| {
            config.pool.queue_len = 1;
            config.pool.queue_wait = Duration::from_secs(30);
        });
        let first = node.open().await;
        node.post(first, "first").await.unwrap();
        pass(1).await;
        let session = node.open().await;
        let device = node.join(session).await;
        node.post(session, "second").await.unwrap();
        pass(1).await;
        device.handle.leave(device.id);
        pass(20).await;
        assert_eq!(
            node.store.pending(session).len(),
            1,
            "it still waits in line"
        );
        pass(15).await;
        assert_eq!(node.store.ended(session).len(), 1);
    });
}

// X8
#[test]
fn who_is_back_in_a_moment_keeps_its_place() {
    run(async || {
        let queue = Queue::start().await;
        queue.leave();
        pass(2).await;
        let _back = queue.node.join(queue.session).await;
        pass(8).await;
        assert!(!queue.is_overtaken().await);
        queue.assert_answered().await;
    });
}

// X8
#[test]
fn who_asks_without_a_device_and_reads_later_keeps_its_place() {
    run(async || {
        let queue = Queue::start().await;
        // Over HTTP: nobody ever joined.
        let session = queue.node.open().await;
        let node = &queue.node;
        let reply = node.post(session, "by HTTP").await.unwrap().reply;
        pass(10).await;
        queue.is_overtaken().await;
        let messages = node.store.messages(session);
        assert!(messages.iter().any(|message| message.reply == reply));
    });
}
