//! What one device holds of one session, and the rules of what may come next.

use std::collections::HashSet;

use hubbub_protocol::{ClientMessageId, ReplyId};

use super::report::Violations;

/// A durable message as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub seq: u64,
    /// Its id.
    pub id: Option<ClientMessageId>,
    /// Its text.
    pub text: String,
}

/// A device's copy of a session.
#[derive(Debug, Default)]
pub struct Transcript {
    /// Durable messages, in order.
    pub held: Vec<Held>,
    /// What was promised and not kept.
    pub violations: Violations,
    head: u64,
    running: Option<Running>,
    ended: HashSet<ReplyId>,
}

#[derive(Debug)]
struct Running {
    reply: ReplyId,
    units: u64,
    text: String,
}

/// What a frame meant for the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All text had come as deltas.
    Whole,
    /// The message brought text that no delta had brought.
    WithTail,
}

impl Transcript {
    /// A copy that starts behind message number `head`.
    pub fn after(head: u64) -> Self {
        Self {
            head,
            ..Self::default()
        }
    }

    /// The newest number held.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Takes a piece of the running reply; `true` when it is the reply's first.
    pub fn delta(&mut self, reply: ReplyId, offset: u64, piece: &str) -> bool {
        if self.ended.contains(&reply) {
            self.violations
                .add(format!("a delta of reply {reply} after its end"));
            return false;
        }
        let first = self
            .running
            .as_ref()
            .is_none_or(|running| running.reply != reply);
        if first {
            if let Some(other) = &self.running {
                self.violations
                    .add(format!("reply {reply} began inside {}", other.reply));
            }
            self.running = Some(Running {
                reply,
                units: 0,
                text: String::new(),
            });
        }
        if let Some(running) = &mut self.running {
            let expected = running.units;
            self.violations.check(offset == expected, || {
                format!("a delta at {offset}, not at {expected}, of reply {reply}")
            });
            running.units += piece.encode_utf16().count() as u64;
            running.text.push_str(piece);
        }
        first
    }

    /// Takes a durable message; tells how a reply ended with it, if one did.
    pub fn message(
        &mut self,
        seq: u64,
        id: Option<ClientMessageId>,
        reply: Option<ReplyId>,
        text: String,
    ) -> Option<Ended> {
        let expected = self.head + 1;
        self.violations
            .check(seq == expected, || format!("message {seq}, not {expected}"));
        self.head = seq;
        let ended = reply.map(|reply| {
            let streamed = self.end(reply).unwrap_or_default();
            self.violations.check(text.starts_with(&streamed), || {
                format!("the text of message {seq} is not what its deltas said")
            });
            if streamed.len() == text.len() {
                Ended::Whole
            } else {
                Ended::WithTail
            }
        });
        self.held.push(Held { seq, id, text });
        ended
    }

    /// Ends a reply, once; answers what its deltas said.
    pub fn end(&mut self, reply: ReplyId) -> Option<String> {
        let fresh = self.ended.insert(reply);
        self.violations
            .check(fresh, || format!("reply {reply} ended twice"));
        let running = self.running.take_if(|running| running.reply == reply)?;
        Some(running.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_are_joined_by_utf16_offsets() {
        let (mut transcript, reply) = (Transcript::default(), ReplyId::generate());
        assert_eq!(transcript.message(1, None, None, "hi".into()), None);
        assert!(transcript.delta(reply, 0, "é😀"));
        assert!(!transcript.delta(reply, 3, "x"));
        assert_eq!(
            transcript.message(2, None, Some(reply), "é😀x".into()),
            Some(Ended::Whole)
        );
        assert_eq!(transcript.violations, Violations::default());
        assert_eq!(transcript.head(), 2);
    }

    #[test]
    fn a_gap_an_overlap_and_another_text_are_violations() {
        let reply = ReplyId::generate();
        let mut gap = Transcript::default();
        gap.delta(reply, 0, "😀");
        gap.delta(reply, 1, "x");
        assert_eq!(gap.violations.count, 1);
        let mut other = Transcript::default();
        other.delta(reply, 0, "abc");
        other.message(1, None, Some(reply), "abd".into());
        assert_eq!(other.violations.count, 1);
        let mut hole = Transcript::after(3);
        hole.message(5, None, None, "x".into());
        hole.message(5, None, None, "x".into());
        assert_eq!(hole.violations.count, 2);
    }

    #[test]
    fn a_reply_ends_once_and_says_nothing_after() {
        let (mut transcript, reply) = (Transcript::default(), ReplyId::generate());
        transcript.delta(reply, 0, "a");
        assert_eq!(
            transcript.message(1, None, Some(reply), "ab".into()),
            Some(Ended::WithTail)
        );
        assert_eq!(transcript.violations.count, 0);
        transcript.delta(reply, 1, "b");
        transcript.end(reply);
        assert_eq!(transcript.violations.count, 2);
    }
}
