//! What a device makes of its frames, checked at every step against the promises of the protocol:
//! messages come once and in order, deltas join without gap or overlap, a reply ends once.

use std::collections::{HashMap, HashSet};

use hubbub_protocol::server::Joined;
use hubbub_protocol::{ReplyId, ReplyState, Role, Seq, ServerFrame, SessionHandler};

/// A device's picture of its session.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Texts by seq, as held by the device: those it had before it joined are not among them.
    pub(super) messages: Vec<(Seq, String)>,
    /// The newest seq it holds.
    pub(super) head: Seq,
    /// Ends, in the order they were seen.
    pub(super) ends: Vec<(ReplyId, End)>,
    texts: HashMap<ReplyId, String>,
    ended: HashSet<ReplyId>,
    /// Who answers, as the device was told last.
    pub(super) handler: SessionHandler,
    /// Replies that were begun before somebody else came to answer.
    silenced: HashSet<ReplyId>,
    told_by_page: HashSet<ReplyId>,
}

/// How a reply ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed(String),
    Failed(hubbub_protocol::ErrorCode),
    Cancelled,
}

impl View {
    /// A view of frames from `joined` on. `after` is what the device held when it asked.
    pub(super) fn of(frames: &[ServerFrame], after: Seq) -> Self {
        let mut view = Self {
            head: after,
            ..Self::default()
        };
        for frame in frames {
            view.see(frame);
        }
        view
    }

    pub(super) fn seqs(&self) -> Vec<u64> {
        self.messages.iter().map(|(seq, _)| seq.0).collect()
    }

    fn see(&mut self, frame: &ServerFrame) {
        match frame {
            ServerFrame::Joined(joined) => self.join(joined),
            ServerFrame::Message(message) => {
                assert_eq!(message.seq, self.head.next(), "a gap or a repeat");
                self.head = message.seq;
                self.messages.push((message.seq, message.text.clone()));
                if let Some(reply) = message.reply {
                    assert_eq!(message.role, Role::Assistant);
                    self.assert_may_speak(reply);
                    if let Some(text) = self.texts.get(&reply) {
                        assert!(
                            message.text.starts_with(text),
                            "the text is not what streamed"
                        );
                    }
                    self.end(reply, End::Completed(message.text.clone()));
                }
            }
            ServerFrame::Delta(delta) => {
                assert!(!self.ended.contains(&delta.reply), "text after the end");
                self.assert_may_speak(delta.reply);
                let text = self.texts.entry(delta.reply).or_default();
                let held = text.encode_utf16().count() as u64;
                assert_eq!(delta.offset, held, "deltas do not join after {text:?}");
                assert!(!delta.text.is_empty());
                text.push_str(&delta.text);
            }
            ServerFrame::Handler(frame) => {
                self.silenced.extend(self.texts.keys().copied());
                self.handler = frame.handler.clone();
            }
            ServerFrame::Reply(reply) => match &reply.state {
                ReplyState::Failed { error } => self.end(reply.reply, End::Failed(error.code)),
                ReplyState::Cancelled => self.end(reply.reply, End::Cancelled),
                ReplyState::Queued { .. } | ReplyState::Started { .. } => {
                    assert!(!self.ended.contains(&reply.reply), "begun after its end");
                    self.assert_may_speak(reply.reply);
                    self.texts.entry(reply.reply).or_default();
                }
            },
            _ => {}
        }
    }

    /// Nothing of the bot's is shown that was begun before somebody else came to answer.
    fn assert_may_speak(&self, reply: ReplyId) {
        assert_eq!(
            self.handler,
            SessionHandler::Bot,
            "the bot talks over a person"
        );
        assert!(
            !self.silenced.contains(&reply),
            "text from before a takeover"
        );
    }

    fn join(&mut self, joined: &Joined) {
        self.handler = joined.handler.clone();
        if let (false, Some(first)) = (joined.more, joined.messages.first()) {
            assert_eq!(first.seq, self.head.next(), "a gap or a repeat in the page");
        }
        for pair in joined.messages.windows(2) {
            assert_eq!(pair[1].seq, pair[0].seq.next(), "the page has a hole");
        }
        for message in &joined.messages {
            self.messages.push((message.seq, message.text.clone()));
            if let Some(reply) = message.reply {
                self.end(reply, End::Completed(message.text.clone()));
            }
        }
        for ended in &joined.ended {
            let end = match &ended.state {
                ReplyState::Failed { error } => End::Failed(error.code),
                ReplyState::Cancelled => End::Cancelled,
                other => panic!("{other:?} is no end"),
            };
            self.end(ended.reply, end);
            self.told_by_page.insert(ended.reply);
        }
        if let Some(running) = &joined.replying {
            self.texts.insert(running.reply, running.text.clone());
        }
        self.head = joined.head;
    }

    fn end(&mut self, reply: ReplyId, end: End) {
        // A page may tell an end that was committed just then; the same end follows as a frame.
        if self.told_by_page.remove(&reply) {
            assert!(self.ends.contains(&(reply, end)), "another end");
            return;
        }
        assert!(self.ended.insert(reply), "a second end: {end:?}");
        self.ends.push((reply, end));
    }
}
