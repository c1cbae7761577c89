//! A posted message's answer as server-sent events: the same frames that a WebSocket gets, from `ack`
//! to the end of the reply. The stream is a device of the session like any other.

use std::time::Duration;

use actix_web::HttpResponse;
use bytes::Bytes;
use futures_util::stream;
use hubbub_actors::ports::PageSize;
use hubbub_actors::{
    Caller, Delivery, JoinRequest, Outlet, Post, Posted, SessionHandle, Undelivered,
};
use hubbub_protocol::server::{Ack, Delta};
use hubbub_protocol::{CloseCode, ConnectionId, ReplyId, ReplyState, Seq, ServerFrame, SessionId};
use tokio::sync::mpsc;

use super::AppState;
use super::problem::ApiError;
use crate::realtime::wire::Cut;
use crate::storage::messages::{self, EndedText};

/// Deliveries waiting for the client; like a connection's mailbox.
const OUTLET_CAPACITY: usize = hubbub_actors::capacity::CONNECTION_MAILBOX;

/// A comment this often keeps proxies from closing a stream that waits for its slot.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Messages looked through for the answer of a message that was posted before.
const LOOK_BACK: PageSize = PageSize {
    messages: 200,
    bytes: 1024 * 1024,
};

/// An outlet to a channel. Dropping the sender, in a cut or with the session, ends the stream.
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

/// Posts and streams. The client that loses the stream posts the same id again.
pub(super) async fn post_and_stream(
    state: &AppState,
    caller: Caller,
    session: SessionId,
    post: Post,
    wire: Cut,
) -> Result<HttpResponse, ApiError> {
    let handle = state.hub.session(caller.tenant, session)?;
    let (sender, deliveries) = mpsc::channel(OUTLET_CAPACITY);
    let device = ConnectionId::generate();
    let join = JoinRequest {
        device,
        reference: None,
        after: None,
        epoch: None,
        limit: 1,
    };
    // Joined before the message is posted, so that nothing of its answer is missed.
    handle
        .join(caller.clone(), join, Box::new(ChannelOutlet(sender)))
        .await?;
    wire.becomes_device();
    let device = Joined {
        handle,
        device,
        wire,
    };
    let (tenant, id) = (caller.tenant, post.id);
    let posted = device.handle.post_message(caller, post).await?;
    let Posted {
        seq,
        at,
        duplicate,
        reply,
    } = posted;
    let mut first = vec![ServerFrame::Ack(Ack {
        reference: None,
        session,
        id,
        seq,
        at,
        duplicate,
    })];
    let mut is_over = reply.is_none();
    if let Some(reply) = reply.filter(|_| duplicate)
        && let Some(end) = find_end(state, tenant, session, seq, reply).await?
    {
        first.push(end);
        is_over = true;
    }
    let events = Events {
        deliveries,
        reply: reply.filter(|_| !is_over),
        _device: device,
    };
    let first = stream::iter([Ok::<_, actix_web::Error>(encode(&first))]);
    let body = futures_util::StreamExt::chain(first, stream::unfold(events, Events::next));
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("cache-control", "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(body))
}

/// Leaves the session when the stream is dropped.
struct Joined {
    handle: SessionHandle,
    device: ConnectionId,
    wire: Cut,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.wire.was_device();
        self.handle.leave(self.device);
    }
}

struct Events {
    deliveries: mpsc::Receiver<Delivery>,
    /// The reply followed; `None` once it has ended.
    reply: Option<ReplyId>,
    _device: Joined,
}

impl Events {
    async fn next(mut self) -> Option<(Result<Bytes, actix_web::Error>, Self)> {
        let reply = self.reply?;
        loop {
            let Ok(delivery) = tokio::time::timeout(KEEP_ALIVE, self.deliveries.recv()).await
            else {
                return Some((Ok(Bytes::from_static(b": waiting\n\n")), self));
            };
            let mut frames = Vec::new();
            for frame in delivery?.frames {
                // Our own frames: what does not decode is of no concern to this reply.
                let Ok(frame) = serde_json::from_str::<ServerFrame>(&frame) else {
                    continue;
                };
                if let Some((frame, is_end)) = about(frame, reply) {
                    frames.push(frame);
                    if is_end {
                        self.reply = None;
                    }
                }
            }
            if !frames.is_empty() {
                return Some((Ok(encode(&frames)), self));
            }
        }
    }
}

/// The frame, if it is about this reply, and whether it is the reply's end.
fn about(frame: ServerFrame, reply: ReplyId) -> Option<(ServerFrame, bool)> {
    match frame {
        ServerFrame::Message(message) if message.reply == Some(reply) => {
            Some((ServerFrame::Message(message), true))
        }
        ServerFrame::Reply(frame) if frame.reply == reply => {
            let is_end = matches!(
                frame.state,
                ReplyState::Failed { .. } | ReplyState::Cancelled
            );
            Some((ServerFrame::Reply(frame), is_end))
        }
        ServerFrame::Delta(delta) if delta.reply == reply => {
            Some((ServerFrame::Delta(delta), false))
        }
        // Joined in the middle of it: what was written so far is the first piece.
        ServerFrame::Joined(joined) => {
            let running = joined.replying.filter(|running| running.reply == reply)?;
            let delta = Delta {
                session: joined.session,
                reply,
                offset: 0,
                text: running.text,
            };
            Some((ServerFrame::Delta(delta), false))
        }
        _ => None,
    }
}

async fn find_end(
    state: &AppState,
    tenant: hubbub_protocol::TenantId,
    session: SessionId,
    to: Seq,
    reply: ReplyId,
) -> Result<Option<ServerFrame>, ApiError> {
    let scope = state.storage.scope(tenant).await?;
    let before = Seq(to.0.saturating_sub(1));
    let page =
        messages::list_after(&scope, session, before, LOOK_BACK, EndedText::Beginning).await?;
    let message = page
        .messages
        .into_iter()
        .find(|message| message.reply == Some(reply));
    let ended = page.ended.into_iter().find(|ended| ended.reply == reply);
    Ok(message.map(ServerFrame::Message).or_else(|| {
        ended.map(|ended| {
            let (to, state) = (ended.to, ended.state);
            ServerFrame::Reply(hubbub_protocol::server::ReplyFrame {
                session,
                reply,
                to,
                state,
            })
        })
    }))
}

fn encode(frames: &[ServerFrame]) -> Bytes {
    let mut text = String::new();
    for frame in frames {
        text.push_str("event: ");
        text.push_str(frame.kind());
        text.push_str("\ndata: ");
        // A line break would end the field. Within JSON it is only a blank.
        text.push_str(&frame.encode().replace(['\n', '\r'], " "));
        text.push_str("\n\n");
    }
    Bytes::from(text)
}
