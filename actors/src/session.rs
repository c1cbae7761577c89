//! Session: one conversation, live.
//!
//! Started by the registry at the first ask, on the worker of whoever asked; ends when it has had no
//! device and nothing to do for a while. It gives messages to the writer, tells devices what is
//! committed, and has one reply written at a time. If it dies nothing durable is lost: the registry
//! builds it again from storage, devices join again by themselves, and a reply that was being written
//! ends as failed.
//!
//! What can be asked of it has a file each, with its message, its handler and what it does.

mod answering;
mod catching_up;
mod escalating;
mod fanout;
mod feed;
pub mod handle;
mod handling;
mod joining;
mod live;
mod noting;
mod posting;
mod presence;
mod recall;
mod signals;
mod stopping;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::{SessionId, TenantId};
use tokio::sync::oneshot;

pub(crate) use catching_up::ReplyRecovered;
pub use handle::SessionHandle;
pub use handling::Handling;
pub use joining::JoinRequest;
pub use posting::{Post, Posted};

use crate::caller::Caller;
use crate::node::Node;
use crate::places::SessionPlace;
use crate::ports::PendingReply;
use crate::rejection::Rejection;
use live::Live;

/// The actor: a session on its way to being live, live, or not to be had.
pub(crate) struct Session {
    tenant: TenantId,
    id: SessionId,
    node: Arc<Node>,
    phase: Phase,
}

/// Where whoever asked waits for the answer.
type Answer<T> = oneshot::Sender<Result<T, Rejection>>;

/// How long a failed loading is answered before the actor ends and the next ask tries again: whoever has
/// asked for several things at once is told the same of each.
const REFUSE_FOR: Duration = Duration::from_millis(200);

enum Phase {
    /// Its record is being read; the mailbox waits.
    Loading(SessionPlace),
    Live(
        Box<Live>,
        #[expect(dead_code, reason = "held until it ends")] SessionPlace,
    ),
    /// It could not be loaded; everybody is told why, then it ends. It takes no place meanwhile: what does
    /// not exist would stand in the way of what does. How many refuse at once is bounded by how many
    /// loadings fail in [`REFUSE_FOR`], each after a read of the database.
    Refusing(Rejection),
}

impl Session {
    pub(crate) fn new(
        tenant: TenantId,
        id: SessionId,
        node: Arc<Node>,
        place: SessionPlace,
    ) -> Self {
        Self {
            tenant,
            id,
            node,
            phase: Phase::Loading(place),
        }
    }

    /// Has the live session do something, and what follows from it. What comes for one that is not live is
    /// of no use to anybody.
    fn dispatch(
        &mut self,
        ctx: &mut Context<Self>,
        act: impl FnOnce(&mut Live, &mut Context<Self>),
    ) {
        if let Phase::Live(live, _) = &mut self.phase {
            act(live, ctx);
            live.settle(ctx);
        }
    }

    /// Has the live session do what a caller asks, who is told if they may not know of it, or if it is not
    /// live.
    fn serve<T>(
        &mut self,
        caller: &Caller,
        answer: Answer<T>,
        ctx: &mut Context<Self>,
        act: impl FnOnce(&mut Live, Answer<T>, &mut Context<Self>),
    ) {
        let refused = match &mut self.phase {
            Phase::Live(live, _) if live.is_visible_to(caller) => {
                act(live, answer, ctx);
                return live.settle(ctx);
            }
            Phase::Live(..) => Rejection::no_session(),
            Phase::Loading(_) => Rejection::unavailable(),
            Phase::Refusing(rejection) => rejection.clone(),
        };
        drop(answer.send(Err(refused)));
    }

    /// The session, and its replies that nobody writes any more.
    fn load(&self) -> impl Future<Output = Result<(Live, Vec<PendingReply>), Rejection>> + use<> {
        let (node, tenant, id) = (self.node.clone(), self.tenant, self.id);
        async move {
            let record = node.store.load_session(tenant, id).await?;
            let mut record = record.ok_or(Rejection::no_session())?;
            // Ours, and yet nobody writes them: the session that had them written died.
            let mut lost = std::mem::take(&mut record.pending);
            lost.retain(|reply| reply.node == node.id);
            let tenant = node.tenants.open(tenant).await?;
            let permit = tenant.admit_session()?;
            let bot = permit.tenant().watch_bot(record.bot).await?;
            Ok((Live::new(node, record, permit, bot), lost))
        }
    }

    fn loaded(
        &mut self,
        loaded: Result<(Live, Vec<PendingReply>), Rejection>,
        ctx: &mut Context<Self>,
    ) {
        let phase = Phase::Refusing(Rejection::unavailable());
        self.phase = match (loaded, std::mem::replace(&mut self.phase, phase)) {
            (Ok((live, lost)), Phase::Loading(place)) => {
                self.phase = Phase::Live(Box::new(live), place);
                return self.dispatch(ctx, |live, ctx| {
                    for reply in lost {
                        live.end_lost(reply, ctx);
                    }
                });
            }
            (Ok(_), phase) => phase,
            (Err(rejection), _) => Phase::Refusing(rejection),
        };
        ctx.run_later(REFUSE_FOR, |_, ctx| ctx.stop());
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let loading = self.load().into_actor(self);
        ctx.wait(loading.map(|loaded, session, ctx| session.loaded(loaded, ctx)));
    }
}
