//! LeaseKeeper: keeps this node's lease on the replies it writes, and ends those whose node died.
//!
//! Started by the node, one, always. If the lease runs out all the same, other nodes take the replies
//! over under a higher fence and this node's ends are refused: no reply gets two ends.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use crate::capacity;
use crate::session::SessionPorts;
use crate::sessions::Sessions;

/// How often the lease is renewed and orphans are looked for. A lease lasts several of these.
const INTERVAL: Duration = Duration::from_secs(2);

/// The actor.
pub(crate) struct LeaseKeeper {
    ports: Arc<SessionPorts>,
    sessions: Arc<Sessions>,
}

impl LeaseKeeper {
    pub(crate) fn new(ports: Arc<SessionPorts>, sessions: Arc<Sessions>) -> Self {
        Self { ports, sessions }
    }

    fn turn_later(ctx: &mut Context<Self>, after: Duration) {
        ctx.run_later(after, |keeper, ctx| {
            let turn = turn(keeper.ports.clone(), keeper.sessions.clone()).into_actor(keeper);
            ctx.spawn(turn.map(|(), _, ctx| Self::turn_later(ctx, INTERVAL)));
        });
    }
}

impl Actor for LeaseKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        Self::turn_later(ctx, Duration::ZERO);
    }
}

async fn turn(ports: Arc<SessionPorts>, sessions: Arc<Sessions>) {
    ports.tenants.sweep();
    if let Err(error) = ports.store.renew_lease(ports.node).await {
        tracing::warn!(%error, "the lease was not renewed");
        return;
    }
    let orphans = match ports
        .store
        .claim_orphans(ports.node, capacity::ORPHANS)
        .await
    {
        Ok(orphans) => orphans,
        Err(error) => {
            tracing::warn!(%error, "orphaned replies were not looked for");
            return;
        }
    };
    for (tenant, reply) in orphans {
        tracing::info!(reply = %reply.reply, session = %reply.session, "ending an orphaned reply");
        let session = reply.session;
        if !sessions.recover(tenant, reply) {
            // The reply is this node's now; the session ends it when it is next loaded.
            tracing::warn!(%session, "the session is too busy to end an orphaned reply now");
        }
    }
}
