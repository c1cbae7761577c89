//! The ledger: every attempt of a reply is on it once, whatever became of the reply. And budgets.

use std::time::Duration;

use hubbub_protocol::{ErrorCode, ReplyState, ServerFrame, SessionId, Usage, VisitorId};

use super::node::{Node, run, run_and_count};
use crate::ports::{AttemptOutcome, StoreError, UpstreamError, UsageSource};
use crate::testing::{Fault, ScriptedUpstream, Step};

use AttemptOutcome::{Answered, Cancelled, Failed};
use UsageSource::{Counted, Estimated, Reported};

const USAGE: Usage = Usage {
    input_tokens: 12,
    output_tokens: 34,
    cached_input_tokens: 4,
    estimated: false,
};

/// What the ledger says of a session: upstream, tokens, and how each attempt went.
fn ledger(node: &Node, session: SessionId) -> Vec<(String, u64, u64, UsageSource, AttemptOutcome)> {
    let attempts = node.store.attempts(session).into_iter();
    let row = attempts.map(|attempt| {
        let Usage {
            input_tokens,
            output_tokens,
            ..
        } = attempt.usage;
        let (source, outcome) = (attempt.source, attempt.outcome);
        (
            attempt.upstream,
            input_tokens,
            output_tokens,
            source,
            outcome,
        )
    });
    row.collect()
}

fn row(
    upstream: &str,
    input: u64,
    output: u64,
    source: UsageSource,
    outcome: AttemptOutcome,
) -> (String, u64, u64, UsageSource, AttemptOutcome) {
    (upstream.to_owned(), input, output, source, outcome)
}

// R027
#[test]
fn attempts_that_failed_or_were_stopped_are_on_the_ledger_too() {
    run(async || {
        let (one, two) = (
            ScriptedUpstream::new("one", 8),
            ScriptedUpstream::new("two", 8),
        );
        let node = Node::start_on(&[one.clone(), two.clone()], |_| {});
        let visitor = VisitorId::generate();
        let session = node.open_for(Some(visitor)).await;
        one.then(vec![Step::Fail(UpstreamError::Unreachable)]);
        two.then(vec![
            Step::Alive,
            Step::wait_ms(50),
            Step::Fail(UpstreamError::Failed),
        ]);
        one.then(vec![
            Step::text("Well, "),
            Step::wait_ms(50),
            Step::Finish(Some(USAGE)),
        ]);
        let frames = node.chat(session, "hi").await;
        assert!(matches!(frames.last(), Some(ServerFrame::Message(m)) if m.usage == Some(USAGE)));
        let rows = ledger(&node, session);
        let input = rows[1].1;
        assert_eq!(
            rows,
            [
                row("one", 0, 0, Counted, Failed),
                row("two", input, 0, Estimated, Failed),
                row("one", 12, 34, Reported, Answered),
            ]
        );
        assert!(input > 0);
        let first = &node.store.attempts(session)[0];
        assert_eq!((first.bot, first.visitor), (node.bot, Some(visitor)));

        // Stopped in the middle: what came is paid for.
        for upstream in [&one, &two] {
            upstream.usually(vec![Step::text("12345678"), Step::Hang]);
        }
        let mut device = node.join(session).await;
        let reply = node.post(session, "go on").await.unwrap().reply.unwrap();
        device.until_text().await;
        node.handle(session)
            .stop_reply(node.caller())
            .await
            .unwrap();
        device.until_end_of(reply).await;
        let rows = ledger(&node, session);
        let last = rows.last().unwrap();
        assert_eq!(
            (rows.len(), last.2, last.3, last.4),
            (4, 2, Estimated, Cancelled)
        );
    });
}

#[test]
fn an_upstream_that_counts_as_it_goes_is_believed_for_what_was_stopped() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let used = Step::Used(USAGE);
        node.upstream.then(vec![
            Step::text("Well"),
            used,
            Step::wait_ms(50),
            Step::Hang,
        ]);
        let mut device = node.join(session).await;
        let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
        device.until_text().await;
        node.handle(session)
            .stop_reply(node.caller())
            .await
            .unwrap();
        device.until_end_of(reply).await;
        assert_eq!(
            ledger(&node, session),
            [row("one", 12, 34, Reported, Cancelled)]
        );
        assert_eq!(node.store.usage_of_ended(session), [Some(USAGE)]);
    });
}

#[test]
fn an_attempt_is_on_the_ledger_once_however_often_its_end_is_sent() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        node.upstream.usually(vec![
            Step::text("Yes."),
            Step::wait_ms(50),
            Step::Finish(Some(USAGE)),
        ]);
        let faults = [
            Fault::AppendUnanswered,
            Fault::AppendFails(StoreError::Unavailable),
            Fault::AppendFails(StoreError::Internal),
        ];
        for fault in faults {
            let mut device = node.join(session).await;
            let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
            device.until_text().await;
            node.store.break_next(fault);
            device.until_end_of(reply).await;
        }
        let rows = ledger(&node, session);
        assert_eq!(rows, vec![row("one", 12, 34, Reported, Answered); 3]);
    });
}

#[test]
fn an_attempt_whose_actor_died_is_on_the_ledger() {
    let panics = run_and_count(async || {
        let node = Node::start();
        let session = node.open().await;
        node.upstream
            .then(vec![Step::text("1234"), Step::wait_ms(50), Step::Panic]);
        node.chat(session, "hi").await;
        let rows = ledger(&node, session);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0].2, rows[0].3), (1, Estimated));
    });
    assert_eq!(panics, 1);
}

// R028
#[test]
fn whoever_is_over_budget_gets_a_typed_end_and_no_model_is_asked() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        node.upstream.usually(vec![
            Step::text("Yes."),
            Step::wait_ms(50),
            Step::Finish(Some(USAGE)),
        ]);
        // One answer of at most 512 tokens and its prompt, and not two.
        node.store.set_budget(550);
        let frames = node.chat(session, "hi").await;
        assert!(matches!(frames.last(), Some(ServerFrame::Message(_))));
        let frames = node.chat(session, "hi").await;
        let Some(ServerFrame::Reply(end)) = frames.last() else {
            panic!("{frames:?}");
        };
        let ReplyState::Failed { error } = &end.state else {
            panic!("{end:?}");
        };
        assert_eq!(error.code, ErrorCode::QuotaExceeded);
        assert_eq!(node.upstream.requests().len(), 1);
        assert_eq!(ledger(&node, session).len(), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.store.set_budget(10_000);
        let frames = node.chat(session, "and now").await;
        assert!(matches!(frames.last(), Some(ServerFrame::Message(_))));
    });
}
