//! Session: one conversation, live.
//!
//! Started by the registry at the first ask, on the worker of whoever asked; ends when it has had no
//! device and nothing to do for a while. It gives messages to the writer, tells devices what is
//! committed, and has one reply written at a time. If it dies nothing durable is lost: the registry
//! builds it again from storage, devices join again by themselves, and a reply that was being written
//! ends as failed.

pub(crate) mod answering;
mod catching_up;
pub(crate) mod fanout;
pub(crate) mod feed;
pub mod handle;
pub mod messages;
pub(crate) mod state;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytestring::ByteString;
use hubbub_protocol::server::{ReadFrame, TypingFrame};
use hubbub_protocol::{
    ErrorCode, NodeId, Principal, ReplyId, Role, ServerFrame, SessionId, TenantId,
};
use tokio::time::Instant;
use tracing::Instrument;

pub use handle::{Caller, SessionHandle};
pub use messages::{JoinRequest, Post, Posted};

use crate::busy::{Busy, BusyMark};
use crate::capacity;
use crate::device::Device;
use crate::pool::PoolHandle;
use crate::ports::{Append, Appended, MessageStore, NewMessage, SessionRecord, StoredMessage};
use crate::rejection::Rejection;
use crate::reply::Reply;
use crate::sessions::Registration;
use crate::tenant::{BotWatch, SessionPermit, Tenants};
use crate::writer::{AppendError, WriterHandle};
use feed::Feed;
use messages::{
    EndReplies, JoinSession, LeaveSession, PostMessage, Reconcile, ReplyProgress, ReplyRecovered,
    Signal, SignalKind, StopReply,
};
use state::{Question, SessionEvent, SessionState};

/// How long a failed loading is answered before the actor ends and the next ask tries again.
const REFUSE_FOR: Duration = Duration::from_millis(200);

/// Settings of every session.
#[derive(Clone, Copy, Debug)]
pub struct SessionConfig {
    /// How long it stays in memory without a device.
    pub idle_timeout: Duration,
    /// Shortest time between two deltas to a device.
    pub flush_interval: Duration,
    /// How long a device may take nothing before it is cut.
    pub stalled_device: Duration,
    /// Most devices at once.
    pub max_devices: usize,
    /// Most messages waiting for their answer.
    pub max_questions: usize,
}

/// What sessions need from the node.
pub(crate) struct SessionPorts {
    pub(crate) node: NodeId,
    pub(crate) config: SessionConfig,
    pub(crate) store: Arc<dyn MessageStore>,
    pub(crate) writer: WriterHandle,
    pub(crate) pool: PoolHandle,
    pub(crate) tenants: Tenants,
    pub(crate) busy: Busy,
}

/// The actor.
pub(crate) struct Session {
    tenant: TenantId,
    id: SessionId,
    ports: Arc<SessionPorts>,
    phase: Phase,
    /// Takes the session out of the registry as it is dropped, whatever ended it.
    _registration: Registration,
}

enum Phase {
    /// Its record is being read; the mailbox waits.
    Loading,
    Live(Box<Live>),
    /// It could not be loaded; everybody is told why, then it ends.
    Refusing(Rejection),
}

/// A loaded session.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each tells whether one timer runs; they are independent of each other"
)]
pub(crate) struct Live {
    /// Its pending replies are those that are being ended because nobody writes them any more.
    record: SessionRecord,
    state: SessionState,
    feed: Feed,
    devices: Vec<Device>,
    bot: BotWatch,
    permit: SessionPermit,
    /// The reply being written. Its text is in the state.
    writing: HashMap<ReplyId, Addr<Reply>>,
    flush_scheduled: bool,
    last_flush: Instant,
    presence_scheduled: bool,
    present: Vec<Principal>,
    idle_since: Option<Instant>,
    catching_up: bool,
    reconciling: bool,
    /// Replies that ended lately.
    ended: VecDeque<ReplyId>,
    /// Held while something is going on that a drain must wait for.
    busy: Option<BusyMark>,
}

impl Session {
    pub(crate) fn new(
        tenant: TenantId,
        id: SessionId,
        ports: Arc<SessionPorts>,
        registration: Registration,
    ) -> Self {
        Self {
            tenant,
            id,
            ports,
            phase: Phase::Loading,
            _registration: registration,
        }
    }

    fn live(&mut self) -> Result<&mut Live, Rejection> {
        match &mut self.phase {
            Phase::Live(live) => Ok(live),
            Phase::Loading => Err(Rejection::unavailable()),
            Phase::Refusing(rejection) => Err(rejection.clone()),
        }
    }

    /// The session, if this caller may know of it.
    fn live_for(&mut self, caller: &Caller) -> Result<&mut Live, Rejection> {
        let tenant = self.tenant;
        let live = self.live()?;
        let is_own = caller.visitor.is_none() || caller.visitor == live.record.visitor;
        let is_for_bot = caller.bot.is_none_or(|bot| bot == live.record.bot);
        if caller.tenant == tenant && is_own && is_for_bot {
            Ok(live)
        } else {
            Err(Rejection::no_session())
        }
    }

    fn load(&self) -> impl Future<Output = Result<Live, Rejection>> + use<> {
        let (ports, tenant, id) = (self.ports.clone(), self.tenant, self.id);
        async move {
            let record = ports.store.load_session(tenant, id).await?;
            let mut record = record.ok_or(Rejection::no_session())?;
            // Ours, and yet nobody writes them: the session that had them written died.
            record.pending.retain(|reply| reply.node == ports.node);
            let tenant = ports.tenants.open(tenant).await?;
            let permit = tenant.admit_session()?;
            let bot = permit.tenant().watch_bot(record.bot).await?;
            Ok(Live {
                state: SessionState::new(record.fence, ports.config.max_questions),
                feed: Feed::new(record.head),
                devices: Vec::new(),
                bot,
                permit,
                writing: HashMap::new(),
                flush_scheduled: false,
                last_flush: Instant::now(),
                presence_scheduled: false,
                present: Vec::new(),
                idle_since: None,
                catching_up: false,
                reconciling: false,
                ended: VecDeque::new(),
                busy: None,
                record,
            })
        }
    }

    fn loaded(&mut self, result: Result<Live, Rejection>, ctx: &mut Context<Self>) {
        match result {
            Ok(live) => {
                let pending = live.record.pending.clone();
                self.phase = Phase::Live(Box::new(live));
                for reply in pending {
                    self.end_lost(&reply, ctx);
                }
                self.stop_when_idle(ctx);
            }
            Err(rejection) => {
                self.phase = Phase::Refusing(rejection);
                ctx.run_later(REFUSE_FOR, |_, ctx| ctx.stop());
            }
        }
    }

    /// Ends the actor once it had no device and nothing to do for the idle time-out. Called whenever
    /// that may have become true; a timer that comes too early finds so and leaves it at that.
    fn stop_when_idle(&mut self, ctx: &mut Context<Self>) {
        let timeout = self.ports.config.idle_timeout;
        self.mark_busy();
        let Ok(live) = self.live() else { return };
        if !live.devices.is_empty() || !live.is_idle() {
            live.idle_since = None;
            return;
        }
        if live.idle_since.is_some() {
            return;
        }
        let since = Instant::now();
        live.idle_since = Some(since);
        ctx.run_later(timeout, move |session, ctx| {
            if session
                .live()
                .is_ok_and(|live| live.idle_since == Some(since))
            {
                ctx.stop();
            }
        });
    }

    fn mark_busy(&mut self) {
        let busy = self.ports.busy.clone();
        let Ok(live) = self.live() else { return };
        if live.is_idle() {
            live.busy = None;
        } else if live.busy.is_none() {
            live.busy = Some(busy.mark());
        }
    }

    fn post(&mut self, command: PostMessage, ctx: &mut Context<Self>) {
        let PostMessage {
            caller,
            post,
            span,
            answer,
        } = command;
        let append = match self.admit_post(&caller, post) {
            Ok(append) => append,
            Err(rejection) => {
                drop(answer.send(Err(rejection)));
                return;
            }
        };
        self.mark_busy();
        let proposed = append.reply.map(|(reply, ..)| reply);
        let appended = self
            .ports
            .writer
            .append(Append::Message(append))
            .instrument(span);
        let posted = appended
            .into_actor(self)
            .map(move |appended, session, ctx| {
                let posted = match appended {
                    Ok(Ok(Appended::Message {
                        message,
                        duplicate,
                        reply,
                    })) => {
                        // Our own reply is stored with it: it was this very entry that was stored,
                        // by an attempt whose answer was lost.
                        let is_own = reply.is_some() && reply == proposed;
                        Ok(session.posted(&message, duplicate && !is_own, reply, ctx))
                    }
                    Ok(Err(refusal)) => Err(refusal.into()),
                    Err(AppendError::Overloaded) => Err(Rejection::overloaded()),
                    Ok(Ok(Appended::ReplyEnded)) => Err(Rejection::internal()),
                    Err(error @ (AppendError::Unavailable | AppendError::Failed)) => {
                        // Perhaps it is stored all the same, and its writer never asks again.
                        session.reconcile_later(answering::END_RETRY, ctx);
                        Err(match error {
                            AppendError::Failed => Rejection::internal(),
                            _ => Rejection::unavailable(),
                        })
                    }
                };
                if posted.is_err()
                    && let Ok(live) = session.live()
                {
                    live.state.apply(SessionEvent::PostFinished(None));
                }
                drop(answer.send(posted));
                session.begin_next_answer(ctx);
                session.stop_when_idle(ctx);
            });
        ctx.spawn(posted);
    }

    fn admit_post(&mut self, caller: &Caller, post: Post) -> Result<NewMessage, Rejection> {
        let (node, tenant, session) = (self.ports.node, self.tenant, self.id);
        let live = self.live_for(caller)?;
        let Some(bot) = live.bot.borrow().clone() else {
            return Err(Rejection::new(
                ErrorCode::NotFound,
                "this assistant does not exist any more",
            ));
        };
        let asks = bot.replies && post.role == Role::Visitor;
        live.state.decide_post(asks)?;
        live.permit.tenant().admit_message()?;
        live.state.apply(SessionEvent::PostStarted);
        live.idle_since = None;
        Ok(NewMessage {
            tenant,
            session,
            id: post.id,
            role: post.role,
            author: caller.principal.name.clone(),
            text: post.text,
            metadata: post.metadata,
            reply: asks.then(|| (ReplyId::generate(), node, live.state.fence())),
        })
    }

    fn posted(
        &mut self,
        message: &StoredMessage,
        duplicate: bool,
        reply: Option<ReplyId>,
        ctx: &mut Context<Self>,
    ) -> Posted {
        let seq = message.seq;
        if let Ok(live) = self.live() {
            // A repeat's reply was begun when it was first stored, unless nobody learned of that; its
            // answer may be long finished.
            let is_unheard = duplicate
                && reply.is_some_and(|reply| !live.state.knows(reply) && !live.is_ending(reply));
            let question = reply.filter(|_| !duplicate).map(|reply| Question {
                reply,
                to: seq,
                asked_at: Instant::now(),
                fence: live.state.fence(),
            });
            live.state.apply(SessionEvent::PostFinished(question));
            live.feed
                .post(seq, encode(&ServerFrame::Message(message.clone())));
            if is_unheard {
                self.reconcile_later(Duration::ZERO, ctx);
            }
        }
        self.flush_now(ctx);
        self.catch_up_later(ctx);
        Posted {
            seq,
            at: message.at,
            duplicate,
            reply,
        }
    }

    fn signal(&mut self, signal: Signal, ctx: &mut Context<Self>) {
        let session = self.id;
        let Ok(live) = self.live() else { return };
        let who = signal.who;
        let frame = match signal.what {
            SignalKind::Typing(on) => ServerFrame::Typing(TypingFrame { session, who, on }),
            SignalKind::Read(seq) => ServerFrame::Read(ReadFrame { session, who, seq }),
        };
        if live.devices.len() > 1 && live.feed.mention(encode(&frame)) {
            self.flush_soon(ctx);
        }
    }
}

pub(crate) fn encode(frame: &ServerFrame) -> ByteString {
    // Boxed, because the feed counts bytes and a string keeps up to twice as many.
    ByteString::from(frame.encode().into_boxed_str())
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let loading = self.load().into_actor(self);
        ctx.wait(loading.map(|result, session, ctx| session.loaded(result, ctx)));
    }
}

impl Handler<JoinSession> for Session {
    type Result = ();

    fn handle(&mut self, join: JoinSession, ctx: &mut Self::Context) {
        self.join(join, ctx);
    }
}

impl Handler<LeaveSession> for Session {
    type Result = ();

    fn handle(&mut self, leave: LeaveSession, ctx: &mut Self::Context) {
        if let Ok(live) = self.live()
            && let Some(at) = live
                .devices
                .iter()
                .position(|device| device.id == leave.device)
        {
            live.devices.swap_remove(at).dismiss();
            self.trim_feed();
            self.tell_presence_later(ctx);
            self.stop_when_idle(ctx);
        }
    }
}

impl Handler<PostMessage> for Session {
    type Result = ();

    fn handle(&mut self, post: PostMessage, ctx: &mut Self::Context) {
        self.post(post, ctx);
    }
}

impl Handler<StopReply> for Session {
    type Result = ();

    fn handle(&mut self, stop: StopReply, ctx: &mut Self::Context) {
        let decided = self
            .live_for(&stop.caller)
            .and_then(|live| live.state.decide_stop());
        if decided.is_ok() {
            self.cancel_answer(ctx);
        }
        drop(stop.answer.send(decided));
    }
}

impl Handler<Signal> for Session {
    type Result = ();

    fn handle(&mut self, signal: Signal, ctx: &mut Self::Context) {
        self.signal(signal, ctx);
    }
}

impl Handler<ReplyProgress> for Session {
    type Result = ();

    fn handle(&mut self, progress: ReplyProgress, ctx: &mut Self::Context) {
        self.progressed(progress, ctx);
    }
}

impl Handler<ReplyRecovered> for Session {
    type Result = ();

    fn handle(&mut self, ReplyRecovered(ended): ReplyRecovered, ctx: &mut Self::Context) {
        self.tell_end(ended.reply, ended.to, ended.state);
        self.flush_now(ctx);
    }
}

impl Handler<Reconcile> for Session {
    type Result = ();

    fn handle(&mut self, _: Reconcile, ctx: &mut Self::Context) {
        // By then the writer has committed what was on its way, or given it up.
        let settled = capacity::APPEND_DEADLINE + answering::END_RETRY;
        ctx.run_later(settled, |session, ctx| {
            session.reconcile_later(Duration::ZERO, ctx);
        });
    }
}

impl Handler<EndReplies> for Session {
    type Result = ();

    fn handle(&mut self, _: EndReplies, ctx: &mut Self::Context) {
        self.end_all(ctx);
    }
}
