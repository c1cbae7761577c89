//! What becomes of an answer: whole, cut, broken off, filtered, empty; and what it took.

use std::time::Duration;

use hubbub_protocol::{Cut, FailureReason, MessageFrame, ReplyState, ServerFrame, Usage};
use tokio::time::Instant;

use super::node::{Node, run};
use crate::ports::UpstreamError;
use crate::testing::{ScriptedUpstream, Step};

const USAGE: Usage = Usage {
    input_tokens: 12,
    output_tokens: 34,
    estimated: false,
    cached_input_tokens: 0,
};

fn message(frames: &[ServerFrame]) -> &MessageFrame {
    match frames.last() {
        Some(ServerFrame::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

fn reason(frames: &[ServerFrame]) -> Option<FailureReason> {
    match frames.last() {
        Some(ServerFrame::Reply(frame)) => match &frame.state {
            ReplyState::Failed { error } => error.reason,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Whether the model was told to be thinking, state by state.
fn thinking(frames: &[ServerFrame]) -> Vec<bool> {
    let started = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Reply(frame) => match &frame.state {
            ReplyState::Started { thinking, .. } => Some(*thinking),
            _ => None,
        },
        _ => None,
    });
    started.collect()
}

// M1
#[test]
fn an_answer_without_a_word_is_one_attempt_and_an_end_for_this_visitor_alone() {
    run(async || {
        let node = Node::start();
        for _ in 0..5 {
            node.upstream
                .then(vec![Step::Alive, Step::FinishAtBound(Some(USAGE))]);
            let session = node.open().await;
            let frames = node.chat(session, "think").await;
            assert_eq!(reason(&frames), Some(FailureReason::Empty));
        }
        assert_eq!(node.upstream.requests().len(), 5, "one attempt each");
        let session = node.open().await;
        let asked = Instant::now();
        message(&node.chat(session, "hi").await);
        assert!(asked.elapsed() < Duration::from_millis(200), "nobody waits");
    });
}

// S4
#[test]
fn an_answer_of_white_space_is_like_an_empty_one() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        for blank in ["\n\n", " \t", "\u{A0}\u{200B}\u{FEFF}"] {
            node.upstream.then(vec![
                Step::text(blank),
                Step::wait_ms(200),
                Step::text(" "),
                Step::Finish(None),
            ]);
            let frames = node.chat(session, "hi").await;
            assert_eq!(reason(&frames), Some(FailureReason::Empty));
            assert!(!frames.iter().any(|f| matches!(f, ServerFrame::Delta(_))));
        }
        assert_eq!(node.store.messages(session).len(), 3, "the questions");
        message(&node.chat(session, "and now").await);
        let turns = &node.upstream.requests()[3].turns;
        assert_eq!(turns.len(), 2, "{turns:?}");
        assert_eq!(turns[1].text, "hi\n\nhi\n\nhi\n\nand now");
    });
}

// S4
#[test]
fn white_space_before_the_first_word_is_shown_with_it_and_spliced_to_no_other_answer() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        node.upstream.then(vec![
            Step::text("\n"),
            Step::wait_ms(100),
            Step::Fail(UpstreamError::Failed),
        ]);
        node.upstream.then(vec![
            Step::text("\n"),
            Step::wait_ms(100),
            Step::text("Yes."),
            Step::Finish(None),
        ]);
        assert_eq!(message(&node.chat(session, "hi").await).text, "\nYes.");
    });
}

// M3
#[test]
fn an_answer_at_the_models_bound_is_a_message_that_says_so() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        node.upstream.then(vec![
            Step::text("Half of "),
            Step::FinishAtBound(Some(USAGE)),
        ]);
        let frames = node.chat(session, "hi").await;
        assert_eq!(message(&frames).cut, Some(Cut::Length));
        assert_eq!(node.store.messages(session)[1].cut, Some(Cut::Length));
        let whole = node.chat(session, "again").await;
        assert_eq!(message(&whole).cut, None);
    });
}

// M3
#[test]
fn an_answer_that_breaks_off_fails_with_a_reason_and_is_kept_and_paid_for() {
    let broken = [
        (UpstreamError::Cut, FailureReason::Cut),
        (UpstreamError::Failed, FailureReason::Cut),
        (UpstreamError::TimedOut, FailureReason::Cut),
        (UpstreamError::Filtered, FailureReason::Filtered),
    ];
    for (error, expected) in broken {
        run(async || {
            let upstreams = [
                ScriptedUpstream::new("one", 4),
                ScriptedUpstream::new("two", 4),
            ];
            upstreams[0].usually(vec![Step::text("Half of "), Step::Fail(error)]);
            let node = Node::start_on(&upstreams, |_| {});
            let session = node.open().await;
            let frames = node.chat(session, "hello").await;
            assert_eq!(reason(&frames), Some(expected), "{error}");
            assert_eq!(node.store.ended(session)[0].text, "Half of ", "{error}");
            // "Be brief." and "hello" are 3 and 2 tokens of about four bytes.
            let usage = node.store.usage_of_ended(session)[0].unwrap();
            assert!(usage.estimated);
            assert_eq!((usage.input_tokens, usage.output_tokens), (5, 2));
            assert!(upstreams[1].requests().is_empty(), "nothing is spliced");
        });
    }
}

// M3
#[test]
fn an_answer_that_breaks_off_before_its_first_word_is_asked_for_again() {
    run(async || {
        let node = Node::start();
        node.upstream.then(vec![
            Step::Alive,
            Step::wait_ms(9),
            Step::Fail(UpstreamError::Cut),
        ]);
        let session = node.open().await;
        let frames = node.chat(session, "hi").await;
        assert_eq!(message(&frames).text, "Hello, world.");
        assert_eq!(thinking(&frames), [false, true, false]);
    });
}

// M3
#[test]
fn a_question_that_a_filter_refuses_ends_so_and_is_taken_to_no_other_upstream() {
    run(async || {
        let upstreams = [
            ScriptedUpstream::new("one", 4),
            ScriptedUpstream::new("two", 4),
        ];
        upstreams[0].then(vec![Step::Fail(UpstreamError::Filtered)]);
        let node = Node::start_on(&upstreams, |_| {});
        let session = node.open().await;
        let frames = node.chat(session, "something bad").await;
        assert_eq!(reason(&frames), Some(FailureReason::Filtered));
        assert!(upstreams[1].requests().is_empty());
        node.chat(session, "something good").await;
        let turns = &upstreams[0].requests()[1].turns;
        assert_eq!(turns.last().unwrap().text, "something good");
    });
}

// M3
#[test]
fn usage_is_counted_by_the_server_where_the_model_does_not_tell() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let frames = node.chat(session, "hello").await;
        let usage = message(&frames).usage.unwrap();
        assert_eq!(
            usage,
            Usage {
                input_tokens: 5,
                output_tokens: 4,
                estimated: true,
                cached_input_tokens: 0,
            }
        );
        node.upstream
            .then(vec![Step::text("ok"), Step::Finish(Some(USAGE))]);
        let frames = node.chat(session, "hello").await;
        assert_eq!(message(&frames).usage, Some(USAGE));
    });
}

// M10
#[test]
fn a_model_that_thinks_for_long_is_told_to_be_at_work_and_waited_for() {
    run(async || {
        let node = Node::start();
        let mut steps: Vec<_> = (0..100)
            .flat_map(|_| [Step::wait_ms(1_000), Step::Alive])
            .collect();
        steps.extend([Step::text("Done."), Step::wait_ms(500), Step::Finish(None)]);
        node.upstream.usually(steps);
        let session = node.open().await;
        let mut device = node.join(session).await;
        let reply = node.post(session, "think").await.unwrap().reply.unwrap();
        super::node::pass(50).await;
        let mut late = node.join(session).await;
        late.until(|frame| matches!(frame, ServerFrame::Joined(_)))
            .await;
        let running = late.joined().replying.clone().unwrap();
        assert!(matches!(
            running.state,
            ReplyState::Started { thinking: true, .. }
        ));
        device.until_end_of(reply).await;
        assert_eq!(message(&device.frames).text, "Done.");
        assert_eq!(thinking(&device.frames), [false, true], "told once");
        assert_eq!(node.upstream.requests().len(), 1);
    });
}
