//! What a model reads of the conversation before it answers.

use std::time::Duration;

use hubbub_protocol::Seq;

use super::node::{Node, pass, run};
use crate::ports::{ChatTurn, TurnRole, UpstreamError};
use crate::testing::Step;

fn said(turns: &[ChatTurn]) -> Vec<&str> {
    let said = turns.iter().filter(|turn| turn.role != TurnRole::System);
    said.map(|turn| turn.text.as_str()).collect()
}

// M13
#[test]
fn a_question_asked_during_an_answer_is_answered_with_it_in_view() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        for n in 1..=3 {
            let answer = format!("answer {n}");
            node.upstream
                .then(Step::answer(&[&answer], Duration::from_secs(2)));
        }
        let mut device = node.join(session).await;
        for n in 1..=3 {
            let question = format!("question {n}");
            let posted = node.post(session, &question).await.unwrap();
            assert_eq!(posted.seq, Seq(n));
        }
        device.until_seq(Seq(6)).await;
        let requests = node.upstream.requests();
        assert_eq!(
            said(&requests[2].turns),
            [
                "question 1",
                "answer 1",
                "question 2",
                "answer 2",
                "question 3"
            ]
        );
        assert_eq!(
            said(&requests[1].turns),
            ["question 1", "answer 1", "question 2"]
        );
    });
}

// M12
#[test]
fn what_was_shown_of_an_answer_that_was_stopped_or_broke_off_is_part_of_the_conversation() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        node.upstream.then(vec![Step::text("I was"), Step::Hang]);
        let mut device = node.join(session).await;
        node.post(session, "one").await.unwrap();
        device.until_text().await;
        node.handle(session)
            .stop_reply(node.caller())
            .await
            .unwrap();
        pass(1).await;
        node.upstream
            .then(vec![Step::text("Then"), Step::Fail(UpstreamError::Cut)]);
        node.chat(session, "two").await;
        for _ in 0..4 {
            node.upstream.then(vec![Step::Fail(UpstreamError::Failed)]);
        }
        node.chat(session, "three").await;
        node.chat(session, "four").await;
        let requests = node.upstream.requests();
        let turns = &requests.last().unwrap().turns;
        assert_eq!(
            said(turns),
            ["one", "I was", "two", "Then", "three\n\nfour"]
        );
    });
}

#[test]
fn what_a_session_has_seen_from_its_beginning_is_not_read_again() {
    run(async || {
        let node = Node::start();
        let session = node.open().await;
        let mut device = node.join(session).await;
        let before = node.store.lists();
        for n in 0..3 {
            node.post(session, "again").await.unwrap();
            device.until_seq(Seq(2 * n + 2)).await;
        }
        assert_eq!(node.store.lists(), before);
        assert_eq!(
            node.upstream.requests()[2].turns.len(),
            6,
            "five and the bot's"
        );
    });
}
