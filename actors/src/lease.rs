//! `LeaseKeeper`: keeps this node's lease on the replies it writes, and ends those whose node died.
//!
//! Started by the node, one, always. If the lease runs out all the same, other nodes take the replies
//! over under a higher claim and this node's ends are refused: no reply gets two ends.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::{EndedReply, TenantId};

use crate::capacity;
use crate::ending::{END_RETRY, end_state, lost};
use crate::node::Node;
use crate::ports::{Append, PendingReply};
use crate::sessions::Sessions;

/// How often to renew the lease and look for orphans. A lease lasts several of these.
const INTERVAL: Duration = Duration::from_secs(2);

/// Until the next turn, when there are more orphans than one turn takes.
const AT_ONCE: Duration = Duration::from_millis(50);

/// The actor.
pub(crate) struct LeaseKeeper {
    node: Arc<Node>,
    sessions: Arc<Sessions>,
}

impl LeaseKeeper {
    pub(crate) fn new(node: Arc<Node>, sessions: Arc<Sessions>) -> Self {
        Self { node, sessions }
    }

    fn turn_later(ctx: &mut Context<Self>, after: Duration) {
        ctx.run_later(after, |keeper, ctx| {
            let turn = turn(keeper.node.clone()).into_actor(keeper);
            ctx.spawn(turn.map(|orphans, keeper, ctx| {
                // As many as were asked for: there are more.
                let is_full = orphans.len() >= capacity::ORPHANS as usize;
                for (tenant, reply) in orphans {
                    let (node, sessions) = (keeper.node.clone(), keeper.sessions.clone());
                    ctx.spawn(end_orphan(node, sessions, tenant, reply).into_actor(keeper));
                }
                Self::turn_later(ctx, if is_full { AT_ONCE } else { INTERVAL });
            }));
        });
    }
}

impl Actor for LeaseKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        Self::turn_later(ctx, Duration::ZERO);
    }
}

/// Renews the lease and claims orphans.
async fn turn(node: Arc<Node>) -> Vec<(TenantId, PendingReply)> {
    node.tenants.sweep();
    node.visitors.sweep();
    if let Err(error) = node.store.renew_lease(node.id).await {
        // Why, storage has told: here it would be repeated every two seconds.
        tracing::debug!(%error, "the lease was not renewed");
        return Vec::new();
    }
    match node.store.claim_orphans(node.id, capacity::ORPHANS).await {
        Ok(orphans) => orphans,
        Err(error) => {
            tracing::debug!(%error, "orphaned replies were not looked for");
            Vec::new()
        }
    }
}

/// Ends one orphan, now this node's, however long storage needs, and tells its devices on this node.
async fn end_orphan(
    node: Arc<Node>,
    sessions: Arc<Sessions>,
    tenant: TenantId,
    reply: PendingReply,
) {
    tracing::info!(reply = %reply.reply, session = %reply.session, "ending an orphaned reply");
    let _busy = node.busy.mark();
    let lost = lost(node.id, tenant, &reply);
    loop {
        match node.writer.append(Append::Reply(lost.clone())).await {
            Ok(Ok(_)) => break,
            Ok(Err(refusal)) => {
                tracing::warn!(%refusal, reply = %reply.reply, "an orphaned reply was not ended");
                return;
            }
            Err(_not_stored) => tokio::time::sleep(END_RETRY).await,
        }
    }
    if let Some(state) = end_state(&lost.end) {
        let ended = EndedReply {
            reply: reply.reply,
            to: reply.to,
            state,
            text: lost.text,
            text_bytes: None,
        };
        sessions.tell_ended(tenant, reply.session, ended);
    }
}
