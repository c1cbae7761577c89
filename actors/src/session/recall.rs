//! What was said in a session, remembered so that a prompt need not be read from storage. Pure.
//!
//! It is of use only while it is the whole conversation: of a session that was opened here, is not long
//! yet, and nobody else writes to. Whatever casts doubt on that makes it forget, and prompts are read.

use hubbub_protocol::Seq;

use crate::capacity;
use crate::ports::{Said, StoredMessage};

/// Something that was said; an answer that became no message has no number.
#[derive(Debug)]
struct Remembered {
    seq: Option<Seq>,
    said: Said,
}

/// The memory; `None` once it is not the whole conversation any more.
#[derive(Debug)]
pub(super) struct Recall(Option<Vec<Remembered>>);

impl Recall {
    /// Of a session whose newest message is `head`.
    pub(super) fn new(head: Seq) -> Self {
        Self((head == Seq::ZERO).then(Vec::new))
    }

    /// A message was stored. An answer stands after the question it answers.
    pub(super) fn message(&mut self, message: &StoredMessage, answers: Option<Seq>) {
        let is_known = |known: &Remembered| known.seq == Some(message.seq);
        if self.0.iter().flatten().any(is_known) {
            return;
        }
        if message.reply.is_some() && answers.is_none() {
            return self.forget();
        }
        self.remember(Remembered {
            seq: Some(message.seq),
            said: Said {
                at: answers.unwrap_or(message.seq),
                role: message.role,
                answers: answers.is_some(),
                filtered: false,
                text: message.text.clone(),
            },
        });
    }

    /// An answer ended without a message. What was shown of it was said.
    pub(super) fn ended(&mut self, said: Said) {
        self.remember(Remembered { seq: None, said });
    }

    fn remember(&mut self, new: Remembered) {
        let Some(known) = &mut self.0 else {
            return;
        };
        known.push(new);
        let bytes: usize = known.iter().map(|known| known.said.text.len()).sum();
        if known.len() > capacity::RECALLED || bytes > capacity::RECALLED_BYTES {
            self.forget();
        }
    }

    /// Something may have been said that it does not know of.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// What was said up to a question, in any order; `None` if not all of it is known.
    pub(super) fn up_to(&self, to: Seq) -> Option<Vec<Said>> {
        let known = self.0.as_ref()?;
        let numbered = known.iter().filter(|known| known.seq <= Some(to));
        let numbered = numbered.filter(|known| known.seq.is_some()).count();
        let is_whole = u64::try_from(numbered).ok()? == to.0;
        is_whole.then(|| known.iter().map(|known| known.said.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use hubbub_protocol::{ClientMessageId, ReplyId, Role, SessionId, Timestamp};

    use super::*;

    fn message(seq: u64, text: &str) -> StoredMessage {
        StoredMessage {
            session: SessionId::generate(),
            seq: Seq(seq),
            id: ClientMessageId::generate(),
            role: Role::Visitor,
            author: String::from("Ada"),
            text: text.to_owned(),
            attachments: Vec::new(),
            metadata: None,
            at: Timestamp::now(),
            reply: None,
            model: None,
            usage: None,
            latency_ms: None,
            cut: None,
        }
    }

    fn answer(seq: u64, text: &str) -> StoredMessage {
        StoredMessage {
            role: Role::Assistant,
            reply: Some(ReplyId::generate()),
            ..message(seq, text)
        }
    }

    fn texts(recall: &Recall, to: u64) -> Option<Vec<String>> {
        let said = recall.up_to(Seq(to))?;
        Some(said.into_iter().map(|said| said.text).collect())
    }

    #[test]
    fn a_conversation_that_began_here_is_known_whatever_order_it_is_learned_in() {
        let mut recall = Recall::new(Seq::ZERO);
        recall.message(&message(2, "two"), None);
        assert_eq!(texts(&recall, 2), None, "the first is missing");
        recall.message(&message(1, "one"), None);
        recall.message(&answer(3, "answer"), Some(Seq(1)));
        recall.message(&message(2, "two"), None);
        let said = recall.up_to(Seq(3)).unwrap();
        assert_eq!(said.len(), 3, "a repeat is no news");
        assert_eq!((said[2].at, said[2].answers), (Seq(1), true));
    }

    #[test]
    fn what_was_begun_elsewhere_or_is_in_doubt_or_too_much_is_read() {
        assert_eq!(texts(&Recall::new(Seq(1)), 1), None);

        let mut recall = Recall::new(Seq::ZERO);
        recall.message(&answer(1, "to what?"), None);
        assert_eq!(texts(&recall, 1), None);

        let mut recall = Recall::new(Seq::ZERO);
        recall.message(&message(1, "one"), None);
        assert!(texts(&recall, 1).is_some());
        let long = "x".repeat(capacity::RECALLED_BYTES);
        recall.message(&message(2, &long), None);
        assert_eq!(texts(&recall, 1), None);
    }
}
