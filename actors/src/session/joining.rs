//! How a device joins a session: it is handed a page of the log, and follows from there.

use actix::prelude::*;
use hubbub_protocol::server::Joined;
use hubbub_protocol::{
    ConnectionId, ErrorCode, Handler as SessionHandler, RunningReply, Seq, ServerFrame,
};

use super::messages::{JoinRequest, JoinSession, LeaveSession};
use super::{Live, Session, encode};
use crate::capacity;
use crate::device::{Device, TextPosition, Undelivered};
use crate::ports::{PageSize, StoreError, Transcript};
use crate::rejection::Rejection;

/// When a device that found no room in a session may try again, in milliseconds: one of the others may
/// have left by then.
const DEVICE_LEAVES: u64 = 5_000;

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
            caller.principal(),
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
        let (replying, length) = match live.state.answer() {
            Some(answer) => {
                let (text, length) = beginning(&answer.text);
                let replying = RunningReply {
                    reply: answer.question.reply,
                    to: answer.question.to,
                    state: answer.phase.clone(),
                    text: text.to_owned(),
                };
                (Some(replying), length)
            }
            None => (None, TextPosition::default()),
        };
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

    pub(super) fn leave(&mut self, leave: &LeaveSession, ctx: &mut Context<Self>) {
        if self.live().is_ok_and(|live| live.remove(leave.device)) {
            self.trim_feed();
            self.tell_presence_later(ctx);
            self.stop_when_idle(ctx);
        }
    }
}

/// As much of a running reply as `joined` carries, and how far that is.
fn beginning(text: &str) -> (&str, TextPosition) {
    let end = text.floor_char_boundary(capacity::REPLYING_BYTES);
    let text = text.get(..end).unwrap_or_default();
    let length = TextPosition {
        bytes: text.len(),
        utf16: text.encode_utf16().count() as u64,
    };
    (text, length)
}

impl Live {
    /// Lets go of a device; whether it was there.
    fn remove(&mut self, device: ConnectionId) -> bool {
        let at = self.devices.iter().position(|d| d.id == device);
        if let Some(at) = at {
            self.devices.swap_remove(at).dismiss();
        }
        at.is_some()
    }
}
