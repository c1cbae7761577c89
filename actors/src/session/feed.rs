//! The feed: frames on their way to a session's devices. Pure.
//!
//! Each entry has a number of its own, and each device a cursor into it, so nothing is queued per
//! device. Messages enter in the order of their seq, whatever order their commits are learned in.

use std::collections::{BTreeMap, VecDeque};

use bytestring::ByteString;
use hubbub_protocol::Seq;

use crate::capacity;

/// One frame on its way.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) frame: ByteString,
    /// Set for durable messages.
    pub(crate) seq: Option<Seq>,
}

/// A bounded ring of entries, numbered without gaps.
#[derive(Debug)]
pub(crate) struct Feed {
    entries: VecDeque<Entry>,
    bytes: usize,
    first: u64,
    /// The newest seq up to which nothing is missing.
    head: Seq,
    /// Messages whose predecessors are not known yet.
    ahead: BTreeMap<Seq, ByteString>,
}

impl Feed {
    pub(crate) fn new(head: Seq) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            first: 0,
            head,
            ahead: BTreeMap::new(),
        }
    }

    pub(crate) fn head(&self) -> Seq {
        self.head
    }

    /// Number of the oldest entry still held.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Number the next entry will get.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Whether a message is held back because an earlier one is missing.
    pub(crate) fn has_gap(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Adds a committed message. A repeat is ignored; one that is ahead waits for its predecessors.
    pub(crate) fn post(&mut self, seq: Seq, frame: ByteString) {
        if seq <= self.head {
            return;
        }
        // What is dropped here is read again from storage once the gap is noticed.
        if seq == self.head.next() || self.ahead.len() < capacity::FEED_FRAMES {
            self.ahead.insert(seq, frame);
        }
        while let Some(frame) = self.ahead.remove(&self.head.next()) {
            self.head = self.head.next();
            self.push(Entry {
                frame,
                seq: Some(self.head),
            });
        }
    }

    /// Adds a frame that every device must see: the state of a reply.
    pub(crate) fn tell(&mut self, frame: ByteString) {
        self.push(Entry { frame, seq: None });
    }

    /// Adds a frame that matters only now; `false` if it was dropped because devices are behind.
    pub(crate) fn mention(&mut self, frame: ByteString) -> bool {
        let has_room = self.entries.len() < capacity::FEED_FRAMES / 4;
        if has_room {
            self.tell(frame);
        }
        has_room
    }

    /// Entries from a cursor on.
    pub(crate) fn from(&self, cursor: u64) -> impl Iterator<Item = &Entry> {
        let skip = usize::try_from(cursor.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip)
    }

    /// Forgets what every device has.
    pub(crate) fn trim(&mut self, slowest: u64) {
        while self.first < slowest && self.drop_first() {}
        if self.entries.is_empty() && self.entries.capacity() > 16 {
            self.entries = VecDeque::new();
        }
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.frame.len();
        self.entries.push_back(entry);
        while self.entries.len() > 1
            && (self.entries.len() > capacity::FEED_FRAMES || self.bytes > capacity::FEED_BYTES)
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else {
            return false;
        };
        self.bytes -= entry.frame.len();
        self.first += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In whatever order and however often commits are learned, messages come out once, in order.
        #[test]
        fn messages_come_out_once_and_in_order(order in Just((1..=60u64).collect::<Vec<_>>())
            .prop_shuffle(), repeats in prop::collection::vec(1..=60u64, 0..60))
        {
            let mut feed = Feed::new(Seq::ZERO);
            for seq in order.into_iter().chain(repeats) {
                feed.post(Seq(seq), ByteString::from_static("m"));
            }
            let seqs: Vec<u64> = feed.from(0).filter_map(|e| e.seq).map(|s| s.0).collect();
            prop_assert_eq!(seqs, (1..=60).collect::<Vec<_>>());
            prop_assert!(!feed.has_gap());
        }
    }

    #[test]
    fn the_feed_is_bounded_in_frames_and_bytes() {
        let mut feed = Feed::new(Seq::ZERO);
        for seq in 1..=5_000 {
            feed.post(Seq(seq), ByteString::from_static("m"));
        }
        assert_eq!(feed.end() - feed.first(), capacity::FEED_FRAMES as u64);
        assert_eq!(feed.head(), Seq(5_000));
        feed.tell(ByteString::from("x".repeat(capacity::FEED_BYTES + 1)));
        assert_eq!(feed.end() - feed.first(), 1);
    }

    #[test]
    fn what_matters_only_now_is_dropped_when_devices_are_behind() {
        let mut feed = Feed::new(Seq::ZERO);
        assert!(feed.mention(ByteString::from_static("typing")));
        for _ in 0..capacity::FEED_FRAMES {
            feed.tell(ByteString::from_static("reply"));
        }
        assert!(!feed.mention(ByteString::from_static("typing")));
    }
}
