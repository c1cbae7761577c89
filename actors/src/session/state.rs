//! The rules of a session, pure: what may happen, and what it changes. No clock, no I/O, no devices.

use std::collections::VecDeque;

use hubbub_protocol::{ErrorCode, ReplyId, ReplyState, Seq};
use tokio::time::Instant;

use crate::capacity;
use crate::device::TextPosition;
use crate::ports::Fence;
use crate::rejection::Rejection;

/// A message that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) reply: ReplyId,
    pub(crate) to: Seq,
    pub(crate) asked_at: Instant,
    /// The session's fence when it was asked.
    pub(crate) fence: Fence,
}

/// The answer being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) question: Question,
    pub(crate) phase: ReplyState,
    pub(crate) text: String,
    pub(crate) length: TextPosition,
    /// Its end is being committed; nothing is added any more.
    pub(crate) ending: bool,
    pub(crate) first_text_at: Option<Instant>,
    /// Estimated tokens of the prompt it is being written from.
    pub(crate) prompt_tokens: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum SessionEvent {
    /// A message is on its way to storage.
    PostStarted,
    /// It was stored, with the question it asks, or it was not.
    PostFinished(Option<Question>),
    /// A question was found in storage that nobody answers.
    QuestionFound(Question),
    /// The first question in line is being answered.
    AnswerBegun,
    /// The answer waits, or the model has begun.
    AnswerProgressed(ReplyState),
    /// A model was asked, with a prompt of about so many tokens.
    ModelAsked(u64),
    /// The model wrote something.
    TextWritten(String, Instant),
    /// The end is being committed.
    AnswerEnding,
    /// The end is committed.
    AnswerEnded,
}

/// A session as its rules see it.
#[derive(Debug)]
pub(crate) struct SessionState {
    fence: Fence,
    /// Posts on their way to storage, each of which may bring a question.
    posting: usize,
    questions: VecDeque<Question>,
    answer: Option<Answer>,
    max_questions: usize,
}

impl SessionState {
    pub(crate) fn new(fence: Fence, max_questions: usize) -> Self {
        Self {
            fence,
            posting: 0,
            questions: VecDeque::new(),
            answer: None,
            max_questions,
        }
    }

    pub(crate) fn fence(&self) -> Fence {
        self.fence
    }

    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    pub(crate) fn next_question(&self) -> Option<&Question> {
        self.questions.front().filter(|_| self.answer.is_none())
    }

    pub(crate) fn knows(&self, reply: ReplyId) -> bool {
        let mut asked = self.questions.iter();
        let is_answered = |answer: &Answer| answer.question.reply == reply;
        asked.any(|question| question.reply == reply)
            || self.answer.as_ref().is_some_and(is_answered)
    }

    /// Whether nothing is going on that must not be interrupted.
    pub(crate) fn is_idle(&self) -> bool {
        self.posting == 0 && self.questions.is_empty() && self.answer.is_none()
    }

    /// May a message be stored now?
    pub(crate) fn decide_post(&self, asks: bool) -> Result<(), Rejection> {
        let waiting = self.posting + self.questions.len() + usize::from(self.answer.is_some());
        if asks && waiting >= self.max_questions {
            return Err(Rejection::later(
                ErrorCode::RateLimited,
                "earlier messages are still being answered",
                2_000,
            ));
        }
        if self.posting >= capacity::SESSION_MAILBOX * 2 {
            return Err(Rejection::overloaded());
        }
        Ok(())
    }

    /// Is there an answer to stop?
    pub(crate) fn decide_stop(&self) -> Result<(), Rejection> {
        match &self.answer {
            Some(answer) if !answer.ending => Ok(()),
            _ => Err(Rejection::new(
                ErrorCode::Conflict,
                "nothing is being answered",
            )),
        }
    }

    /// May this text be shown? Not if it is of another answer, of an older fence, or too late.
    pub(crate) fn accepts_from(&self, reply: ReplyId, fence: Fence) -> bool {
        fence == self.fence
            && self
                .answer
                .as_ref()
                .is_some_and(|a| a.question.reply == reply && !a.ending)
    }

    pub(crate) fn apply(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::PostStarted => self.posting += 1,
            SessionEvent::PostFinished(question) => {
                self.posting = self.posting.saturating_sub(1);
                self.ask(question);
            }
            SessionEvent::QuestionFound(question) => self.ask(Some(question)),
            SessionEvent::AnswerBegun => {
                if self.answer.is_none() {
                    self.answer = self.questions.pop_front().map(Answer::new);
                }
            }
            SessionEvent::AnswerProgressed(phase) => {
                if let Some(answer) = &mut self.answer {
                    answer.phase = phase;
                }
            }
            SessionEvent::ModelAsked(prompt_tokens) => {
                if let Some(answer) = &mut self.answer {
                    answer.prompt_tokens = prompt_tokens;
                }
            }
            SessionEvent::TextWritten(text, now) => {
                if let Some(answer) = &mut self.answer {
                    answer.write(&text, now);
                }
            }
            SessionEvent::AnswerEnding => {
                if let Some(answer) = &mut self.answer {
                    answer.ending = true;
                }
            }
            SessionEvent::AnswerEnded => self.answer = None,
        }
    }

    /// Questions are answered in the order of their messages; commits may be learned in another, and
    /// one question twice (a repeated message).
    fn ask(&mut self, question: Option<Question>) {
        let Some(question) = question else { return };
        if !self.knows(question.reply) {
            let at = self.questions.partition_point(|q| q.to < question.to);
            self.questions.insert(at, question);
        }
    }
}

impl Answer {
    fn new(question: Question) -> Self {
        Self {
            question,
            phase: ReplyState::Queued {
                position: 1,
                eta_ms: 0,
                paused: false,
            },
            text: String::new(),
            length: TextPosition::default(),
            ending: false,
            first_text_at: None,
            prompt_tokens: 0,
        }
    }

    fn write(&mut self, text: &str, now: Instant) {
        // As it will be stored, which cannot hold a NUL: what is shown and what is kept are the same.
        let text = text.replace('\0', "\u{FFFD}");
        let room = capacity::REPLY_BYTES - self.text.len();
        let text = text
            .get(..text.floor_char_boundary(room))
            .unwrap_or_default();
        self.text.push_str(text);
        self.length.bytes = self.text.len();
        self.length.utf16 += text.encode_utf16().count() as u64;
        self.first_text_at.get_or_insert(now);
        if let ReplyState::Started { thinking, .. } = &mut self.phase {
            *thinking = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(to: u64) -> Question {
        Question {
            reply: ReplyId::generate(),
            to: Seq(to),
            asked_at: Instant::now(),
            fence: Fence::default(),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Post,
        Store(bool),
        Begin,
        Write(String),
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Post),
            any::<bool>().prop_map(Step::Store),
            Just(Step::Begin),
            ".{0,8}".prop_map(Step::Write),
            Just(Step::End),
        ]
    }

    proptest! {
        /// Every stored question is answered exactly once, in order, and never more than the bound wait.
        #[test]
        fn every_question_gets_exactly_one_answer_in_order(
            steps in prop::collection::vec(step(), 0..300)
        ) {
            let mut state = SessionState::new(Fence::default(), 4);
            let (mut posting, mut stored, mut answered) = (0, Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Post if state.decide_post(true).is_ok() => {
                        state.apply(SessionEvent::PostStarted);
                        posting += 1;
                    }
                    Step::Store(fails) if posting > 0 => {
                        posting -= 1;
                        let asked = (!fails).then(|| question(stored.len() as u64 + 1));
                        stored.extend(asked.clone().map(|q| q.reply));
                        state.apply(SessionEvent::PostFinished(asked));
                    }
                    Step::Begin if state.next_question().is_some() => {
                        state.apply(SessionEvent::AnswerBegun);
                    }
                    Step::Write(text) => {
                        let before = state.answer().map(|a| a.text.clone());
                        state.apply(SessionEvent::TextWritten(text.clone(), Instant::now()));
                        if let (Some(before), Some(answer)) = (before, state.answer()) {
                            let text = text.replace('\0', "\u{FFFD}");
                            prop_assert_eq!(&answer.text, &(before + &text));
                            prop_assert_eq!(answer.length.utf16,
                                answer.text.encode_utf16().count() as u64);
                        }
                    }
                    Step::End => {
                        answered.extend(state.answer().map(|a| a.question.reply));
                        state.apply(SessionEvent::AnswerEnded);
                    }
                    _ => {}
                }
                prop_assert!(state.questions.len() + state.posting <= 4);
            }
            while posting > 0 {
                posting -= 1;
                state.apply(SessionEvent::PostFinished(None));
            }
            loop {
                answered.extend(state.answer().map(|a| a.question.reply));
                state.apply(SessionEvent::AnswerEnded);
                if state.next_question().is_none() { break }
                state.apply(SessionEvent::AnswerBegun);
            }
            prop_assert_eq!(answered, stored);
            prop_assert!(state.is_idle());
        }
    }

    #[test]
    fn text_of_another_reply_or_fence_or_after_the_end_is_refused() {
        let mut state = SessionState::new(Fence(3), 4);
        let asked = Question {
            fence: Fence(3),
            ..question(1)
        };
        state.apply(SessionEvent::PostFinished(Some(asked.clone())));
        assert!(!state.accepts_from(asked.reply, Fence(3)), "not begun");
        state.apply(SessionEvent::AnswerBegun);
        assert!(state.accepts_from(asked.reply, Fence(3)));
        assert!(!state.accepts_from(asked.reply, Fence(2)), "stale fence");
        assert!(
            !state.accepts_from(ReplyId::generate(), Fence(3)),
            "another reply"
        );
        state.apply(SessionEvent::AnswerEnding);
        assert!(!state.accepts_from(asked.reply, Fence(3)), "after its end");
        assert!(state.decide_stop().is_err());
    }
}
