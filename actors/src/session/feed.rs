//! The feed: frames on their way to a session's devices. Pure.
//!
//! Each entry has a number of its own, and each device a cursor into it, so nothing is queued per
//! device. Messages enter in the order of their seq, whatever order their commits are learned in. What
//! is too much to hold is held by storage alone, and read again for the devices that lack it.

use std::collections::{BTreeMap, VecDeque};

use hubbub_protocol::Seq;

use crate::capacity;
use crate::encoded::EncodedFrame;

/// One frame on its way.
#[derive(Clone, Debug)]
pub(crate) struct FeedEntry {
    /// `None`: a message that only storage still holds.
    pub(crate) frame: Option<EncodedFrame>,
    /// Set for durable messages.
    pub(crate) seq: Option<Seq>,
    /// For operators' devices alone.
    pub(crate) is_internal: bool,
}

/// A bounded ring of entries, numbered without gaps.
#[derive(Debug)]
pub(crate) struct Feed {
    entries: VecDeque<FeedEntry>,
    /// Bytes that the frames hold.
    bytes: usize,
    /// Entries at the front of which no frame can be let go any more.
    spilled: usize,
    first: u64,
    /// The newest seq up to which nothing is missing.
    head: Seq,
    /// Messages whose predecessors are not known yet.
    ahead: BTreeMap<Seq, EncodedFrame>,
}

impl Feed {
    pub(crate) fn new(head: Seq) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            spilled: 0,
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
    pub(crate) fn post(&mut self, seq: Seq, frame: EncodedFrame) {
        if seq <= self.head {
            return;
        }
        // What is dropped here is read again from storage once the gap is noticed.
        if seq == self.head.next() || self.ahead.len() < capacity::FEED_AHEAD {
            self.ahead.insert(seq, frame);
        }
        while let Some(frame) = self.ahead.remove(&self.head.next()) {
            self.head = self.head.next();
            self.push(frame, Some(self.head), false);
        }
    }

    /// Adds a frame that every device must see: the state of a reply.
    pub(crate) fn tell(&mut self, frame: EncodedFrame) {
        self.push(frame, None, false);
    }

    /// Adds a frame that every operator's device must see, and no other.
    pub(crate) fn tell_operators(&mut self, frame: EncodedFrame) {
        self.push(frame, None, true);
    }

    /// Adds a frame that matters only now; `false` if it was dropped because devices are behind.
    pub(crate) fn mention(&mut self, frame: EncodedFrame) -> bool {
        let has_room = self.entries.len() < capacity::FEED_MENTIONS;
        if has_room {
            self.tell(frame);
        }
        has_room
    }

    /// Entries from a cursor on.
    pub(crate) fn from(&self, cursor: u64) -> impl Iterator<Item = &FeedEntry> {
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

    fn push(&mut self, frame: EncodedFrame, seq: Option<Seq>, is_internal: bool) {
        // Before it, not after: the newest is always held, for the devices that keep up.
        while self.bytes > capacity::FEED_BYTES {
            if !self.spill() {
                self.drop_first();
            }
        }
        self.bytes += frame.held_bytes();
        let frame = Some(frame);
        self.entries.push_back(FeedEntry {
            frame,
            seq,
            is_internal,
        });
        while self.entries.len() > capacity::FEED_ENTRIES {
            self.drop_first();
        }
    }

    /// Lets the oldest message's frame go that is held; `false` if none is.
    fn spill(&mut self) -> bool {
        while let Some(entry) = self.entries.get_mut(self.spilled) {
            self.spilled += 1;
            if let Some(frame) = entry.frame.take_if(|_| entry.seq.is_some()) {
                self.bytes -= frame.held_bytes();
                return true;
            }
        }
        false
    }

    fn drop_first(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else {
            return false;
        };
        self.bytes -= entry.frame.map_or(0, |frame| frame.held_bytes());
        self.spilled = self.spilled.saturating_sub(1);
        self.first += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use hubbub_protocol::ServerFrame;
    use hubbub_protocol::server::Bye;
    use proptest::prelude::*;

    use super::*;

    fn frame(length: usize) -> EncodedFrame {
        EncodedFrame::new(ServerFrame::Bye(Bye {
            reason: "x".repeat(length),
            reconnect_after_ms: 0,
        }))
    }

    proptest! {
        /// In whatever order and however often commits are learned, messages come out once, in order.
        #[test]
        fn messages_come_out_once_and_in_order(order in Just((1..=60u64).collect::<Vec<_>>())
            .prop_shuffle(), repeats in prop::collection::vec(1..=60u64, 0..60))
        {
            let mut feed = Feed::new(Seq::ZERO);
            for seq in order.into_iter().chain(repeats) {
                feed.post(Seq(seq), frame(1));
            }
            let seqs: Vec<u64> = feed.from(0).filter_map(|e| e.seq).map(|s| s.0).collect();
            prop_assert_eq!(seqs, (1..=60).collect::<Vec<_>>());
            prop_assert!(!feed.has_gap());
        }
    }

    #[test]
    fn the_feed_is_bounded_in_entries_and_bytes() {
        let mut feed = Feed::new(Seq::ZERO);
        for seq in 1..=5_000 {
            feed.post(Seq(seq), frame(1));
        }
        assert_eq!(feed.end() - feed.first(), capacity::FEED_ENTRIES as u64);
        assert_eq!(feed.head(), Seq(5_000));
        feed.tell(frame(capacity::FEED_BYTES));
        feed.tell(frame(1));
        assert_eq!(
            feed.end() - feed.first(),
            1,
            "what is stored nowhere is dropped"
        );
    }

    proptest! {
        /// However large messages and replies' states are: the bytes held are counted right and bounded,
        /// messages keep their place, states are never let go before the messages around them.
        #[test]
        fn too_many_bytes_let_the_oldest_messages_go(
            frames in prop::collection::vec((any::<bool>(), 1usize..capacity::FEED_BYTES / 6), 1..60),
            trims in prop::collection::vec(0u64..60, 1..5),
        ) {
            let mut feed = Feed::new(Seq::ZERO);
            let mut trims = trims.into_iter().cycle();
            for (is_message, length) in frames {
                let frame = frame(length);
                let held = frame.held_bytes();
                if is_message {
                    feed.post(feed.head().next(), frame);
                } else {
                    feed.tell(frame);
                }
                if length % 7 == 0 {
                    let to = trims.next().unwrap().min(feed.end() - 1);
                    feed.trim(to);
                }
                let entries: Vec<&FeedEntry> = feed.from(feed.first()).collect();
                let bytes: usize = entries.iter().filter_map(|e| e.frame.as_ref()).map(EncodedFrame::held_bytes).sum();
                prop_assert_eq!(bytes, feed.bytes);
                prop_assert!(bytes <= capacity::FEED_BYTES + held);
                prop_assert!(entries.iter().all(|e| e.frame.is_some() || e.seq.is_some()));
                prop_assert!(entries.last().is_none_or(|newest| newest.frame.is_some()));
                let seqs: Vec<u64> = entries.iter().filter_map(|e| e.seq).map(|s| s.0).collect();
                prop_assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1));
            }
        }
    }

    #[test]
    fn what_matters_only_now_is_dropped_when_devices_are_behind() {
        let mut feed = Feed::new(Seq::ZERO);
        assert!(feed.mention(frame(1)));
        for _ in 0..capacity::FEED_MENTIONS {
            feed.tell(frame(1));
        }
        assert!(!feed.mention(frame(1)));
    }
}
