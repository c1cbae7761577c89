//! The hub: the node's actors, put together. The one thing the world starts, and its way in.

use std::sync::Arc;
use std::time::Duration;

use hubbub_protocol::{BotId, ErrorCode, NodeId, SessionId, TenantId};
use tokio::time::Instant;

use crate::answers::Answers;
use crate::busy::Busy;
use crate::caller::{Caller, Permission};
use crate::capacity;
use crate::lease::LeaseKeeper;
use crate::node::{Node, SessionSettings};
use crate::pool::{PoolConfig, PoolHandle};
use crate::ports::{MessageStore, NewSession};
use crate::rejection::Rejection;
use crate::session::SessionHandle;
use crate::sessions::Sessions;
use crate::supervision::{Fatal, Permanent};
use crate::tenant::{ConnectionPermit, DefaultLimits, TenantHandle, Tenants};
use crate::visitors::{VisitorLimits, Visitors};
use crate::writer::WriterHandle;

/// How often sessions are told to end their replies: each time they end one, and the next may begin.
const DRAIN_INTERVAL: Duration = Duration::from_millis(200);

/// Settings of a node.
#[derive(Clone)]
pub struct HubConfig {
    /// This process.
    pub node: NodeId,
    /// Of every session.
    pub session: SessionSettings,
    /// Of the LLM pool.
    pub pool: PoolConfig,
    /// Of tenants whose record names none.
    pub tenant: DefaultLimits,
    /// Of every visitor.
    pub visitor: VisitorLimits,
    /// Most live sessions on this node.
    pub max_sessions: usize,
}

/// The node's actors. Cheap to clone; usable from every worker.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    sessions: Arc<Sessions>,
    fatal: Fatal,
    _lease: Arc<Permanent<LeaseKeeper>>,
}

impl Hub {
    /// Starts the permanent actors on the current arbiter.
    pub fn start(config: HubConfig, store: Arc<dyn MessageStore>) -> Self {
        let fatal = Fatal::default();
        let node = Arc::new(Node {
            id: config.node,
            config: config.session,
            writer: WriterHandle::start(&store, &fatal),
            pool: PoolHandle::start(config.pool, fatal.clone()),
            answers: Answers::default(),
            tenants: Tenants::new(store.clone(), config.tenant),
            visitors: Visitors::new(config.visitor),
            busy: Busy::default(),
            store,
        });
        let sessions = Sessions::new(node.clone(), config.max_sessions);
        let lease = {
            let (node, sessions) = (node.clone(), sessions.clone());
            Permanent::start(
                "lease_keeper",
                capacity::LEASE_MAILBOX,
                fatal.clone(),
                move || LeaseKeeper::new(node.clone(), sessions.clone()),
            )
        };
        Self(Arc::new(Inner {
            node,
            sessions,
            fatal,
            _lease: lease,
        }))
    }

    /// Completes when a permanent actor could not be kept alive: the process should exit non-zero.
    pub async fn failed(&self) {
        self.0.fatal.raised().await;
    }

    /// Counts something a visitor asks for, by a frame or an HTTP request. API keys are the tenant's own:
    /// what they ask for counts against the tenant's limits only.
    ///
    /// # Errors
    /// `rate_limited`: it asks too fast.
    pub fn admit(&self, caller: &Caller) -> Result<(), Rejection> {
        let visitor = caller.visitor().map(|visitor| (caller.tenant, visitor));
        visitor.map_or(Ok(()), |visitor| self.0.node.visitors.admit(visitor))
    }

    /// Counts a connection, as its tenant's and as its visitor's.
    ///
    /// # Errors
    /// `rate_limited`: one of them has too many. `unauthorized`: the tenant does not exist any more.
    pub async fn admit_connection(&self, caller: &Caller) -> Result<ConnectionPermit, Rejection> {
        let visitor = caller.visitor().map(|visitor| (caller.tenant, visitor));
        let visitors = &self.0.node.visitors;
        let share = visitor.map(|visitor| visitors.admit_connection(visitor));
        let share = share.transpose()?;
        let tenant = self.tenant(caller.tenant).await?;
        Ok(tenant.admit_connection()?.of_visitor(share))
    }

    /// The tenant, started if need be.
    pub async fn tenant(&self, tenant: TenantId) -> Result<TenantHandle, Rejection> {
        self.0.node.tenants.open(tenant).await
    }

    /// Creates a session of a bot, the caller's own.
    ///
    /// # Errors
    /// `forbidden` if the caller only reads along or came for another bot, `not_found` if the tenant has no such bot,
    /// `unavailable`.
    pub async fn open_session(&self, caller: &Caller, bot: BotId) -> Result<SessionId, Rejection> {
        caller.check(Permission::Chat)?;
        if caller.bot().is_some_and(|only| only != bot) {
            return Err(Rejection::new(
                ErrorCode::Forbidden,
                "these credentials are for another assistant",
            ));
        }
        let new = NewSession {
            tenant: caller.tenant,
            session: SessionId::generate(),
            bot,
            visitor: caller.visitor(),
        };
        self.0.sessions.open(new).await
    }

    /// A session, live. It ends once it had no device and nothing to do for the idle time-out; the handle
    /// is not live then, and another one is to be asked for.
    pub fn session(
        &self,
        tenant: TenantId,
        session: SessionId,
    ) -> Result<SessionHandle, Rejection> {
        self.0.sessions.get(tenant, session)
    }

    /// Tells live sessions of a bot that its configuration changed: the next message sees it, unless the
    /// database is slow.
    pub async fn bot_changed(&self, tenant: TenantId, bot: BotId) {
        if let Some(tenant) = self.0.node.tenants.find(tenant) {
            tenant.refresh_bot(bot).await;
        }
    }

    /// Sessions live on this node.
    pub fn session_count(&self) -> usize {
        self.0.sessions.count()
    }

    /// Lets replies finish for a while, then ends those that are left, and waits until every end is
    /// committed or the deadline has passed. Returns whether nothing was left.
    pub async fn drain(&self, grace: Duration, deadline: Duration) -> bool {
        let started = Instant::now();
        let mut told_at = None::<Instant>;
        let mut left = None;
        while self.0.node.busy.count() > 0 {
            let busy = self.0.node.busy.count();
            if started.elapsed() >= deadline {
                tracing::warn!(sessions = busy, "not everything ended in time");
                return false;
            }
            let is_due = told_at.is_none_or(|at| at.elapsed() >= DRAIN_INTERVAL);
            if started.elapsed() >= grace && is_due {
                told_at = Some(Instant::now());
                // Said when it changes: while storage is away it does not, for as long as a drain lasts.
                if left != Some(busy) {
                    left = Some(busy);
                    tracing::info!(sessions = busy, "ending the replies that are left");
                }
                for session in self.0.sessions.all() {
                    if !session.end_replies() {
                        tracing::debug!(session = %session.session(), "too busy to be told now");
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}
