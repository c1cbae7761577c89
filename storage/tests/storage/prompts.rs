//! What a prompt is built from.

use hubbub_actors::ports::{
    Append, FinishedReply, MessageStore as _, NewMessage, PageSize, ReplyEnd, ReplyFailure, Said,
};
use hubbub_protocol::{ErrorCode, FailureReason, NodeId, Role, Seq};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::fixture::{Fixture, append_one, end, message, page, question};

fn failed(reason: Option<FailureReason>) -> ReplyEnd {
    ReplyEnd::Failed(ReplyFailure {
        retry_after_ms: None,
        code: ErrorCode::Unavailable,
        message: String::from("no"),
        reason,
    })
}

fn texts(said: &[Said]) -> Vec<&str> {
    said.iter().map(|said| said.text.as_str()).collect()
}

// M12, M13
#[tokio::test]
async fn answers_follow_their_questions_however_their_commits_interleave() {
    let f = Fixture::new().await;
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let session = f.session().await;
        let node = NodeId::generate();
        let (mut open, mut expected) = (Vec::<NewMessage>::new(), Vec::new());
        let mut asked = 0;
        while asked < 6 || !open.is_empty() {
            if asked < 6 && (open.is_empty() || rng.random_bool(0.6)) {
                let text = format!("question {asked}");
                let new = NewMessage {
                    text: text.clone(),
                    ..question(f.tenant, session, node)
                };
                append_one(&f.store, Append::Message(new.clone()))
                    .await
                    .unwrap();
                open.push(new);
                expected.push(text);
                asked += 1;
                continue;
            }
            // Replies end in the order of their questions.
            let question = open.remove(0);
            let ends = [
                ReplyEnd::Completed { cut: None },
                ReplyEnd::Cancelled,
                failed(Some(FailureReason::Cut)),
            ];
            let how = ends.choose(&mut rng).unwrap().clone();
            let text = question.text.replace("question", "answer");
            let place = expected.iter().position(|said| *said == question.text);
            expected.insert(place.unwrap() + 1, text.clone());
            let finished = FinishedReply {
                text,
                ..end(&question, how)
            };
            append_one(&f.store, Append::Reply(finished)).await.unwrap();
        }
        let last = NewMessage {
            text: String::from("the last"),
            ..question(f.tenant, session, node)
        };
        append_one(&f.store, Append::Message(last)).await.unwrap();
        expected.push(String::from("the last"));
        let log = f
            .store
            .list_before(f.tenant, session, None, page(1))
            .await
            .unwrap();
        let to = log.messages[0].seq;
        let said = f
            .store
            .list_prompt(f.tenant, session, to, page(100))
            .await
            .unwrap()
            .said;
        assert_eq!(texts(&said), expected, "seed {seed}");
        for said in &said {
            let is_answer = said.text.starts_with("answer");
            assert_eq!(said.answers, is_answer);
            assert_eq!(said.role == Role::Assistant, is_answer);
        }
    }
}

// M13
#[tokio::test]
async fn a_prompt_has_the_answers_that_were_stored_after_its_question_and_no_later_ones() {
    let f = Fixture::new().await;
    let session = f.session().await;
    let asked: Vec<_> = (0..3)
        .map(|_| question(f.tenant, session, NodeId::generate()))
        .collect();
    let all = asked.iter().cloned().map(Append::Message).collect();
    f.store.append(all).await.unwrap();
    for (n, asked) in asked.iter().enumerate() {
        let text = format!("answer {}", n + 1);
        let how = ReplyEnd::Completed { cut: None };
        let done = FinishedReply {
            text,
            ..end(asked, how)
        };
        append_one(&f.store, Append::Reply(done)).await.unwrap();
    }
    let list = async |to, size| {
        let said = f.store.list_prompt(f.tenant, session, Seq(to), size);
        said.await.unwrap().said
    };
    let said = list(2, page(100)).await;
    assert_eq!(texts(&said), ["Why?", "answer 1", "Why?"]);
    let places: Vec<_> = said.iter().map(|said| said.at.0).collect();
    assert_eq!(places, [1, 1, 2]);
    assert_eq!(texts(&list(1, page(100)).await), ["Why?"]);
    // The newest fit, whole, and one whatever its size.
    assert_eq!(texts(&list(3, page(3)).await), ["Why?", "answer 2", "Why?"]);
    let small = PageSize {
        messages: 100,
        bytes: 5,
    };
    assert_eq!(texts(&list(3, small).await), ["answer 2", "Why?"]);
}

// M12
#[tokio::test]
async fn what_a_filter_refused_is_marked_and_a_reply_without_text_says_nothing() {
    let f = Fixture::new().await;
    let session = f.session().await;
    for reason in [Some(FailureReason::Filtered), None] {
        let asked = question(f.tenant, session, NodeId::generate());
        let done = FinishedReply {
            text: String::new(),
            ..end(&asked, failed(reason))
        };
        append_one(&f.store, Append::Message(asked)).await.unwrap();
        append_one(&f.store, Append::Reply(done)).await.unwrap();
    }
    let note = NewMessage {
        role: Role::Operator,
        ..message(f.tenant, session, "I am Ada.")
    };
    append_one(&f.store, Append::Message(note)).await.unwrap();
    let said = f
        .store
        .list_prompt(f.tenant, session, Seq(3), page(100))
        .await
        .unwrap()
        .said;
    let filtered: Vec<_> = said.iter().map(|said| said.filtered).collect();
    assert_eq!(texts(&said), ["Why?", "", "Why?", "", "I am Ada."]);
    assert_eq!(filtered, [false, true, false, false, false]);
}
