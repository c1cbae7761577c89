//! Joining and leaving: a device is handed a page of the log, and follows from there.

use actix::prelude::*;
use hubbub_protocol::server::Joined;
use hubbub_protocol::{ConnectionId, Epoch, ErrorCode, Principal, RunningReply, Seq, ServerFrame};

use super::live::{Flush, Live};
use super::{Answer, Session};
use crate::caller::Caller;
use crate::capacity;
use crate::device::{Device, Outlet, TextPosition, Undelivered};
use crate::encoded::EncodedFrame;
use crate::ports::{PageSize, StoreError, Transcript};
use crate::rejection::Rejection;

/// When a device that found no room in a session may try again, in milliseconds: one of the others may
/// have left by then.
const DEVICE_LEAVES: u64 = 5_000;

/// Adds a device. The session hands it `joined` first, then everything that follows.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct JoinSession {
    pub(super) caller: Caller,
    pub(super) join: JoinRequest,
    pub(super) outlet: Box<dyn Outlet>,
    pub(super) answer: Answer<()>,
}

/// What a device asks for when it joins.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The device: its connection's id.
    pub device: ConnectionId,
    /// Echoed in `joined`.
    pub reference: Option<String>,
    /// The last seq held.
    pub after: Option<Seq>,
    /// The log it is of.
    pub epoch: Option<Epoch>,
    /// Most messages in `joined`.
    pub limit: u32,
}

/// Removes a device.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LeaveSession {
    pub(super) device: ConnectionId,
}

impl Handler<JoinSession> for Session {
    type Result = ();

    fn handle(&mut self, command: JoinSession, ctx: &mut Self::Context) {
        let JoinSession {
            caller,
            join,
            outlet,
            answer,
        } = command;
        self.serve(&caller, answer, ctx, |live, answer, ctx| {
            live.join(caller.principal(), join, outlet, answer, ctx);
        });
    }
}

impl Handler<LeaveSession> for Session {
    type Result = ();

    fn handle(&mut self, LeaveSession { device }: LeaveSession, ctx: &mut Self::Context) {
        self.dispatch(ctx, |live, ctx| {
            if live.remove(device) {
                live.trim_feed();
                live.tell_presence_later(ctx);
            }
        });
    }
}

impl Live {
    fn join(
        &mut self,
        who: Principal,
        join: JoinRequest,
        outlet: Box<dyn Outlet>,
        answer: Answer<()>,
        ctx: &mut Context<Session>,
    ) {
        // Joining twice replaces: a client that lost track asks for a fresh start.
        self.remove(join.device);
        if self.devices.len() >= self.node.config.max_devices {
            let full = Rejection::later(
                ErrorCode::RateLimited,
                "too many devices in this session",
                DEVICE_LEAVES,
            );
            return drop(answer.send(Err(full)));
        }
        let (session, end) = (self.record.session, self.feed.end());
        let mut device = Device::new(join.device, who, session, end, outlet);
        let resync = join.epoch.is_some_and(|epoch| epoch != self.record.epoch);
        let after = join.after.filter(|_| !resync);
        device.seen = after.unwrap_or_default();
        self.devices.push(device);
        let head = self.feed.head();
        let page = self.read_page(after, head, join.limit);
        Self::spawn(ctx, page, move |live, page, ctx| {
            let joined = page
                .map_err(Rejection::from)
                .and_then(|page| live.joined(&join, resync, head, page));
            if joined.is_err() {
                live.remove(join.device);
            }
            live.tell_presence_later(ctx);
            live.owe(Flush::Now);
            live.settle(ctx);
            drop(answer.send(joined));
        });
    }

    fn read_page(
        &self,
        after: Option<Seq>,
        head: Seq,
        limit: u32,
    ) -> impl Future<Output = Result<Transcript, StoreError>> + use<> {
        let (store, record) = (self.node.store.clone(), &self.record);
        let (tenant, id) = (record.tenant, record.session);
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
        let covered = page.messages.last().map_or(head, |last| head.max(last.seq));
        let (replying, length) = match self.turns.answer() {
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
        let frame = EncodedFrame::new(ServerFrame::Joined(Box::new(Joined {
            reference: join.reference.clone(),
            session: self.record.session,
            bot: self.record.bot,
            head: covered,
            epoch: self.record.epoch,
            resync,
            messages: page.messages,
            more: page.more,
            replying,
            ended: page.ended,
            handler: self.record.handler.clone(),
        })));
        // Left, or joined again, while the page was read: nobody to tell.
        let Some(device) = self
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

    /// Lets go of a device; whether it was there.
    fn remove(&mut self, device: ConnectionId) -> bool {
        let at = self.devices.iter().position(|d| d.id == device);
        if let Some(at) = at {
            self.devices.swap_remove(at).dismiss();
        }
        at.is_some()
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
