//! A person is called by the bot's own rules.

use std::time::Duration;

use hubbub_protocol::{Escalation, ReplyState, ServerFrame, SessionHandler, SessionId};

use super::node::{Node, run};
use crate::ports::{StoreError, UpstreamError};
use crate::testing::{Fault, Step};

fn node(escalation: Escalation) -> Node {
    let node = Node::start();
    node.store
        .change_bot(node.tenant, node.bot, |bot| bot.escalation = escalation);
    node
}

fn by_keyword() -> Node {
    node(Escalation {
        keywords: vec!["a human".to_owned()],
        ..Escalation::default()
    })
}

async fn handler(node: &Node, session: SessionId) -> SessionHandler {
    let mut device = node.join(session).await;
    device.settle().await;
    device.joined().handler.clone()
}

// R030
#[test]
fn who_asks_for_a_person_waits_for_one_and_no_model_is_asked() {
    run(async || {
        let node = by_keyword();
        let session = node.open().await;
        let mut device = node.join(session).await;
        node.chat(session, "Are you humane?").await;
        let asked = node.upstream.requests().len();
        let reply = node
            .post(session, "I want a  HUMAN!")
            .await
            .unwrap()
            .reply
            .unwrap();
        let end = device.until_end_of(reply).await;
        assert!(matches!(end, ServerFrame::Reply(r) if r.state == ReplyState::Cancelled));
        device.settle().await;
        let told = device.frames.iter().filter_map(|frame| match frame {
            ServerFrame::Handler(frame) => Some(&frame.handler),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        assert!(
            matches!(
                told[..],
                [SessionHandler::Waiting {
                    reason: Some(_),
                    ..
                }]
            ),
            "{told:?}"
        );
        let begun = |frame: &&ServerFrame| matches!(frame, ServerFrame::Reply(r) if r.reply == reply && r.state != ReplyState::Cancelled);
        assert_eq!(device.frames.iter().find(begun), None, "nothing was begun");
        assert_eq!(node.upstream.requests().len(), asked);
        // Said again it changes nothing, and nobody answers.
        assert_eq!(node.post(session, "a human").await.unwrap().reply, None);
        assert!(matches!(
            handler(&node, session).await,
            SessionHandler::Waiting { .. }
        ));
    });
}

#[test]
fn while_nobody_can_be_called_the_bot_answers() {
    run(async || {
        let node = by_keyword();
        let session = node.open().await;
        let mut device = node.join(session).await;
        node.store
            .break_next(Fault::ChangeHandlerFails(StoreError::Unavailable));
        let reply = node
            .post(session, "a human, please")
            .await
            .unwrap()
            .reply
            .unwrap();
        let end = device.until_end_of(reply).await;
        assert!(matches!(end, ServerFrame::Message(_)), "{end:?}");
        assert_eq!(handler(&node, session).await, SessionHandler::Bot);
    });
}

// R030
#[test]
fn a_person_is_called_after_so_many_failures_in_a_row() {
    run(async || {
        let node = node(Escalation {
            after_failures: Some(2),
            ..Escalation::default()
        });
        let session = node.open().await;
        let fails = vec![Step::text("Well"), Step::Fail(UpstreamError::Failed)];
        for fail in [true, false, true, true] {
            assert_eq!(handler(&node, session).await, SessionHandler::Bot);
            if fail {
                node.upstream.then(fails.clone());
            }
            node.chat(session, "hi").await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(matches!(
            handler(&node, session).await,
            SessionHandler::Waiting { .. }
        ));
        assert_eq!(node.post(session, "hello?").await.unwrap().reply, None);
    });
}

// R030
#[test]
fn a_person_is_called_when_the_model_is_not_sure_of_its_answer() {
    run(async || {
        let node = node(Escalation {
            below_score: Some(40),
            ..Escalation::default()
        });
        let session = node.open().await;
        let mut device = node.join(session).await;
        for (score, text) in [(40, "Sure."), (39, "I am sorry.")] {
            assert_eq!(handler(&node, session).await, SessionHandler::Bot);
            let mark = format!("\n[[score: {score}]]");
            let (half, rest) = mark.split_at(6);
            node.upstream.then(vec![
                Step::text(text),
                Step::text(half),
                Step::text(rest),
                Step::Finish(None),
            ]);
            let reply = node.post(session, "hi").await.unwrap().reply.unwrap();
            let end = device.until_end_of(reply).await;
            assert!(
                matches!(&end, ServerFrame::Message(message) if message.text == text),
                "{end:?}"
            );
            device.settle().await;
        }
        let shown = device.shown();
        assert_eq!(shown, "Sure.I am sorry.");
        assert!(matches!(
            handler(&node, session).await,
            SessionHandler::Waiting { reason: Some(reason), .. } if reason == "the assistant is not sure of its answer"
        ));
        let asked = &node.upstream.requests()[0].turns[0];
        assert!(asked.text.contains("[[score: N]]"), "{asked:?}");
    });
}
