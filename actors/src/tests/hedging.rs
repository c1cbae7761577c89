//! Hedging: a silent upstream is not waited for alone.

use std::sync::Arc;
use std::time::Duration;

use hubbub_protocol::{ErrorCode, ServerFrame};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use super::node::{Device, Node, run};
use super::view::End;
use crate::ports::{AttemptOutcome, UpstreamError};
use crate::testing::{ScriptedUpstream, Step};

use AttemptOutcome::{Answered, Cancelled, Failed};

const AFTER: Duration = Duration::from_secs(2);

fn node(slots: u32) -> (Node, [Arc<ScriptedUpstream>; 2]) {
    let upstreams = ["one", "two"].map(|name| ScriptedUpstream::new(name, slots));
    let node = Node::start_on(&upstreams, |config| config.pool.hedge_after = Some(AFTER));
    for (upstream, text) in upstreams.iter().zip(["First.", "Second."]) {
        upstream.usually(Step::answer(&[text], Duration::from_millis(10)));
    }
    (node, upstreams)
}

/// What came of a question.
struct Asked {
    device: Device,
    end: End,
    ledger: Vec<(String, AttemptOutcome)>,
    took: Duration,
}

/// Asks in a session of its own.
async fn ask(node: &Node) -> Asked {
    let session = node.open().await;
    let mut device = node.join(session).await;
    let asked = Instant::now();
    let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
    device.until_end_of(reply).await;
    let took = asked.elapsed();
    device.settle().await;
    let mut ends = device.view().ends;
    assert_eq!(ends.len(), 1);
    let attempts = node.store.attempts(session).into_iter();
    let attempts = attempts.map(|attempt| (attempt.upstream, attempt.outcome));
    Asked {
        end: ends.remove(0).1,
        ledger: attempts.collect(),
        device,
        took,
    }
}

fn rows(rows: &[(&str, AttemptOutcome)]) -> Vec<(String, AttemptOutcome)> {
    let owned = |(name, outcome): &(&str, AttemptOutcome)| ((*name).to_owned(), *outcome);
    rows.iter().map(owned).collect()
}

fn answered(text: &str) -> End {
    End::Completed(text.into())
}

#[test]
fn where_an_upstream_is_silent_another_answers_and_the_first_is_let_go() {
    run(async || {
        let (node, [one, two]) = node(4);
        one.then(vec![Step::Hang]);
        let Asked {
            device,
            end,
            ledger,
            took,
        } = ask(&node).await;
        assert_eq!(end, answered("Second."));
        assert!(took < AFTER + Duration::from_millis(100));
        assert_eq!(ledger, rows(&[("one", Cancelled), ("two", Answered)]));
        assert_eq!((one.abandoned(), one.running(), two.running()), (1, 0, 0));
        let message = device.frames.iter().find_map(|frame| match frame {
            ServerFrame::Message(message) => message.model.clone(),
            _ => None,
        });
        assert_eq!(message.as_deref(), Some("two"), "the one that answered");
    });
}

#[test]
fn the_first_to_say_something_answers() {
    run(async || {
        let (node, [one, two]) = node(4);
        one.then(Step::answer(
            &["Late, ", "but first."],
            AFTER + Duration::from_millis(50),
        ));
        two.then(vec![
            Step::Alive,
            Step::wait_ms(100),
            Step::text("never shown"),
        ]);
        let Asked {
            device,
            end,
            ledger,
            ..
        } = ask(&node).await;
        assert_eq!(end, answered("Late, but first."));
        assert_eq!(
            ledger,
            rows(&[("two", Cancelled), ("one", Answered)]),
            "last is who answers"
        );
        assert_eq!((two.abandoned(), two.running()), (1, 0));
        let message = device.frames.iter().find_map(|frame| match frame {
            ServerFrame::Message(message) => message.model.clone(),
            _ => None,
        });
        assert_eq!(message.as_deref(), Some("one"));
    });
}

#[test]
fn nobody_else_is_asked_while_an_upstream_is_at_work_or_where_it_has_no_slot_to_spare() {
    run(async || {
        let (node, [one, two]) = node(1);
        one.then(vec![
            Step::Alive,
            Step::wait_ms(10_000),
            Step::text("Thought."),
            Step::Finish(None),
        ]);
        assert_eq!(ask(&node).await.end, answered("Thought."));
        assert!(two.requests().is_empty());

        // The other one's slot is taken.
        one.then(Step::answer(&["Slow."], AFTER * 2));
        two.then(Step::answer(&["Slower."], AFTER * 3));
        let session = node.open().await;
        node.post(session, "hi").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let Asked { end, ledger, .. } = ask(&node).await;
        assert_eq!(end, answered("Slower."));
        assert_eq!(ledger, rows(&[("two", Answered)]));
        assert_eq!((one.requests().len(), two.requests().len()), (2, 1));
    });
}

#[test]
fn where_one_of_two_fails_the_other_is_left_and_none_is_asked_for_the_same_twice_at_once() {
    run(async || {
        let (node, [one, two]) = node(4);
        let later = AFTER + Duration::from_millis(50);
        one.then(vec![Step::Wait(later), Step::Fail(UpstreamError::Failed)]);
        two.then(Step::answer(&["Second."], Duration::from_millis(200)));
        let Asked { end, ledger, .. } = ask(&node).await;
        assert_eq!(end, answered("Second."));
        assert_eq!(ledger, rows(&[("one", Failed), ("two", Answered)]));

        one.then(Step::answer(&["First."], later));
        two.then(vec![Step::Fail(UpstreamError::Garbage)]);
        let Asked { end, ledger, .. } = ask(&node).await;
        assert_eq!(end, answered("First."));
        assert_eq!(ledger, rows(&[("two", Failed), ("one", Answered)]));

        // Neither is worth asking again.
        one.then(vec![Step::Wait(later), Step::Fail(UpstreamError::Refused)]);
        two.then(vec![Step::wait_ms(200), Step::Fail(UpstreamError::Refused)]);
        let Asked { end, ledger, .. } = ask(&node).await;
        assert_eq!(end, End::Failed(ErrorCode::Unavailable));
        assert_eq!(ledger, rows(&[("one", Failed), ("two", Failed)]));
    });
}

#[test]
fn an_upstream_that_hangs_is_found_out_although_others_answer_for_it() {
    run(async || {
        let (node, [one, _]) = node(4);
        one.usually(vec![Step::Hang]);
        for _ in 0..5 {
            let session = node.open().await;
            node.chat(session, "hi").await;
        }
        assert_eq!(one.requests().len(), 3, "then it pauses");
    });
}

/// Whatever two upstreams do: what is shown is one's answer and no other's, every attempt is on the ledger
/// once, and no request is left open.
#[test]
fn what_is_shown_comes_from_one_upstream() {
    for seed in 0..300 {
        run(async || {
            let mut rng = StdRng::seed_from_u64(seed);
            let (node, upstreams) = node(4);
            for (upstream, word) in upstreams.iter().zip(["one ", "two "]) {
                let mut steps = Vec::new();
                if rng.random_bool(0.7) {
                    steps.push(Step::wait_ms(rng.random_range(0..5_000)));
                }
                if rng.random_bool(0.2) {
                    steps.push(Step::Alive);
                    steps.push(Step::wait_ms(rng.random_range(0..5_000)));
                }
                for _ in 0..rng.random_range(0..4) {
                    steps.push(Step::text(word));
                    steps.push(Step::wait_ms(rng.random_range(0..500)));
                }
                steps.push(match rng.random_range(0..4) {
                    0 => Step::Fail(UpstreamError::Failed),
                    _ => Step::Finish(None),
                });
                upstream.then(steps);
                upstream.usually(vec![Step::text(word), Step::Finish(None)]);
            }
            let Asked {
                device,
                end,
                ledger,
                ..
            } = ask(&node).await;
            let shown = device.shown();
            assert!(
                !(shown.contains("one") && shown.contains("two")),
                "seed {seed}: {shown}"
            );
            if let End::Completed(text) = end {
                assert_eq!(text, shown, "seed {seed}");
                assert_eq!(ledger.last().unwrap().1, Answered, "seed {seed}");
            }
            let asked: usize = upstreams.iter().map(|one| one.requests().len()).sum();
            assert_eq!(ledger.len(), asked, "seed {seed}: {ledger:?}");
            let running: usize = upstreams.iter().map(|one| one.running()).sum();
            assert_eq!(running, 0, "seed {seed}");
        });
    }
}
