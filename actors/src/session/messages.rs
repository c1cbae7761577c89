//! What can be said to a session. Private to the crate: the world uses [`super::SessionHandle`].

use actix::prelude::*;
use hubbub_protocol::{
    ClientMessageId, ConnectionId, EndedReply, Epoch, Metadata, ReplyId, Seq, Timestamp,
};
use tokio::sync::oneshot;
use tracing::Span;

use crate::caller::Caller;
use crate::device::Outlet;
use crate::rejection::Rejection;

pub(crate) type Answer<T> = oneshot::Sender<Result<T, Rejection>>;

/// Adds a device. The session hands it `joined` first, then everything that follows.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct JoinSession {
    pub(crate) caller: Caller,
    pub(crate) join: JoinRequest,
    pub(crate) outlet: Box<dyn Outlet>,
    pub(crate) answer: Answer<()>,
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
pub(crate) struct LeaveSession {
    pub(crate) device: ConnectionId,
}

/// Stores a message.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PostMessage {
    pub(crate) caller: Caller,
    pub(crate) post: Post,
    pub(crate) span: Span,
    pub(crate) answer: Answer<Posted>,
}

/// A message to store.
#[derive(Clone, Debug)]
pub struct Post {
    /// The writer's id of it.
    pub id: ClientMessageId,
    /// What it says.
    pub text: String,
    /// Kept with it.
    pub metadata: Option<Metadata>,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Its number.
    pub seq: Seq,
    /// When it was stored.
    pub at: Timestamp,
    /// It had been stored before.
    pub duplicate: bool,
    /// The reply that answers it.
    pub reply: Option<ReplyId>,
}

/// Stops the running reply.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StopReply {
    pub(crate) caller: Caller,
    pub(crate) answer: Answer<()>,
}

/// Something that matters only now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Signal {
    pub(crate) caller: Caller,
    pub(crate) device: ConnectionId,
    pub(crate) what: SignalKind,
    pub(crate) answer: Answer<()>,
}

pub(crate) enum SignalKind {
    Typing(bool),
    Read(Seq),
}

/// A reply whose node died was ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReplyRecovered(pub(crate) EndedReply);

/// Has the session compare what it knows with storage: its predecessor died, and what that one was
/// having stored may be stored only now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Reconcile;

/// Ends whatever is being answered: the node is about to stop.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndReplies;
