//! Fan-out by cursors: each device is handed everything between its cursor and the end. A device that
//! does not take it keeps its cursor, and next time gets one larger delta instead of several. Messages
//! that the feed let go meanwhile are read from storage, a few at a time and only when it gets to them: it
//! causes no more reading than it does itself.

use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::server::Delta;
use hubbub_protocol::{CloseCode, ConnectionId, Seq, ServerFrame, limits};
use tokio::time::Instant;

use super::Session;
use super::live::{Flush, Live, Task};
use crate::capacity;
use crate::device::{Device, TextPosition, Undelivered};
use crate::encoded::EncodedFrame;
use crate::ports::{PageSize, StoredMessage};

/// Shortest pause between two attempts to hand something to a device that is behind.
const SHORTEST_FLUSH: Duration = Duration::from_millis(1);

/// What is read from storage at once for a device that is further behind than the feed holds.
const FETCH: PageSize = PageSize {
    messages: limits::JOIN_MESSAGES,
    bytes: capacity::FETCH_BYTES,
};

/// How long after a reading that failed the next one is tried.
const FETCH_RETRY: Duration = Duration::from_millis(500);

/// What became of a device in a flush.
enum Flushed {
    /// It has everything.
    Current,
    /// Its queue is full; try again later.
    Behind,
    /// What comes after this one is to be read from storage.
    Lacks(ConnectionId, Seq),
    /// It is to be cut.
    Cut,
    /// It is gone by itself.
    Gone,
}

impl Live {
    /// Devices are to get what is new.
    pub(super) fn owe(&mut self, flush: Flush) {
        self.flush = self.flush.max(Some(flush));
    }

    /// Tells every device a committed message.
    pub(super) fn tell_message(&mut self, message: StoredMessage) {
        let seq = message.seq;
        let frame = EncodedFrame::new(ServerFrame::Message(message));
        self.feed.post(seq, frame);
        self.owe(Flush::Now);
    }

    /// Tells every device something that it must see.
    pub(super) fn tell(&mut self, frame: ServerFrame) {
        self.feed.tell(EncodedFrame::new(frame));
        self.owe(Flush::Now);
    }

    /// Tells every operator's device something that no visitor may see.
    pub(super) fn tell_operators(&mut self, frame: ServerFrame) {
        self.feed.tell_operators(EncodedFrame::new(frame));
        self.owe(Flush::Now);
    }

    /// Tells devices something that matters only now, unless they are behind.
    pub(super) fn mention(&mut self, frame: ServerFrame, flush: Flush) {
        if self.feed.mention(EncodedFrame::new(frame)) {
            self.owe(flush);
        }
    }

    pub(super) fn flush_owed(&mut self, ctx: &mut Context<Session>) {
        match self.flush {
            None => {}
            Some(Flush::Soon) => self.flush_soon(ctx),
            Some(Flush::Now) => self.flush_now(ctx),
        }
    }

    fn flush_soon(&mut self, ctx: &mut Context<Session>) {
        self.flush = None;
        if self.devices.is_empty() || self.tasks.is_under_way(Task::Flush) {
            return;
        }
        // Never nothing: a device that is behind is tried again after this.
        let interval = self.node.config.flush_interval.max(SHORTEST_FLUSH);
        let since = self.last_flush.elapsed();
        if since >= interval {
            return self.flush_now(ctx);
        }
        self.once(
            Task::Flush,
            interval.saturating_sub(since),
            ctx,
            |live, _| {
                live.owe(Flush::Now);
            },
        );
    }

    /// Hands every device what it has not got yet, as far as it takes it.
    pub(super) fn flush_now(&mut self, ctx: &mut Context<Session>) {
        let stalled = self.node.config.stalled_device;
        self.flush = None;
        self.last_flush = Instant::now();
        let mut deltas = DeltaCache::default();
        let mut behind = false;
        let mut lacking = Vec::new();
        let mut lost = false;
        let mut at = 0;
        while at < self.devices.len() {
            match self.flush_device(at, stalled, &mut deltas) {
                Flushed::Current => at += 1,
                Flushed::Behind => {
                    behind = true;
                    at += 1;
                }
                Flushed::Lacks(device, after) => {
                    lacking.push((device, after));
                    at += 1;
                }
                Flushed::Cut => {
                    let device = self.devices.swap_remove(at);
                    metrics::counter!("hubbub_devices_cut_total").increment(1);
                    tracing::info!(device = %device.id, "a device did not read and is cut");
                    device.cut(CloseCode::Slow);
                    lost = true;
                }
                Flushed::Gone => {
                    self.devices.swap_remove(at).dismiss();
                    lost = true;
                }
            }
        }
        self.trim_feed();
        for (device, after) in lacking {
            self.fetch(device, after, ctx);
        }
        if behind {
            self.flush_soon(ctx);
        }
        if lost {
            self.tell_presence_later(ctx);
        }
    }

    /// Reads for a device what the feed does not hold any more.
    fn fetch(&mut self, device: ConnectionId, after: Seq, ctx: &mut Context<Session>) {
        let read = self.read_after(after, FETCH);
        Self::spawn(ctx, read, move |live, page, ctx| {
            let mut devices = live.devices.iter_mut();
            let Some(found) = devices.find(|found| found.id == device && found.fetching) else {
                return;
            };
            let messages = page.map(|page| page.messages).unwrap_or_default();
            if messages
                .first()
                .is_none_or(|first| first.seq != after.next())
            {
                // Storage is away, which is not the device's fault.
                Self::later(FETCH_RETRY, ctx, move |live, ctx| {
                    live.fetch(device, after, ctx);
                });
                return;
            }
            let frame = |message: StoredMessage| {
                let seq = message.seq;
                (seq, EncodedFrame::new(ServerFrame::Message(message)))
            };
            found.fetched = messages.into_iter().map(frame).collect();
            found.fetching = false;
            live.owe(Flush::Now);
        });
    }

    pub(super) fn trim_feed(&mut self) {
        let end = self.feed.end();
        let cursors = self.devices.iter().map(|device| device.cursor);
        self.feed.trim(cursors.min().unwrap_or(end));
    }

    fn flush_device(&mut self, at: usize, stalled: Duration, deltas: &mut DeltaCache) -> Flushed {
        loop {
            let Some(device) = self.devices.get(at) else {
                return Flushed::Current;
            };
            if device.joining || device.fetching {
                return Flushed::Current;
            }
            if device.cursor < self.feed.first() {
                return Flushed::Cut;
            }
            let (frames, reached) = self.frames_for(device, deltas);
            let Some(device) = self.devices.get_mut(at) else {
                return Flushed::Current;
            };
            if frames.is_empty() {
                device.cursor = reached.next;
                device.stalled_since = None;
                device.fetched = Vec::new();
                device.fetching = reached.lacks;
                return if reached.lacks {
                    Flushed::Lacks(device.id, reached.seen)
                } else {
                    Flushed::Current
                };
            }
            match device.try_deliver(frames, reached.seen) {
                Ok(()) => {
                    device.stalled_since = None;
                    (device.cursor, device.seen, device.reply) =
                        (reached.next, reached.seen, reached.reply);
                }
                Err(Undelivered::Full) => {
                    let since = *device.stalled_since.get_or_insert_with(Instant::now);
                    return if since.elapsed() >= stalled {
                        Flushed::Cut
                    } else {
                        Flushed::Behind
                    };
                }
                Err(Undelivered::Gone) => return Flushed::Gone,
            }
        }
    }

    /// The next delivery for a device, and where its cursor is after it.
    fn frames_for(&self, device: &Device, deltas: &mut DeltaCache) -> (Vec<EncodedFrame>, Cursor) {
        let mut reached = Cursor {
            next: device.cursor,
            seen: device.seen,
            reply: device.reply,
            lacks: false,
        };
        let mut frames = Vec::new();
        let mut bytes = 0;
        for entry in self.feed.from(device.cursor) {
            // Sent before, as part of its page; or none of its business.
            let is_known = entry.seq.is_some_and(|seq| seq <= reached.seen);
            if is_known || (entry.is_internal && !device.is_operators()) {
                reached.next += 1;
                continue;
            }
            let fetched = || device.fetched(entry.seq?);
            let Some(frame) = entry.frame.as_ref().or_else(fetched) else {
                reached.lacks = true;
                return (frames, reached);
            };
            if !frames.is_empty() && bytes + frame.json_bytes() > capacity::DELIVERY_BYTES {
                return (frames, reached);
            }
            reached.next += 1;
            reached.seen = entry.seq.unwrap_or(reached.seen);
            bytes += frame.json_bytes();
            frames.push(frame.clone());
        }
        if let Some((frame, position)) = deltas.from(self, device.reply) {
            reached.reply = position;
            frames.push(frame);
        }
        (frames, reached)
    }
}

struct Cursor {
    next: u64,
    seen: Seq,
    reply: TextPosition,
    /// What follows is not in the feed any more.
    lacks: bool,
}

/// The last delta encoded in a flush: devices that keep up all need the same one.
#[derive(Default)]
struct DeltaCache(Option<(TextPosition, EncodedFrame, TextPosition)>);

impl DeltaCache {
    /// The piece of the running reply after a position, if there is any, and the position after it.
    fn from(&mut self, live: &Live, from: TextPosition) -> Option<(EncodedFrame, TextPosition)> {
        let answer = live.turns.answer()?;
        if from.bytes >= answer.text.len() {
            return None;
        }
        if let Some((cached, frame, reached)) = &self.0
            && *cached == from
        {
            return Some((frame.clone(), *reached));
        }
        let rest = answer.text.get(from.bytes..)?;
        let text = rest.get(..rest.floor_char_boundary(capacity::DELIVERY_BYTES))?;
        let reached = TextPosition {
            bytes: from.bytes + text.len(),
            utf16: from.utf16 + text.encode_utf16().count() as u64,
        };
        let frame = EncodedFrame::new(ServerFrame::Delta(Delta {
            session: live.record.session,
            reply: answer.question.reply,
            offset: from.utf16,
            text: text.to_owned(),
        }));
        self.0 = Some((from, frame.clone(), reached));
        Some((frame, reached))
    }
}
