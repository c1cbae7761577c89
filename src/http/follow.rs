//! Posts a message and follows its reply to the end: what every front that is not a WebSocket needs. The
//! follower is a device of the session like any other.

use std::collections::VecDeque;

use hubbub_actors::ports::PageSize;
use hubbub_actors::{
    Caller, Delivery, EncodedFrame, JoinRequest, Outlet, Post, Posted, SessionHandle, Undelivered,
    capacity,
};
use hubbub_protocol::reply::ReplyFrame;
use hubbub_protocol::server::{Ack, Delta};
use hubbub_protocol::{
    CloseCode, ConnectionId, ReplyId, ReplyState, Seq, ServerFrame, SessionId, TenantId,
};
use tokio::sync::mpsc;

use super::AppState;
use super::problem::ApiError;
use crate::realtime::cut::Cut;
use hubbub_storage::messages::{self, EndedText};

/// Messages looked through for the answer of a message that was posted before.
const LOOK_BACK: PageSize = PageSize {
    messages: 200,
    bytes: 1024 * 1024,
};

/// A posted message's frames: its `ack`, then those about its reply, to the reply's end. Dropping it leaves
/// the session; the reply goes on.
pub(super) struct FollowedReply {
    ready: VecDeque<EncodedFrame>,
    deliveries: mpsc::Receiver<Delivery>,
    /// The reply followed; `None` once it has ended.
    reply: Option<ReplyId>,
    _device: JoinedDevice,
}

/// Posts a message and follows its reply. Whoever loses the answer posts the same id again.
///
/// # Errors
/// As `send`, and as joining a session.
pub(super) async fn follow_reply(
    state: &AppState,
    caller: Caller,
    session: SessionId,
    post: Post,
    wire: Cut,
) -> Result<FollowedReply, ApiError> {
    let (tenant, id) = (caller.tenant, post.id);
    // Joined before the message is posted, so that nothing of its answer is missed.
    let (device, deliveries) = join(state, &caller, session, wire).await?;
    let Posted {
        seq,
        at,
        duplicate,
        reply,
    } = device.handle.post_message(caller, post).await?;
    let mut followed = FollowedReply {
        ready: VecDeque::from([EncodedFrame::new(ServerFrame::Ack(Ack {
            reference: None,
            session,
            id,
            seq,
            at,
            duplicate,
        }))]),
        deliveries,
        reply,
        _device: device,
    };
    if let Some(reply) = reply.filter(|_| duplicate)
        && let Some(end) = find_end(state, tenant, session, seq, reply).await?
    {
        followed.ready.push_back(EncodedFrame::new(end));
        followed.reply = None;
    }
    Ok(followed)
}

impl FollowedReply {
    /// The next frame, waited for; `None` after the reply's end, or once the session let go. Nothing is
    /// lost if it is dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<EncodedFrame> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let reply = self.reply?;
            let delivery = self.deliveries.recv().await?;
            let frames = delivery.frames.into_iter();
            self.ready
                .extend(frames.filter_map(|frame| about(frame, reply)));
            if self.ready.iter().any(|ready| ends_reply(ready.frame())) {
                self.reply = None;
            }
        }
    }
}

async fn join(
    state: &AppState,
    caller: &Caller,
    session: SessionId,
    wire: Cut,
) -> Result<(JoinedDevice, mpsc::Receiver<Delivery>), ApiError> {
    let handle = state.hub.session(caller.tenant, session)?;
    let (sender, deliveries) = mpsc::channel(capacity::CONNECTION_MAILBOX);
    let device = ConnectionId::generate();
    let join = JoinRequest {
        device,
        reference: None,
        after: None,
        epoch: None,
        limit: 1,
    };
    handle
        .join(caller.clone(), join, Box::new(ChannelOutlet(sender)))
        .await?;
    wire.becomes_device();
    let joined = JoinedDevice {
        handle,
        device,
        wire,
    };
    Ok((joined, deliveries))
}

/// Leaves the session when it is dropped.
struct JoinedDevice {
    handle: SessionHandle,
    device: ConnectionId,
    wire: Cut,
}

impl Drop for JoinedDevice {
    fn drop(&mut self) {
        self.wire.was_device();
        self.handle.leave(self.device);
    }
}

/// An outlet to a channel. Dropping the sender, in a cut or with the session, ends what follows it.
struct ChannelOutlet(mpsc::Sender<Delivery>);

impl Outlet for ChannelOutlet {
    fn try_deliver(&self, delivery: Delivery) -> Result<(), Undelivered> {
        self.0.try_send(delivery).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Undelivered::Full,
            mpsc::error::TrySendError::Closed(_) => Undelivered::Gone,
        })
    }

    fn cut(&self, _: CloseCode) {}

    fn session_lost(&self, _: SessionId) {}
}

/// Whether a frame about a reply is its last.
fn ends_reply(frame: &ServerFrame) -> bool {
    match frame {
        ServerFrame::Message(_) => true,
        ServerFrame::Reply(frame) => matches!(
            frame.state,
            ReplyState::Failed { .. } | ReplyState::Cancelled
        ),
        _ => false,
    }
}

/// What a frame says about a reply, if anything.
fn about(frame: EncodedFrame, reply: ReplyId) -> Option<EncodedFrame> {
    let is_about = match frame.frame() {
        ServerFrame::Message(message) => message.reply == Some(reply),
        ServerFrame::Reply(frame) => frame.reply == reply,
        ServerFrame::Delta(delta) => delta.reply == reply,
        // Joined in the middle of it: what was written so far is the first piece.
        ServerFrame::Joined(joined) => {
            let running = joined.replying.as_ref()?;
            return (running.reply == reply).then(|| {
                EncodedFrame::new(ServerFrame::Delta(Delta {
                    session: joined.session,
                    reply,
                    offset: 0,
                    text: running.text.clone(),
                }))
            });
        }
        _ => false,
    };
    is_about.then_some(frame)
}

/// How the reply to a message ended, if it did.
async fn find_end(
    state: &AppState,
    tenant: TenantId,
    session: SessionId,
    to: Seq,
    reply: ReplyId,
) -> Result<Option<ServerFrame>, ApiError> {
    let scope = state.storage.scope(tenant).await?;
    let before = Seq(to.0.saturating_sub(1));
    let page =
        messages::list_after(&scope, session, before, LOOK_BACK, EndedText::Beginning).await?;
    let mut messages = page.messages.into_iter();
    if let Some(message) = messages.find(|message| message.reply == Some(reply)) {
        return Ok(Some(ServerFrame::Message(message)));
    }
    let ended = page.ended.into_iter().find(|ended| ended.reply == reply);
    Ok(ended.map(|ended| {
        ServerFrame::Reply(ReplyFrame {
            session,
            reply,
            to: ended.to,
            state: ended.state,
        })
    }))
}
