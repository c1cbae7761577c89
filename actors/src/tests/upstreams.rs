//! Upstreams that fail, stall or are full.

use std::sync::Arc;
use std::time::Duration;

use hubbub_protocol::{ErrorCode, ReplyState, ServerFrame};
use tokio::time::Instant;

use super::node::{Device, Node, run};
use super::view::End;
use crate::ports::UpstreamError;
use crate::testing::{ScriptedUpstream, Step};

fn two() -> [Arc<ScriptedUpstream>; 2] {
    [
        ScriptedUpstream::new("one", 4),
        ScriptedUpstream::new("two", 4),
    ]
}

fn completed() -> End {
    End::Completed("Hello, world.".into())
}

async fn ask(node: &Node) -> (Device, End) {
    let session = node.open().await;
    let mut device = node.join(session).await;
    let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
    device.until_end_of(reply).await;
    device.settle().await;
    let mut ends = device.view().ends;
    assert_eq!(ends.len(), 1);
    (device, ends.remove(0).1)
}

fn positions(device: &Device) -> Vec<u32> {
    let queued = device.frames.iter().filter_map(|frame| match frame {
        ServerFrame::Reply(r) => match r.state {
            ReplyState::Queued { position, .. } => Some(position),
            _ => None,
        },
        _ => None,
    });
    queued.collect()
}

#[test]
fn an_error_before_the_first_word_is_retried_at_the_next_upstream() {
    run(async || {
        let upstreams = two();
        upstreams[0].then(vec![Step::Fail(UpstreamError::Failed)]);
        let node = Node::start_on(&upstreams, |_| {});
        let (_, end) = ask(&node).await;
        assert_eq!(end, completed());
        assert_eq!(upstreams[0].requests().len(), 1);
        assert_eq!(upstreams[1].requests().len(), 1);
        assert_eq!(
            upstreams[0].requests()[0].request_id,
            upstreams[1].requests()[0].request_id
        );
    });
}

#[test]
fn a_lone_upstream_is_tried_again_after_a_pause_and_given_up_in_the_end() {
    run(async || {
        let node = Node::start();
        node.upstream
            .then(vec![Step::Fail(UpstreamError::Unreachable)]);
        node.upstream
            .then(vec![Step::Fail(UpstreamError::TimedOut)]);
        assert_eq!(ask(&node).await.1, completed());
        assert_eq!(node.upstream.requests().len(), 3);

        node.upstream
            .usually(vec![Step::Fail(UpstreamError::Failed)]);
        let (_, end) = ask(&node).await;
        assert_eq!(end, End::Failed(ErrorCode::Unavailable));
        assert_eq!(node.upstream.requests().len(), 3 + 4, "four attempts");
    });
}

#[test]
fn an_upstream_that_says_when_is_not_asked_before() {
    run(async || {
        let node = Node::start();
        let pause = Duration::from_secs(2);
        node.upstream
            .then(vec![Step::Fail(UpstreamError::Busy(Some(pause)))]);
        let asked = Instant::now();
        let session = node.open().await;
        node.chat(session, "hi").await;
        assert!(asked.elapsed() >= pause);
    });
}

#[test]
fn an_error_after_the_first_word_fails_at_once_and_splices_nothing() {
    run(async || {
        let upstreams = two();
        upstreams[0].then(vec![
            Step::text("I thi"),
            Step::wait_ms(50),
            Step::Fail(UpstreamError::Unreachable),
        ]);
        let node = Node::start_on(&upstreams, |_| {});
        let (device, end) = ask(&node).await;
        assert_eq!(end, End::Failed(ErrorCode::Unavailable));
        assert!(upstreams[1].requests().is_empty());
        assert_eq!(device.view().seqs(), vec![1]);
        let session = device.joined().session;
        assert_eq!(node.store.ended(session)[0].text, "I thi", "kept");
    });
}

#[test]
fn a_stream_that_breaks_off_is_not_taken_for_an_answer() {
    run(async || {
        let node = Node::start();
        node.upstream
            .then(vec![Step::text("It is"), Step::wait_ms(9)]);
        assert_eq!(ask(&node).await.1, End::Failed(ErrorCode::Unavailable));
    });
}

// M9
#[test]
fn an_error_that_would_repeat_is_not_asked_for_again_and_another_upstream_is() {
    for error in [UpstreamError::Refused, UpstreamError::Misconfigured] {
        run(async || {
            let upstreams = two();
            upstreams[0].usually(vec![Step::Fail(error)]);
            let node = Node::start_on(&upstreams, |_| {});
            assert_eq!(ask(&node).await.1, completed());
            assert_eq!(upstreams[0].requests().len(), 1);
            assert_eq!(upstreams[1].requests().len(), 1);
        });
    }
}

// M9, H12
#[test]
fn where_no_upstream_takes_the_request_the_visitor_is_told_at_once() {
    for error in [UpstreamError::Refused, UpstreamError::Misconfigured] {
        run(async || {
            let node = Node::start();
            node.upstream.usually(vec![Step::Fail(error)]);
            for n in 1..4 {
                let session = node.open().await;
                let asked = Instant::now();
                let frames = node.chat(session, "hi").await;
                assert!(asked.elapsed() < Duration::from_secs(1), "{error}");
                assert!(!frames.is_empty());
                assert_eq!(node.upstream.requests().len(), n, "one attempt each");
            }
        });
    }
}

// M9
#[test]
fn not_every_visitor_pays_for_an_upstream_whose_set_up_is_wrong() {
    run(async || {
        let upstreams = two();
        upstreams[0].usually(vec![Step::Fail(UpstreamError::Misconfigured)]);
        let node = Node::start_on(&upstreams, |_| {});
        for _ in 0..5 {
            assert_eq!(ask(&node).await.1, completed());
        }
        assert_eq!(upstreams[0].requests().len(), 1);
        super::node::pass(60).await;
        upstreams[0].usually(Step::answer(&["Back."], Duration::ZERO));
        assert_eq!(ask(&node).await.1, End::Completed("Back.".into()));
    });
}

// M9
#[test]
fn every_upstream_of_the_route_is_asked_before_the_reply_fails() {
    run(async || {
        let errors = [
            UpstreamError::Unreachable,
            UpstreamError::Misconfigured,
            UpstreamError::Busy(None),
            UpstreamError::TimedOut,
            UpstreamError::Cut,
            UpstreamError::Garbage,
        ];
        let mut upstreams = Vec::new();
        for (n, error) in errors.into_iter().enumerate() {
            let upstream = ScriptedUpstream::new(&format!("u{n}"), 2);
            upstream.usually(vec![Step::Fail(error)]);
            upstreams.push(upstream);
        }
        upstreams.push(ScriptedUpstream::new("last", 2));
        let node = Node::start_on(&upstreams, |_| {});
        assert_eq!(ask(&node).await.1, completed());
        let asked: Vec<_> = upstreams.iter().map(|u| u.requests().len()).collect();
        assert_eq!(asked, vec![1; 7]);
    });
}

// M9
#[test]
fn a_question_that_is_too_long_for_one_upstream_goes_to_one_that_can_read_it() {
    run(async || {
        let upstreams = [
            ScriptedUpstream::reading("small", 4, 600),
            ScriptedUpstream::reading("large", 4, 8_192),
        ];
        let node = Node::start_on(&upstreams, |_| {});
        let session = node.open().await;
        let frames = node.chat(session, &"long ".repeat(200)).await;
        assert!(matches!(frames.last(), Some(ServerFrame::Message(_))));
        assert!(upstreams[0].requests().is_empty());
        assert_eq!(upstreams[1].requests().len(), 1);
    });
}

// M10, H13
#[test]
fn a_lone_upstream_that_hangs_is_given_up_within_the_bound_on_the_whole_wait() {
    run(async || {
        let node = Node::start();
        node.upstream.usually(vec![
            Step::wait_ms(25_000),
            Step::Fail(UpstreamError::TimedOut),
        ]);
        let asked = Instant::now();
        assert_eq!(ask(&node).await.1, End::Failed(ErrorCode::Unavailable));
        // A device that settles waits a while for more.
        assert!(asked.elapsed() < Duration::from_secs(60 + 10));
        assert!(node.upstream.requests().len() <= 3);

        node.upstream.usually(vec![Step::Hang]);
        let asked = Instant::now();
        assert_eq!(ask(&node).await.1, End::Failed(ErrorCode::Unavailable));
        assert!(asked.elapsed() < Duration::from_secs(60 + 10));
        assert_eq!(node.upstream.running(), 0);
    });
}

// M10
#[test]
fn a_time_out_is_not_repeated_where_there_is_another_upstream() {
    run(async || {
        let upstreams = two();
        for upstream in &upstreams {
            upstream.usually(vec![
                Step::wait_ms(10_000),
                Step::Fail(UpstreamError::TimedOut),
            ]);
        }
        let node = Node::start_on(&upstreams, |_| {});
        assert_eq!(ask(&node).await.1, End::Failed(ErrorCode::Unavailable));
        assert_eq!(upstreams.map(|u| u.requests().len()), [1, 1]);
    });
}

// M1
#[test]
fn a_prompt_that_always_fails_delays_nobody_else() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        for _ in 0..3 {
            for _ in 0..4 {
                node.upstream.then(vec![Step::Fail(UpstreamError::Failed)]);
            }
            node.chat(session, "poison").await;
        }
        assert_eq!(node.upstream.requests().len(), 12);
        let other = node.open().await;
        let asked = Instant::now();
        node.chat(other, "hi").await;
        assert!(asked.elapsed() < Duration::from_millis(200));
    });
}

// H13
#[test]
fn who_waits_for_an_upstream_that_pauses_is_told_so_and_for_how_long() {
    run(async || {
        let node = Node::start();
        let pause = Duration::from_secs(20);
        node.upstream
            .then(vec![Step::Fail(UpstreamError::Busy(Some(pause)))]);
        node.upstream.usually(vec![
            Step::wait_ms(100),
            Step::text("So."),
            Step::Finish(None),
        ]);
        let first = node.open().await;
        node.post(first, "hi").await.unwrap();
        super::node::pass(2).await;
        let session = node.open().await;
        let mut device = node.join(session).await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        let asked = Instant::now();
        device.until_end_of(reply).await;
        let waited = asked.elapsed();
        let told = device.frames.iter().find_map(|frame| match frame {
            ServerFrame::Reply(frame) => match frame.state {
                ReplyState::Queued { paused, eta_ms, .. } => Some((paused, eta_ms)),
                _ => None,
            },
            _ => None,
        });
        let (paused, eta_ms) = told.unwrap();
        assert!(paused);
        assert!((17_000..=18_000).contains(&eta_ms), "{eta_ms}");
        assert!(waited >= Duration::from_millis(eta_ms));
    });
}

#[test]
fn a_hanging_upstream_holds_only_its_own_slots() {
    run(async || {
        let upstreams = two();
        upstreams[0].usually(vec![Step::Hang]);
        let node = Node::start_on(&upstreams, |_| {});
        for _ in 0..4 {
            let session = node.open().await;
            node.post(session, "hi").await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(upstreams[0].running(), 4);
        assert_eq!(ask(&node).await.1, completed());
        assert_eq!(upstreams[1].requests().len(), 1);
    });
}

#[test]
fn usage_model_and_latency_are_stored_with_the_answer() {
    run(async || {
        let node = Node::start();
        let usage = hubbub_protocol::Usage {
            input_tokens: 12,
            output_tokens: 34,
            estimated: false,
            cached_input_tokens: 5,
        };
        node.upstream.then(vec![
            Step::wait_ms(200),
            Step::text("ok"),
            Step::Finish(Some(usage)),
        ]);
        let (device, _) = ask(&node).await;
        let message = device.frames.iter().find_map(|frame| match frame {
            ServerFrame::Message(message) if message.reply.is_some() => Some(message),
            _ => None,
        });
        let message = message.unwrap();
        assert_eq!(message.usage, Some(usage));
        assert_eq!(message.model.as_deref(), Some("one"));
        assert_eq!(message.author, "Bot");
        assert!(
            message
                .latency_ms
                .is_some_and(|ms| (200..210).contains(&ms))
        );
    });
}

#[test]
fn a_place_in_the_queue_is_told_and_rises() {
    run(async || {
        let upstream = ScriptedUpstream::new("one", 1);
        upstream.usually(Step::answer(&["a"], Duration::from_secs(2)));
        let node = Node::start_on(&[upstream], |_| {});
        let mut devices = Vec::new();
        for _ in 0..4 {
            let session = node.open().await;
            let device = node.join(session).await;
            let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            devices.push((device, reply));
        }
        for (device, reply) in &mut devices {
            device.until_end_of(*reply).await;
        }
        let told: Vec<_> = devices
            .iter()
            .map(|(device, _)| positions(device))
            .collect();
        assert_eq!(told, vec![vec![], vec![1], vec![2, 1], vec![3, 2, 1]]);
        assert_eq!(node.upstream.most_running(), 1);
    });
}

#[test]
fn a_full_queue_fails_the_reply_as_overloaded() {
    run(async || {
        let upstream = ScriptedUpstream::new("one", 1);
        upstream.usually(vec![Step::text("…"), Step::Hang]);
        let node = Node::start_on(&[upstream], |config| config.pool.queue_len = 2);
        for _ in 0..3 {
            let session = node.open().await;
            node.post(session, "hi").await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(ask(&node).await.1, End::Failed(ErrorCode::Overloaded));
    });
}

#[test]
fn waiting_too_long_for_a_slot_fails_the_reply_and_frees_its_place() {
    run(async || {
        let upstream = ScriptedUpstream::new("one", 1);
        upstream.usually(vec![Step::text("…"), Step::Hang]);
        let node = Node::start_on(&[upstream], |config| {
            config.pool.queue_len = 1;
            config.pool.queue_wait = Duration::from_secs(5);
        });
        let session = node.open().await;
        node.post(session, "hi").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        for _ in 0..3 {
            // Each finds the only place in the queue free again.
            let asked = Instant::now();
            let (device, end) = ask(&node).await;
            assert_eq!(end, End::Failed(ErrorCode::Overloaded));
            assert_eq!(positions(&device), vec![1]);
            assert!(asked.elapsed() >= Duration::from_secs(5));
        }
    });
}

#[test]
fn a_bot_on_a_route_of_its_own_uses_no_other_upstream() {
    run(async || {
        let upstreams = two();
        let node = Node::start_on(&upstreams, |_| {});
        node.store.change_bot(node.tenant, node.bot, |bot| {
            bot.route = vec!["gone".into(), "two".into()];
        });
        assert_eq!(ask(&node).await.1, completed());
        assert!(upstreams[0].requests().is_empty());
        node.store
            .change_bot(node.tenant, node.bot, |bot| bot.route = vec!["gone".into()]);
        super::node::pass(6).await;
        assert_eq!(ask(&node).await.1, End::Failed(ErrorCode::Unavailable));
    });
}
