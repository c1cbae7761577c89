//! Session: one conversation, live.
//!
//! Started by the registry at the first ask, on the worker of whoever asked; ends when it has had no
//! device and nothing to do for a while. It gives messages to the writer, tells devices what is
//! committed, and has one reply written at a time. If it dies nothing durable is lost: the registry
//! builds it again from storage, devices join again by themselves, and a reply that was being written
//! ends as failed.

mod answering;
mod catching_up;
mod fanout;
mod feed;
pub mod handle;
mod joining;
pub mod messages;
mod posting;
mod presence;
mod signals;
mod state;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytestring::ByteString;
use hubbub_protocol::{Principal, ReplyId, ServerFrame, SessionId, TenantId};
use tokio::time::Instant;

pub use handle::SessionHandle;
pub use messages::{JoinRequest, Post, Posted};

use crate::absence::Attendance;
use crate::busy::BusyMark;
use crate::caller::{Caller, Permission};
use crate::capacity;
use crate::device::Device;
use crate::ending::END_RETRY;
use crate::places::Place;
use crate::ports::SessionRecord;
use crate::rejection::Rejection;
use crate::reply::Reply;
use crate::reply::messages::ReplyProgress;
use crate::session_ports::SessionPorts;
use crate::tenant::{BotWatch, SessionPermit};
use crate::visitors::Share;
use feed::Feed;
use messages::{
    EndReplies, JoinSession, LeaveSession, PostMessage, Reconcile, ReplyRecovered, Signal,
    StopReply,
};
use state::SessionState;

/// The actor.
pub(crate) struct Session {
    tenant: TenantId,
    id: SessionId,
    ports: Arc<SessionPorts>,
    phase: Phase,
}

/// How long a failed loading is answered before the actor ends and the next ask tries again: whoever has
/// asked for several things at once is told the same of each.
const REFUSE_FOR: Duration = Duration::from_millis(200);

enum Phase {
    /// Its record is being read; the mailbox waits.
    Loading(Place),
    Live(
        Box<Live>,
        #[expect(dead_code, reason = "held until it ends")] Place,
    ),
    /// It could not be loaded; everybody is told why, then it ends. It takes no place meanwhile: what does
    /// not exist would stand in the way of what does. How many refuse at once is bounded by how many
    /// loadings fail in [`REFUSE_FOR`], each after a read of the database.
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
    /// Tells the reply being written whether anybody is still there to read it.
    attendance: Attendance,
    /// Whether the last question was asked while a device was here. Who asks without one reads the answer
    /// later, and is not gone.
    is_followed: bool,
    /// The share of its visitor that each unanswered message takes.
    shares: HashMap<ReplyId, Share>,
    /// Held while something is going on that a drain must wait for.
    busy: Option<BusyMark>,
}

impl Session {
    pub(crate) fn new(
        tenant: TenantId,
        id: SessionId,
        ports: Arc<SessionPorts>,
        place: Place,
    ) -> Self {
        Self {
            tenant,
            id,
            ports,
            phase: Phase::Loading(place),
        }
    }

    fn live(&mut self) -> Result<&mut Live, Rejection> {
        match &mut self.phase {
            Phase::Live(live, _) => Ok(live),
            Phase::Loading(_) => Err(Rejection::unavailable()),
            Phase::Refusing(rejection) => Err(rejection.clone()),
        }
    }

    /// The session, if this caller may know of it.
    fn live_for(&mut self, caller: &Caller) -> Result<&mut Live, Rejection> {
        let tenant = self.tenant;
        let live = self.live()?;
        let (visitor, bot) = (live.record.visitor, live.record.bot);
        if caller.tenant == tenant && caller.may_see(visitor, bot) {
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
                attendance: Attendance::default(),
                is_followed: false,
                shares: HashMap::new(),
                busy: None,
                record,
            })
        }
    }

    fn loaded(&mut self, result: Result<Live, Rejection>, ctx: &mut Context<Self>) {
        match result {
            Ok(live) => {
                let pending = live.record.pending.clone();
                let refusing = Phase::Refusing(Rejection::unavailable());
                let Phase::Loading(place) = std::mem::replace(&mut self.phase, refusing) else {
                    return;
                };
                self.phase = Phase::Live(Box::new(live), place);
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
        let is_absent = live.devices.is_empty() && live.is_followed;
        live.attendance.set_absent(is_absent);
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
        self.leave(&leave, ctx);
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
        let decided = self.live_for(&stop.caller).and_then(|live| {
            stop.caller.check(Permission::Chat)?;
            live.state.decide_stop()
        });
        if decided.is_ok() {
            self.cancel_answer(ctx);
        }
        drop(stop.answer.send(decided));
    }
}

impl Handler<Signal> for Session {
    type Result = ();

    fn handle(&mut self, signal: Signal, ctx: &mut Self::Context) {
        let told = self.signal(&signal, ctx);
        drop(signal.answer.send(told));
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
        let settled = capacity::APPEND_DEADLINE + END_RETRY;
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
