//! Fan-out by cursors: each device is handed everything between its cursor and the end. A device that
//! does not take it keeps its cursor, and next time gets one larger delta instead of several.

use std::time::Duration;

use actix::prelude::*;
use bytestring::ByteString;
use hubbub_protocol::server::Delta;
use hubbub_protocol::{CloseCode, Seq, ServerFrame};
use tokio::time::Instant;

use super::{Live, Session, encode};
use crate::capacity;
use crate::device::{Device, TextPosition, Undelivered};

/// Shortest pause between two attempts to hand something to a device that is behind.
const SHORTEST_FLUSH: Duration = Duration::from_millis(1);

/// What became of a device in a flush.
enum Flushed {
    /// It has everything.
    Current,
    /// Its queue is full; try again later.
    Behind,
    /// It is to be cut.
    Cut,
    /// It is gone by itself.
    Gone,
}

impl Session {
    /// Flushes at most once per flush interval while text streams.
    pub(super) fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        // Never nothing: a device that is behind is tried again after this.
        let interval = self.ports.config.flush_interval.max(SHORTEST_FLUSH);
        let Ok(live) = self.live() else { return };
        if live.flush_scheduled || live.devices.is_empty() {
            return;
        }
        let since = live.last_flush.elapsed();
        if since >= interval {
            self.flush_now(ctx);
            return;
        }
        live.flush_scheduled = true;
        ctx.run_later(interval.saturating_sub(since), |session, ctx| {
            if let Ok(live) = session.live() {
                live.flush_scheduled = false;
            }
            session.flush_now(ctx);
        });
    }

    /// Hands every device what it has not got yet, as far as it takes it.
    pub(super) fn flush_now(&mut self, ctx: &mut Context<Self>) {
        let stalled = self.ports.config.stalled_device;
        let Ok(live) = self.live() else { return };
        live.last_flush = Instant::now();
        let mut deltas = DeltaCache::default();
        let mut behind = false;
        let mut lost = false;
        let mut at = 0;
        while at < live.devices.len() {
            match live.flush_device(at, stalled, &mut deltas) {
                Flushed::Current => at += 1,
                Flushed::Behind => {
                    behind = true;
                    at += 1;
                }
                Flushed::Cut => {
                    let device = live.devices.swap_remove(at);
                    metrics::counter!("hubbub_devices_cut_total").increment(1);
                    tracing::info!(device = %device.id, "a device did not read and is cut");
                    device.cut(CloseCode::Slow);
                    lost = true;
                }
                Flushed::Gone => {
                    live.devices.swap_remove(at).dismiss();
                    lost = true;
                }
            }
        }
        self.trim_feed();
        if behind {
            self.flush_soon(ctx);
        }
        if lost {
            self.tell_presence_later(ctx);
            self.stop_when_idle(ctx);
        }
    }

    pub(super) fn trim_feed(&mut self) {
        let Ok(live) = self.live() else { return };
        let end = live.feed.end();
        let slowest = live
            .devices
            .iter()
            .map(|device| device.cursor)
            .min()
            .unwrap_or(end);
        live.feed.trim(slowest);
    }
}

impl Live {
    fn flush_device(&mut self, at: usize, stalled: Duration, deltas: &mut DeltaCache) -> Flushed {
        loop {
            let Some(device) = self.devices.get(at) else {
                return Flushed::Current;
            };
            if device.joining {
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
                return Flushed::Current;
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
    fn frames_for(&self, device: &Device, deltas: &mut DeltaCache) -> (Vec<ByteString>, Cursor) {
        let mut reached = Cursor {
            next: device.cursor,
            seen: device.seen,
            reply: device.reply,
        };
        let mut frames = Vec::new();
        let mut bytes = 0;
        for entry in self.feed.from(device.cursor) {
            if !frames.is_empty() && bytes + entry.frame.len() > capacity::DELIVERY_BYTES {
                return (frames, reached);
            }
            reached.next += 1;
            match entry.seq {
                // Sent before, as part of its page.
                Some(seq) if seq <= reached.seen => continue,
                Some(seq) => reached.seen = seq,
                None => {}
            }
            bytes += entry.frame.len();
            frames.push(entry.frame.clone());
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
}

/// The last delta encoded in a flush: devices that keep up all need the same one.
#[derive(Default)]
struct DeltaCache(Option<(TextPosition, ByteString, TextPosition)>);

impl DeltaCache {
    /// The piece of the running reply after a position, if there is any, and the position after it.
    fn from(&mut self, live: &Live, from: TextPosition) -> Option<(ByteString, TextPosition)> {
        let answer = live.state.answer()?;
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
        let frame = encode(&ServerFrame::Delta(Delta {
            session: live.record.session,
            reply: answer.question.reply,
            offset: from.utf16,
            text: text.to_owned(),
        }));
        self.0 = Some((from, frame.clone(), reached));
        Some((frame, reached))
    }
}
