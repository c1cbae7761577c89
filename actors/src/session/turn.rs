//! The rules of a session, pure: whose turn it is, what may happen, and what it changes. No clock, no I/O, no
//! devices.

use std::collections::VecDeque;

use hubbub_protocol::{ErrorCode, ReplyClass, ReplyId, ReplyState, Seq};
use tokio::time::Instant;

use crate::capacity;
use crate::device::TextPosition;
use crate::ports::{Fence, PendingReply};
use crate::rejection::Rejection;

/// Replies whose end is remembered, so that none is told or begun twice. Only those that ended while
/// storage was being read matter.
const ENDS_REMEMBERED: usize = 32;

/// A message that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) reply: ReplyId,
    pub(crate) to: Seq,
    pub(crate) asked_at: Instant,
    /// How soon it is wanted.
    pub(crate) class: ReplyClass,
    /// The session's fence when it was asked.
    pub(crate) fence: Fence,
    /// Whether its tenant had a budget when it was stored; `None` if nobody looked.
    pub(crate) has_budget: Option<bool>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) question: Question,
    pub(crate) phase: ReplyState,
    pub(crate) text: String,
    pub(crate) length: TextPosition,
    pub(crate) first_text_at: Option<Instant>,
}

/// One reply at a time has an owner.
#[derive(Debug)]
enum Turn {
    /// Nothing is answered.
    Idle,
    /// The answer is being written.
    Answering(Answer),
    /// Its end is being committed; nothing is added any more.
    Ending(Answer),
    /// So it is, and what was written is not shown any more: somebody else handles the session.
    Withdrawn(Answer),
}

/// A session as its rules see it.
#[derive(Debug)]
pub(crate) struct Turns {
    fence: Fence,
    /// Whether the bot handles the session: nothing is answered while it does not.
    is_bots: bool,
    /// Nothing is begun until it is known who handles the session.
    is_held: bool,
    /// Posts on their way to storage, each of which may bring a question.
    posting: usize,
    questions: VecDeque<Question>,
    turn: Turn,
    /// Replies that nobody writes any more, whose end is being committed.
    lost: Vec<PendingReply>,
    /// Replies that ended lately.
    ended: VecDeque<ReplyId>,
    max_questions: usize,
}

impl Turns {
    pub(crate) fn new(fence: Fence, is_bots: bool, max_questions: usize) -> Self {
        Self {
            fence,
            is_bots,
            is_held: false,
            posting: 0,
            questions: VecDeque::new(),
            turn: Turn::Idle,
            lost: Vec::new(),
            ended: VecDeque::new(),
            max_questions,
        }
    }

    pub(crate) fn fence(&self) -> Fence {
        self.fence
    }

    /// Whether the bot handles the session.
    pub(crate) fn is_bots(&self) -> bool {
        self.is_bots
    }

    /// The answer that devices see grow, or end.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match &self.turn {
            Turn::Answering(answer) | Turn::Ending(answer) => Some(answer),
            Turn::Idle | Turn::Withdrawn(_) => None,
        }
    }

    /// The reply whose turn it is.
    fn reply(&self) -> Option<ReplyId> {
        match &self.turn {
            Turn::Idle => None,
            Turn::Answering(answer) | Turn::Ending(answer) | Turn::Withdrawn(answer) => {
                Some(answer.question.reply)
            }
        }
    }

    /// Whether an end is on its way that may yet turn out to be a message.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.turn, Turn::Ending(_))
    }

    /// Nothing is begun for now.
    pub(crate) fn hold(&mut self) {
        self.is_held = true;
    }

    /// What waits has its turn again.
    pub(crate) fn resume(&mut self) {
        self.is_held = false;
    }

    /// Somebody else handles the session. What waits for an answer of the bot's gets none.
    pub(crate) fn hand_over(&mut self, fence: Fence, is_bots: bool) -> Vec<Question> {
        self.fence = fence;
        self.is_bots = is_bots;
        self.questions.drain(..).collect()
    }

    /// Takes what was written out of sight, once its end is being committed.
    pub(crate) fn withdraw(&mut self) {
        self.turn = match std::mem::replace(&mut self.turn, Turn::Idle) {
            Turn::Ending(answer) => Turn::Withdrawn(answer),
            other => other,
        };
    }

    /// Whether a reply is asked for, or being written.
    pub(crate) fn knows(&self, reply: ReplyId) -> bool {
        let mut asked = self.questions.iter();
        asked.any(|question| question.reply == reply) || self.reply() == Some(reply)
    }

    /// Whether a reply that is not being written has its end, or is getting it.
    pub(crate) fn is_over(&self, reply: ReplyId) -> bool {
        let mut lost = self.lost.iter();
        self.ended.contains(&reply) || lost.any(|pending| pending.reply == reply)
    }

    /// Whether nothing is going on that must not be interrupted.
    pub(crate) fn is_idle(&self) -> bool {
        let is_idle = matches!(self.turn, Turn::Idle) && self.lost.is_empty();
        is_idle && self.posting == 0 && self.questions.is_empty()
    }

    /// May a message be stored now?
    pub(crate) fn decide_post(&self, asks: bool) -> Result<(), Rejection> {
        let waiting = self.posting + self.questions.len() + usize::from(self.reply().is_some());
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

    /// A message is on its way to storage.
    pub(crate) fn post(&mut self) {
        self.posting += 1;
    }

    /// It was stored, with the question it asks, or it was not.
    pub(crate) fn posted(&mut self, question: Option<Question>) {
        self.posting = self.posting.saturating_sub(1);
        if let Some(question) = question {
            self.ask(question);
        }
    }

    /// A question waits. They are answered in the order of their messages; commits may be learned in another,
    /// and one question twice (a repeated message).
    pub(crate) fn ask(&mut self, question: Question) {
        if !self.knows(question.reply) {
            let at = self.questions.partition_point(|q| q.to < question.to);
            self.questions.insert(at, question);
        }
    }

    /// A question that waits has its turn before all others; `false` if it does not wait.
    pub(crate) fn put_first(&mut self, reply: ReplyId) -> bool {
        let at = self.questions.iter().position(|asked| asked.reply == reply);
        let first = at.and_then(|at| self.questions.remove(at));
        let waits = first.is_some();
        if let Some(question) = first {
            self.questions.push_front(question);
        }
        waits
    }

    /// The next question's turn begins, if there is one and nothing else is being answered.
    pub(crate) fn begin(&mut self) -> Option<Question> {
        if self.is_held || !self.is_bots || !matches!(self.turn, Turn::Idle) {
            return None;
        }
        let question = self.questions.pop_front()?;
        self.turn = Turn::Answering(Answer::new(question.clone()));
        Some(question)
    }

    /// The answer, for whoever writes it: none of another reply, of an older fence, or after its end.
    pub(crate) fn writing(&mut self, reply: ReplyId, fence: Fence) -> Option<&mut Answer> {
        let is_current = fence == self.fence;
        match &mut self.turn {
            Turn::Answering(answer) if is_current && answer.question.reply == reply => Some(answer),
            Turn::Idle | Turn::Answering(_) | Turn::Ending(_) | Turn::Withdrawn(_) => None,
        }
    }

    /// Ends what is being answered, for its end to be committed.
    ///
    /// # Errors
    /// `conflict`: nothing is.
    pub(crate) fn end(&mut self) -> Result<&Answer, Rejection> {
        if !matches!(self.turn, Turn::Answering(_)) {
            return Err(Rejection::new(
                ErrorCode::Conflict,
                "nothing is being answered",
            ));
        }
        self.turn = match std::mem::replace(&mut self.turn, Turn::Idle) {
            Turn::Answering(answer) => Turn::Ending(answer),
            other => other,
        };
        self.answer().ok_or(Rejection::internal())
    }

    /// A reply turned out to be written by nobody any more; its end is being committed.
    pub(crate) fn lose(&mut self, reply: PendingReply) {
        self.lost.retain(|known| known.reply != reply.reply);
        self.lost.push(reply);
    }

    /// The end of a reply is known to storage; the seq it answers, unless it is none of this session's doing.
    pub(crate) fn close(&mut self, reply: ReplyId) -> Option<Seq> {
        if let Turn::Ending(answer) | Turn::Withdrawn(answer) = &self.turn
            && answer.question.reply == reply
        {
            let to = answer.question.to;
            self.turn = Turn::Idle;
            return Some(to);
        }
        let at = self.lost.iter().position(|lost| lost.reply == reply)?;
        Some(self.lost.swap_remove(at).to)
    }

    /// Remembers that devices were told of a reply's end; `false` if they were before.
    pub(crate) fn note_told(&mut self, reply: ReplyId) -> bool {
        if self.ended.contains(&reply) {
            return false;
        }
        if self.ended.len() >= ENDS_REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(reply);
        true
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
            first_text_at: None,
        }
    }

    /// Adds what the model wrote.
    pub(crate) fn write(&mut self, text: &str, now: Instant) {
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
mod tests;
