//! Everything at once: devices come, go and do not read, questions are asked, repeated and stopped,
//! upstreams fail, storage loses answers, actors panic. The order is drawn from a seed. Whatever the
//! order, what every device sees is whole, and every question gets its one end.

use std::time::Duration;

use hubbub_protocol::{ClientMessageId, ReplyId, Seq, SessionId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::node::{Device, Node, join_request, pass, run_and_count};
use crate::ports::{StoreError, UpstreamError};
use crate::testing::{Fault, Step};

struct Chaos {
    node: Node,
    session: SessionId,
    rng: StdRng,
    joined: Vec<Device>,
    left: Vec<Device>,
    sent: Vec<(ClientMessageId, String)>,
    acknowledged: Vec<(ClientMessageId, Seq)>,
}

impl Chaos {
    async fn start(seed: u64) -> Self {
        let node = Node::start();
        let session = node.open().await;
        Self {
            node,
            session,
            rng: StdRng::seed_from_u64(seed),
            joined: Vec::new(),
            left: Vec::new(),
            sent: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..12) {
            0..=2 => self.join().await,
            3 => self.leave(),
            4 | 5 => self.send().await,
            6 => self.repeat().await,
            7 => drop(self.stop().await),
            8 => self.break_storage(),
            9 => {
                let script = self.script();
                self.node.upstream.then(script);
            }
            _ => {
                let pause = self.rng.random_range(1..3_000);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    async fn join(&mut self) {
        let after = self.rng.random_range(0..=self.sent.len() as u64);
        let head = self.node.store.messages(self.session).len() as u64;
        let after = Seq(after.min(head));
        let capacity = [1, 2, 4_096][self.rng.random_range(0..3)];
        let join = join_request(Some(after));
        if let Ok(device) = self.node.try_join(self.session, join, capacity).await {
            self.joined.push(device);
        }
    }

    fn leave(&mut self) {
        if !self.joined.is_empty() {
            let at = self.rng.random_range(0..self.joined.len());
            let device = self.joined.swap_remove(at);
            device.handle.leave(device.id);
            self.left.push(device);
        }
    }

    async fn send(&mut self) {
        let id = ClientMessageId::generate();
        self.sent
            .push((id, format!("question {} 🙂", self.sent.len())));
        self.post(self.sent.len() - 1).await;
    }

    async fn repeat(&mut self) {
        if !self.sent.is_empty() {
            let at = self.rng.random_range(0..self.sent.len());
            self.post(at).await;
        }
    }

    async fn post(&mut self, at: usize) {
        let (id, text) = self.sent[at].clone();
        if let Ok(posted) = self.node.post_as(self.session, id, &text).await {
            self.acknowledged.push((id, posted.seq));
        }
    }

    async fn stop(&self) -> Result<(), crate::Rejection> {
        let handle = self.node.hub.session(self.node.tenant, self.session)?;
        handle.stop_reply(self.node.caller()).await
    }

    fn break_storage(&mut self) {
        let fault = match self.rng.random_range(0..7) {
            0 => Fault::AppendUnanswered,
            1 => Fault::AppendPanics,
            2 => Fault::AppendPanicsAfterCommit,
            3 => Fault::AppendFails(StoreError::Unavailable),
            4 => Fault::ListPanics,
            5 => Fault::ListFails(StoreError::Unavailable),
            _ => Fault::LoadPanics,
        };
        self.node.store.break_next(fault);
    }

    fn script(&mut self) -> Vec<Step> {
        match self.rng.random_range(0..5) {
            0 => vec![Step::Panic],
            1 => vec![Step::text("a 🚀"), Step::wait_ms(300), Step::Panic],
            2 => vec![Step::Fail(UpstreamError::Failed)],
            3 => vec![
                Step::text("b 🚀"),
                Step::wait_ms(50),
                Step::Fail(UpstreamError::Unreachable),
            ],
            _ => Step::answer(&["c 🚀 ", "lorem ", "ipsum"], Duration::from_millis(400)),
        }
    }

    /// All is well again, and everybody reads what is there.
    async fn settle(&mut self) {
        while self.node.store.mend_next() {}
        pass(200).await;
        for device in self.joined.iter_mut().chain(&mut self.left) {
            device.settle().await;
        }
    }

    fn check(&self) {
        let stored = self.node.store.messages(self.session);
        for (at, message) in stored.iter().enumerate() {
            assert_eq!(message.seq, Seq(at as u64 + 1), "storage has a hole");
        }
        let pending = self.node.store.pending(self.session);
        assert!(pending.is_empty(), "without an end: {pending:?}");
        for (id, seq) in &self.acknowledged {
            let message = &stored[usize::try_from(seq.0).unwrap() - 1];
            assert_eq!(message.id, *id, "acknowledged, and not stored so");
        }
        let mut ends: Vec<ReplyId> = stored.iter().filter_map(|m| m.reply).collect();
        let failed = self.node.store.ended(self.session);
        ends.extend(failed.iter().map(|ended| ended.reply));
        let questions = stored.iter().filter(|m| m.reply.is_none()).count();
        assert_eq!(ends.len(), questions, "every question has its one end");

        for device in self.joined.iter().chain(&self.left) {
            let view = device.view();
            for (seq, text) in &view.messages {
                let message = &stored[usize::try_from(seq.0).unwrap() - 1];
                assert_eq!(message.text, *text);
            }
            for (reply, _) in &view.ends {
                assert!(ends.contains(reply), "an end that is not stored");
            }
            // Who was not cut, lost or gone has everything.
            let is_joined = self.joined.iter().any(|joined| joined.id == device.id);
            if is_joined && device.log.cuts().is_empty() && device.log.times_lost() == 0 {
                assert_eq!(view.head, Seq(stored.len() as u64), "it missed something");
            }
        }
    }
}

#[test]
fn whatever_happens_devices_see_a_whole_log_and_every_question_ends_once() {
    for seed in 0..150 {
        run_and_count(async || {
            let mut chaos = Chaos::start(seed).await;
            for _ in 0..60 {
                chaos.step().await;
            }
            chaos.settle().await;
            println!("seed {seed}");
            chaos.check();
        });
    }
}
