use hubbub_protocol::{NodeId, SessionId, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::ports::Claim;

fn question(to: u64) -> Question {
    Question {
        reply: ReplyId::generate(),
        to: Seq(to),
        asked_at: Instant::now(),
        class: ReplyClass::Live,
        fence: Fence::default(),
        has_budget: None,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Post,
    Store(bool),
    Begin,
    Write(String),
    End,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Post),
        any::<bool>().prop_map(Step::Store),
        Just(Step::Begin),
        ".{0,8}".prop_map(Step::Write),
        Just(Step::End),
        Just(Step::Close),
    ]
}

fn written(turns: &Turns) -> Option<ReplyId> {
    turns.answer().map(|answer| answer.question.reply)
}

proptest! {
    /// Every stored question is answered exactly once, in order, and never more than the bound wait.
    #[test]
    fn every_question_gets_exactly_one_answer_in_order(
        steps in prop::collection::vec(step(), 0..300)
    ) {
        let mut turns = Turns::new(Fence::default(), true, 4);
        let (mut posting, mut stored, mut answered) = (0, Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Post if turns.decide_post(true).is_ok() => {
                    turns.post();
                    posting += 1;
                }
                Step::Store(fails) if posting > 0 => {
                    posting -= 1;
                    let asked = (!fails).then(|| question(stored.len() as u64 + 1));
                    stored.extend(asked.clone().map(|q| q.reply));
                    turns.posted(asked);
                }
                Step::Begin => {
                    let was = written(&turns);
                    let begun = turns.begin().map(|question| question.reply);
                    prop_assert!(was.is_none() || begun.is_none());
                    prop_assert_eq!(written(&turns), was.or(begun));
                }
                Step::Write(text) => {
                    let Some(reply) = written(&turns) else { continue };
                    let before = turns.answer().unwrap().text.clone();
                    let Some(answer) = turns.writing(reply, Fence::default()) else { continue };
                    answer.write(&text, Instant::now());
                    let text = text.replace('\0', "\u{FFFD}");
                    prop_assert_eq!(&answer.text, &(before + &text));
                    let utf16 = answer.text.encode_utf16().count() as u64;
                    prop_assert_eq!(answer.length.utf16, utf16);
                }
                Step::End => {
                    let ended = turns.end().map(|answer| answer.question.reply);
                    answered.extend(ended);
                }
                Step::Close => {
                    let ending = answered.last().copied();
                    if let Some(reply) = ending.filter(|reply| turns.knows(*reply)) {
                        prop_assert!(turns.close(reply).is_some());
                        prop_assert!(turns.close(reply).is_none(), "closed once");
                    }
                }
                _ => {}
            }
            prop_assert!(turns.questions.len() + turns.posting <= 4);
        }
        while posting > 0 {
            posting -= 1;
            turns.posted(None);
        }
        loop {
            answered.extend(turns.end().map(|answer| answer.question.reply));
            if let Some(reply) = written(&turns) {
                prop_assert!(turns.close(reply).is_some());
            }
            if turns.begin().is_none() { break }
        }
        prop_assert_eq!(answered, stored);
        prop_assert!(turns.is_idle());
    }
}

#[test]
fn text_of_another_reply_or_fence_or_after_the_end_is_refused() {
    let fence = Fence(3);
    let mut turns = Turns::new(fence, true, 4);
    let asked = Question {
        fence,
        ..question(1)
    };
    let reply = asked.reply;
    turns.ask(asked);
    assert!(turns.writing(reply, fence).is_none(), "not begun");
    turns.begin();
    assert!(turns.writing(reply, fence).is_some());
    assert!(turns.writing(reply, Fence(2)).is_none(), "stale fence");
    let other = ReplyId::generate();
    assert!(turns.writing(other, fence).is_none(), "another reply");
    assert!(turns.end().is_ok());
    assert!(turns.writing(reply, fence).is_none(), "after its end");
    assert!(turns.end().is_err());
    assert_eq!(turns.close(reply), Some(Seq(1)));
    assert_eq!(turns.close(reply), None);
}

#[test]
fn what_is_lost_is_over_and_keeps_the_session_until_its_end_is_stored() {
    let mut turns = Turns::new(Fence::default(), true, 4);
    let reply = ReplyId::generate();
    let lost = PendingReply {
        session: SessionId::generate(),
        reply,
        to: Seq(7),
        node: NodeId::generate(),
        fence: Fence::default(),
        claim: Claim::FIRST,
        asked_at: Timestamp::now(),
    };
    turns.lose(lost.clone());
    turns.lose(lost);
    assert!(turns.is_over(reply) && !turns.is_idle());
    assert_eq!(turns.close(reply), Some(Seq(7)));
    assert!(turns.is_idle());
    assert!(turns.note_told(reply));
    assert!(!turns.note_told(reply));
    assert!(turns.is_over(reply));
}
