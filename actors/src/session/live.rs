//! A loaded session: what it holds, and what follows from whatever happened to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::*;
use hubbub_protocol::{HandlerFrame, Principal, ReplyId, SessionHandler};
use tokio::time::Instant;

use super::Session;
use super::feed::Feed;
use super::recall::Recall;
use super::turn::Turns;
use crate::absence::Attendance;
use crate::busy::BusyMark;
use crate::caller::Caller;
use crate::device::Device;
use crate::node::Node;
use crate::ports::SessionRecord;
use crate::reply::Reply;
use crate::reply::tab::Tab;
use crate::tenant::{BotWatch, SessionPermit};
use crate::visitors::Share;

/// When devices are to get what is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flush {
    /// At most once per flush interval, while text streams.
    Soon,
    /// When whatever happens now is over.
    Now,
}

/// A session that is loaded.
pub(super) struct Live {
    pub(super) node: Arc<Node>,
    pub(super) record: SessionRecord,
    pub(super) turns: Turns,
    pub(super) feed: Feed,
    /// What was said, for the next prompt.
    pub(super) recall: Recall,
    pub(super) devices: Vec<Device>,
    pub(super) bot: BotWatch,
    pub(super) permit: SessionPermit,
    /// Who writes the answer. Its text is in the turn.
    pub(super) writer: Option<(ReplyId, Addr<Reply>)>,
    /// Replies that failed in a row.
    pub(super) failures: u32,
    /// How sure the model says it is of an answer, from 0 to 100.
    pub(super) scored: Option<(ReplyId, u8)>,
    /// What it has taken so far.
    pub(super) tab: Tab,
    /// The upstream that has read the conversation last.
    pub(super) read_by: Option<String>,
    /// A change of handler that devices are told once an end on its way is known.
    pub(super) untold: Option<HandlerFrame>,
    /// What devices are owed when whatever happens now is over.
    pub(super) flush: Option<Flush>,
    pub(super) last_flush: Instant,
    pub(super) tasks: Tasks,
    pub(super) present: Vec<Principal>,
    /// Tells the reply being written whether anybody is still there to read it.
    pub(super) attendance: Attendance,
    /// Whether the last question was asked while a device was here. Who asks without one reads the answer
    /// later, and is not gone.
    pub(super) is_followed: bool,
    /// The share of its visitor that each unanswered message takes.
    pub(super) shares: HashMap<ReplyId, Share>,
    idle_since: Option<Instant>,
    /// Held while something is going on that a drain must wait for.
    busy: Option<BusyMark>,
}

/// What a session does by itself after a while, each once at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Flush,
    TellPresence,
    CatchUp,
    Reconcile,
}

/// Which of them are under way.
#[derive(Default)]
pub(super) struct Tasks(Vec<Task>);

impl Tasks {
    /// Whether it was not under way yet.
    pub(super) fn begin(&mut self, task: Task) -> bool {
        let is_new = !self.is_under_way(task);
        if is_new {
            self.0.push(task);
        }
        is_new
    }

    pub(super) fn end(&mut self, task: Task) {
        self.0.retain(|known| *known != task);
    }

    pub(super) fn is_under_way(&self, task: Task) -> bool {
        self.0.contains(&task)
    }
}

impl Live {
    pub(super) fn new(
        node: Arc<Node>,
        record: SessionRecord,
        permit: SessionPermit,
        bot: BotWatch,
    ) -> Self {
        Self {
            turns: Turns::new(
                record.fence,
                record.handler == SessionHandler::Bot,
                node.config.max_questions,
            ),
            untold: None,
            feed: Feed::new(record.head),
            recall: Recall::new(record.head),
            devices: Vec::new(),
            bot,
            permit,
            writer: None,
            failures: 0,
            scored: None,
            tab: Tab::default(),
            read_by: None,
            flush: None,
            last_flush: Instant::now(),
            tasks: Tasks::default(),
            present: Vec::new(),
            attendance: Attendance::default(),
            is_followed: false,
            shares: HashMap::new(),
            idle_since: None,
            busy: None,
            node,
            record,
        }
    }

    pub(super) fn is_visible_to(&self, caller: &Caller) -> bool {
        let record = &self.record;
        caller.tenant == record.tenant && caller.may_see(record.visitor, record.bot)
    }

    /// What follows from whatever happened: devices get what they are owed, gaps are closed, the next
    /// question has its turn, and a session that nobody needs any more ends.
    pub(super) fn settle(&mut self, ctx: &mut Context<Session>) {
        self.tell_handler();
        self.flush_owed(ctx);
        self.catch_up(ctx);
        self.begin_next_answer(ctx);
        self.stop_when_idle(ctx);
    }

    /// Works at something beside everything else, and then goes on with it.
    pub(super) fn spawn<T: 'static>(
        ctx: &mut Context<Session>,
        work: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut Self, T, &mut Context<Session>) + 'static,
    ) {
        let work = wrap_future::<_, Session>(work);
        ctx.spawn(work.map(|done, session, ctx| {
            session.dispatch(ctx, |live, ctx| then(live, done, ctx));
        }));
    }

    /// Does something after a while, unless it is to be done already.
    pub(super) fn once(
        &mut self,
        task: Task,
        after: Duration,
        ctx: &mut Context<Session>,
        act: impl FnOnce(&mut Self, &mut Context<Session>) + 'static,
    ) {
        if self.tasks.begin(task) {
            Self::later(after, ctx, move |live, ctx| {
                live.tasks.end(task);
                act(live, ctx);
            });
        }
    }

    /// Does something after a while.
    pub(super) fn later(
        after: Duration,
        ctx: &mut Context<Session>,
        act: impl FnOnce(&mut Self, &mut Context<Session>) + 'static,
    ) {
        ctx.run_later(after, |session, ctx| session.dispatch(ctx, act));
    }

    /// Ends the actor once it had no device and nothing to do for the idle time-out. A timer that comes too
    /// early finds so and leaves it at that.
    fn stop_when_idle(&mut self, ctx: &mut Context<Session>) {
        let is_absent = self.devices.is_empty() && self.is_followed;
        self.attendance.set_absent(is_absent);
        if !self.turns.is_idle() || self.tasks.is_under_way(Task::Reconcile) {
            let busy = &self.node.busy;
            self.busy.get_or_insert_with(|| busy.mark());
            self.idle_since = None;
            return;
        }
        self.busy = None;
        if !self.devices.is_empty() {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            let since = Instant::now();
            self.idle_since = Some(since);
            Self::later(self.node.config.idle_timeout, ctx, move |live, ctx| {
                if live.idle_since == Some(since) {
                    ctx.stop();
                }
            });
        }
    }
}
