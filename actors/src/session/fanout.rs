//! Fan-out by cursors: each device is handed everything between its cursor and the end. A device that
//! does not take it keeps its cursor, and next time gets one larger delta instead of several.

use std::time::Duration;

use actix::prelude::*;
use bytestring::ByteString;
use hubbub_protocol::server::{Delta, Joined, Presence};
use hubbub_protocol::{
    CloseCode, ErrorCode, Handler as SessionHandler, Principal, RunningReply, Seq, ServerFrame,
};
use tokio::time::Instant;

use super::messages::{JoinRequest, JoinSession};
use super::{Live, Session, encode};
use crate::capacity;
use crate::device::{Device, TextPosition, Undelivered};
use crate::ports::{PageSize, StoreError, Transcript};
use crate::rejection::Rejection;

/// Presence is told this much later, so that a crowd that joins at once is told once.
const PRESENCE_AFTER: Duration = Duration::from_millis(250);

/// Shortest pause between two attempts to hand something to a device that is behind.
const SHORTEST_FLUSH: Duration = Duration::from_millis(1);

/// When a device that found no room in a session may try again, in milliseconds: one of the others may
/// have left by then.
const DEVICE_LEAVES: u64 = 5_000;

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
    pub(super) fn join(&mut self, command: JoinSession, ctx: &mut Context<Self>) {
        let JoinSession {
            caller,
            join,
            outlet,
            answer,
        } = command;
        let max_devices = self.ports.config.max_devices;
        let session = self.id;
        let live = match self.live_for(&caller) {
            Ok(live) => live,
            Err(rejection) => return drop(answer.send(Err(rejection))),
        };
        // Joining twice replaces: a client that lost track asks for a fresh start.
        live.remove(join.device);
        if live.devices.len() >= max_devices {
            let full = Rejection::later(
                ErrorCode::RateLimited,
                "too many devices in this session",
                DEVICE_LEAVES,
            );
            return drop(answer.send(Err(full)));
        }
        let mut device = Device::new(
            join.device,
            caller.principal,
            session,
            live.feed.end(),
            outlet,
        );
        let resync = join.epoch.is_some_and(|epoch| epoch != live.record.epoch);
        let after = join.after.filter(|_| !resync);
        device.seen = after.unwrap_or_default();
        live.devices.push(device);
        live.idle_since = None;
        let head = live.feed.head();
        let page = self.read_page(after, head, join.limit);
        let joined = page.into_actor(self).map(move |page, session, ctx| {
            let joined = page.map_err(Rejection::from).and_then(|page| {
                session
                    .joined(&join, resync, head, page)
                    .map(|()| session.flush_now(ctx))
            });
            if joined.is_err()
                && let Ok(live) = session.live()
            {
                live.remove(join.device);
            }
            drop(answer.send(joined));
            session.tell_presence_later(ctx);
            session.stop_when_idle(ctx);
        });
        ctx.spawn(joined);
    }

    fn read_page(
        &self,
        after: Option<Seq>,
        head: Seq,
        limit: u32,
    ) -> impl Future<Output = Result<Transcript, StoreError>> + use<> {
        let (store, tenant, id) = (self.ports.store.clone(), self.tenant, self.id);
        let size = PageSize {
            messages: limit,
            bytes: capacity::PAGE_BYTES,
        };
        async move {
            match after {
                // A session without messages has nothing to read.
                _ if head == Seq::ZERO => Ok(Transcript::default()),
                Some(after) => store.list_after(tenant, id, after, size).await,
                None => store.list_before(tenant, id, None, size).await,
            }
        }
    }

    /// Hands `joined` to a device whose page was read, and lets it follow from there.
    fn joined(
        &mut self,
        join: &JoinRequest,
        resync: bool,
        head: Seq,
        page: Transcript,
    ) -> Result<(), Rejection> {
        let session = self.id;
        let live = self.live()?;
        let covered = page.messages.last().map_or(head, |last| head.max(last.seq));
        let replying = live.state.answer().map(|answer| RunningReply {
            reply: answer.question.reply,
            to: answer.question.to,
            state: answer.phase.clone(),
            text: answer.text.clone(),
        });
        let length = live
            .state
            .answer()
            .map(|answer| answer.length)
            .unwrap_or_default();
        let frame = encode(&ServerFrame::Joined(Box::new(Joined {
            reference: join.reference.clone(),
            session,
            bot: live.record.bot,
            head: covered,
            epoch: live.record.epoch,
            resync,
            messages: page.messages,
            more: page.more,
            replying,
            ended: page.ended,
            handler: SessionHandler::Bot,
        })));
        // Left, or joined again, while the page was read: nobody to tell.
        let Some(device) = live
            .devices
            .iter_mut()
            .find(|d| d.id == join.device && d.joining)
        else {
            return Ok(());
        };
        device.joining = false;
        device.seen = covered;
        device.reply = length;
        device
            .try_deliver(vec![frame], covered)
            .map_err(|undelivered| match undelivered {
                Undelivered::Full => Rejection::overloaded(),
                Undelivered::Gone => Rejection::unavailable(),
            })
    }

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

    /// Tells everybody who came and who left since the last time.
    pub(super) fn tell_presence_later(&mut self, ctx: &mut Context<Self>) {
        let Ok(live) = self.live() else { return };
        // Nobody is there to be told, now or later: forget who was.
        if live.devices.is_empty() {
            live.present = Vec::new();
        }
        if live.presence_scheduled || live.devices.is_empty() {
            return;
        }
        live.presence_scheduled = true;
        ctx.run_later(PRESENCE_AFTER, |session, ctx| {
            let id = session.id;
            let Ok(live) = session.live() else { return };
            live.presence_scheduled = false;
            let frames = live.presence_changes(id);
            let told = frames
                .iter()
                .filter(|frame| live.feed.mention(encode(frame)))
                .count();
            if told > 0 {
                session.flush_now(ctx);
            }
        });
    }
}

impl Live {
    fn remove(&mut self, device: hubbub_protocol::ConnectionId) {
        if let Some(at) = self.devices.iter().position(|d| d.id == device) {
            self.devices.swap_remove(at).dismiss();
        }
    }

    fn presence_changes(&mut self, session: hubbub_protocol::SessionId) -> Vec<ServerFrame> {
        let mut present: Vec<Principal> = Vec::new();
        for device in &self.devices {
            if !present.contains(&device.who) {
                present.push(device.who.clone());
            }
        }
        let devices = u32::try_from(self.devices.len()).unwrap_or(u32::MAX);
        let frame = |who: &Principal, online| {
            ServerFrame::Presence(Presence {
                session,
                who: who.clone(),
                online,
                devices,
            })
        };
        let came = present
            .iter()
            .filter(|who| !self.present.contains(who))
            .map(|w| frame(w, true));
        let left = self
            .present
            .iter()
            .filter(|who| !present.contains(who))
            .map(|w| frame(w, false));
        let frames = came.chain(left).collect();
        self.present = present;
        frames
    }

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
