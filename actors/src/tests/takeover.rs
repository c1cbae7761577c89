//! Takeover: the fence is committed first; nothing of the bot's is shown after it, and nothing of it begins.
//! That no device is shown a word of the bot's is checked by every [`View`](super::view::View).

use std::collections::HashMap;
use std::time::Duration;

use hubbub_protocol::client::SendMode;
use hubbub_protocol::{
    ClientMessageId, ErrorCode, ReplyId, ReplyState, Role, ServerFrame, SessionHandler, SessionId,
    VisitorId,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::node::{Device, Node, pass, post, run, run_and_count};
use super::view::End;
use crate::ports::{StoreError, UpstreamError};
use crate::testing::{Fault, Step};
use crate::{Caller, Handling, OperatorRole, Rejection};

const TAKE: Handling = Handling::TakeOver { from: None };

async fn handle(
    node: &Node,
    session: SessionId,
    caller: Caller,
    what: Handling,
) -> Result<(), Rejection> {
    node.hub
        .session(node.tenant, session)?
        .handle(caller, what)
        .await
}

fn olga(node: &Node) -> Caller {
    node.operator(OperatorRole::Agent)
}

fn is_handler(frame: &ServerFrame) -> bool {
    matches!(frame, ServerFrame::Handler(_))
}

// R031
#[test]
fn a_takeover_silences_the_bot_on_every_device_and_ends_what_it_was_to_answer() {
    run(async || {
        let node = Node::start();
        let words = vec!["word "; 200];
        node.upstream
            .usually(Step::answer(&words, Duration::from_millis(100)));
        let session = node.open().await;
        let mut devices = [
            node.join(session).await,
            node.join(session).await,
            node.join_unread(session).await,
        ];
        let first = node.post(session, "one").await.unwrap().reply.unwrap();
        let second = node.post(session, "two").await.unwrap().reply.unwrap();
        devices[0].until_text().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        handle(&node, session, olga(&node), TAKE).await.unwrap();
        let unanswered = node.post(session, "three").await.unwrap();
        assert_eq!(unanswered.reply, None, "the bot is not asked");
        // First the one that holds little: it is not to be taken for one that never reads.
        for device in devices.iter_mut().rev() {
            device.settle().await;
            let view = device.view();
            let ends: HashMap<_, _> = view.ends.iter().cloned().collect();
            let cancelled = [first, second].map(|reply| (reply, End::Cancelled));
            assert_eq!(ends, HashMap::from(cancelled));
            assert_eq!(view.ends.len(), 2, "one end each");
            let olga = SessionHandler::Operator {
                id: "olga".into(),
                name: "ann".into(),
            };
            assert_eq!(view.handler, olga);
        }
        let ended = node.store.ended(session);
        assert!(
            ended[0].text.starts_with("word word"),
            "what was shown is kept"
        );
        assert_eq!(
            node.upstream.running(),
            0,
            "the upstream's request is closed"
        );
        assert_eq!(
            node.upstream.requests().len(),
            1,
            "nothing of the bot begins"
        );
        // A device that comes now is told whose it is.
        let mut late = node.join(session).await;
        late.settle().await;
        assert_ne!(late.joined().handler, SessionHandler::Bot);
    });
}

// R031
#[test]
fn a_released_session_is_the_bots_again_from_the_next_message_on() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        handle(&node, session, olga(&node), TAKE).await.unwrap();
        node.post(session, "is anybody there?").await.unwrap();
        node.note(session, "I am.").await;
        handle(
            &node,
            session,
            olga(&node),
            Handling::Release { summary: None },
        )
        .await
        .unwrap();
        let reply = node.post(session, "and now?").await.unwrap().reply.unwrap();
        device.until_end_of(reply).await;
        let roles: Vec<Role> = node
            .store
            .messages(session)
            .iter()
            .map(|m| m.role)
            .collect();
        let expected = [
            Role::Visitor,
            Role::Operator,
            Role::Visitor,
            Role::Assistant,
        ];
        assert_eq!(roles, expected);
        let fences = device.frames.iter().filter_map(|frame| match frame {
            ServerFrame::Handler(frame) => Some(frame.fence),
            _ => None,
        });
        assert_eq!(fences.collect::<Vec<_>>(), [1, 2]);
        device.view();
    });
}

#[test]
fn a_visitor_asks_for_a_person_and_waits_for_one() {
    run(async || {
        let node = Node::start();
        let ann = VisitorId::generate();
        let session = node.open_for(Some(ann)).await;
        let mut device = node.join(session).await;
        let reason = Some("help".to_owned());
        let escalate = Handling::Escalate { reason };
        let ann = node.visitor(ann);
        handle(&node, session, ann.clone(), escalate.clone())
            .await
            .unwrap();
        let ServerFrame::Handler(told) = device.until(is_handler).await else {
            panic!()
        };
        assert!(matches!(told.handler, SessionHandler::Waiting { .. }));
        assert_eq!(node.post(session, "hello?").await.unwrap().reply, None);
        // Asked once more it waits on, in its place.
        handle(&node, session, ann.clone(), escalate).await.unwrap();
        let refused = handle(&node, session, ann, TAKE).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Forbidden);
        handle(&node, session, olga(&node), TAKE).await.unwrap();
        let ServerFrame::Handler(told) = device.until(is_handler).await else {
            panic!()
        };
        assert_eq!(told.fence, 2);
    });
}

#[test]
fn an_answer_that_is_whole_when_it_is_taken_over_is_told_before_or_not_at_all() {
    for latency in 0..8 {
        run(async || {
            let node = Node::start();
            let session = node.open().await;
            let mut device = node.join(session).await;
            node.store.set_latency(Duration::from_millis(4));
            let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
            device.until_text().await;
            // Its end is on its way to storage, or about to be.
            tokio::time::sleep(Duration::from_millis(latency)).await;
            handle(&node, session, olga(&node), TAKE).await.unwrap();
            device.settle().await;
            let ends = device.view().ends;
            assert_eq!(ends.len(), 1);
            assert_eq!(ends[0].0, reply);
            assert!(node.store.pending(session).is_empty());
        });
    }
}

#[test]
fn a_takeover_that_storage_does_not_answer_is_found_out() {
    run(async || {
        let node = Node::start();
        node.upstream.usually(vec![
            Step::text("so"),
            Step::wait_ms(60_000),
            Step::Finish(None),
        ]);
        let session = node.open().await;
        let mut device = node.join(session).await;
        node.post(session, "hi").await.unwrap();
        device.until_text().await;
        node.store.set_away(true);
        let refused = handle(&node, session, olga(&node), TAKE).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unavailable);
        node.store.set_away(false);
        pass(5).await;
        handle(&node, session, olga(&node), TAKE).await.unwrap();
        device.settle().await;
        assert_eq!(device.view().ends.len(), 1);
    });
}

struct Rush {
    node: Node,
    session: SessionId,
    visitor: Caller,
    rng: StdRng,
    asked: HashMap<ClientMessageId, ReplyId>,
}

impl Rush {
    async fn step(&mut self) {
        let (node, session) = (&self.node, self.session);
        match self.rng.random_range(0..14) {
            0..=3 => {
                let id = ClientMessageId::generate();
                let Ok(handle) = node.hub.session(node.tenant, session) else {
                    return;
                };
                let mut message = post(id, "hm?");
                if self.rng.random_bool(0.4) {
                    message.mode = SendMode::Interrupt;
                }
                let posted = handle.post_message(self.visitor.clone(), message).await;
                if let Ok(posted) = posted
                    && let Some(reply) = posted.reply
                {
                    self.asked.insert(id, reply);
                }
            }
            4 => {
                if let Ok(handle) = node.hub.session(node.tenant, session) {
                    drop(handle.stop_reply(node.caller()).await);
                }
            }
            5 | 6 => drop(handle(node, session, olga(node), TAKE).await),
            7 | 8 => drop(
                handle(
                    node,
                    session,
                    olga(node),
                    Handling::Release { summary: None },
                )
                .await,
            ),
            9 => {
                let to = "waiting".to_owned();
                drop(handle(node, session, olga(node), Handling::Transfer { to }).await);
            }
            10 => {
                let escalate = Handling::Escalate { reason: None };
                drop(handle(node, session, self.visitor.clone(), escalate).await);
            }
            11 => {
                let dies = match self.rng.random_range(0..4) {
                    0 => vec![Step::text("a"), Step::wait_ms(90), Step::Panic],
                    1 => vec![Step::Fail(UpstreamError::Failed)],
                    2 => vec![
                        Step::text("b"),
                        Step::wait_ms(50),
                        Step::Fail(UpstreamError::Cut),
                    ],
                    _ => vec![Step::text("c"), Step::Finish(None)],
                };
                self.node.upstream.then(dies);
            }
            12 => {
                let fault = match self.rng.random_range(0..3) {
                    0 => Fault::AppendUnanswered,
                    1 => Fault::AppendPanics,
                    _ => Fault::AppendFails(StoreError::Unavailable),
                };
                node.store.break_next(fault);
            }
            _ => {
                let pause = self.rng.random_range(1..700);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }
}

// R151, without tools: ten thousand takeovers. R152
#[test]
fn whatever_happens_the_bot_talks_over_nobody_and_every_question_ends_once() {
    for seed in 0..2_500 {
        run_and_count(async || {
            let node = Node::start();
            let words = ["a ", "few ", "words ", "in ", "a ", "row"];
            node.upstream
                .usually(Step::answer(&words, Duration::from_millis(400)));
            let visitor = VisitorId::generate();
            let session = node.open_for(Some(visitor)).await;
            let visitor = node.visitor(visitor);
            let mut devices: Vec<Device> = Vec::new();
            for unread in [false, false, true] {
                devices.push(if unread {
                    node.join_unread(session).await
                } else {
                    node.join(session).await
                });
            }
            node.store.set_latency(Duration::from_millis(seed % 7));
            let mut rush = Rush {
                node,
                session,
                visitor,
                rng: StdRng::seed_from_u64(seed),
                asked: HashMap::new(),
            };
            for _ in 0..30 {
                rush.step().await;
            }
            let node = &rush.node;
            while node.store.mend_next() {}
            pass(60).await;
            println!("seed {seed}");
            let pending = node.store.pending(session);
            assert!(pending.is_empty(), "without an end: {pending:?}");
            let stored = node.store.messages(session);
            let ended = node.store.ended(session);
            let whole = stored.iter().filter_map(|message| message.reply);
            let ends: Vec<ReplyId> = whole.chain(ended.iter().map(|one| one.reply)).collect();
            for reply in rush.asked.values() {
                let count = ends.iter().filter(|end| *end == reply).count();
                assert_eq!(count, 1, "ends of {reply}");
            }
            for device in &mut devices {
                device.settle().await;
                device.view();
            }
            let is_end = |state: &ReplyState| {
                matches!(state, ReplyState::Cancelled | ReplyState::Failed { .. })
            };
            assert!(ended.iter().all(|one| is_end(&one.state)));
        });
    }
}
