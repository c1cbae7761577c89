//! Tenant: limits, counts and bot configurations of one customer on this node.
//!
//! Started at the first connection or session of a tenant; stops by itself when the last handle is
//! gone. It is off the token path: limits are checked inline through shared counters, and sessions read
//! their bot's configuration from a watch. If it dies, the counts live on in the handles; bots are no
//! longer refreshed until the tenant is opened anew, at the next ask.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::prelude::*;
use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hubbub_protocol::{BotId, ErrorCode, TenantId};
use tokio::sync::{oneshot, watch};

use crate::capacity;
use crate::ports::{BotConfig, MessageStore};
use crate::rejection::Rejection;
use crate::supervision::spawn_watched;
use crate::visitors::Share;

/// How old a bot's configuration may be when another node changed it.
const BOT_REFRESH: Duration = Duration::from_secs(5);

/// How long whoever changed a bot waits for sessions to see it.
const REFRESH_WAIT: Duration = Duration::from_secs(2);

/// Limits of tenants whose record names none.
#[derive(Clone, Copy, Debug)]
pub struct DefaultLimits {
    /// Most connections at once.
    pub connections: u32,
    /// Most live sessions at once.
    pub sessions: u32,
    /// Messages a second.
    pub messages_per_second: u32,
}

/// A bot's configuration as it is now; `None` once it is deleted.
pub(crate) type BotWatch = watch::Receiver<Option<Arc<BotConfig>>>;

/// Opens tenants.
pub(crate) struct Tenants {
    live: DashMap<TenantId, Weak<Shared>>,
    store: Arc<dyn MessageStore>,
    defaults: DefaultLimits,
}

struct Shared {
    tenant: TenantId,
    connections: AtomicU32,
    max_connections: u32,
    sessions: AtomicU32,
    max_sessions: u32,
    messages: DefaultDirectRateLimiter,
    weight: u32,
    actor: Addr<Tenant>,
}

/// The way to a tenant; the tenant lives as long as one of these.
#[derive(Clone)]
pub struct TenantHandle(Arc<Shared>);

/// A connection that counts. Dropping it makes room for another.
pub struct ConnectionPermit {
    tenant: TenantHandle,
    /// Its visitor's, if it has one.
    share: Option<Share>,
}

/// A live session that counts. Dropping it makes room for another.
pub(crate) struct SessionPermit(TenantHandle);

impl Tenants {
    pub(crate) fn new(store: Arc<dyn MessageStore>, defaults: DefaultLimits) -> Self {
        Self {
            live: DashMap::new(),
            store,
            defaults,
        }
    }

    /// The tenant, started if need be.
    pub(crate) async fn open(&self, tenant: TenantId) -> Result<TenantHandle, Rejection> {
        if let Some(handle) = self.find(tenant) {
            return Ok(handle);
        }
        let limits = self.store.find_tenant(tenant).await?.ok_or(Rejection::new(
            ErrorCode::Unauthorized,
            "the tenant does not exist any more",
        ))?;
        // Several may have loaded at once; the first to get here starts it.
        let mut entry = self.live.entry(tenant).or_default();
        if let Some(shared) = entry.upgrade().filter(|shared| shared.actor.connected()) {
            return Ok(TenantHandle(shared));
        }
        let rate = limits
            .messages_per_second
            .unwrap_or(self.defaults.messages_per_second);
        let store = self.store.clone();
        let (actor, task) = spawn_watched(capacity::TENANT_MAILBOX, |_| Tenant {
            id: tenant,
            store,
            bots: HashMap::new(),
            refreshing: false,
        });
        actix_rt::spawn(async move {
            if task.await.is_err() {
                metrics::counter!("hubbub_actor_panics_total", "actor" => "tenant").increment(1);
                tracing::error!(%tenant, "a tenant's actor died; it is started again at the next ask");
            }
        });
        let shared = Arc::new(Shared {
            tenant,
            connections: AtomicU32::new(0),
            max_connections: limits.connections.unwrap_or(self.defaults.connections),
            sessions: AtomicU32::new(0),
            max_sessions: limits.sessions.unwrap_or(self.defaults.sessions),
            messages: RateLimiter::direct(Quota::per_second(
                NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN),
            )),
            weight: limits.weight.unwrap_or(1),
            actor,
        });
        *entry = Arc::downgrade(&shared);
        Ok(TenantHandle(shared))
    }

    /// The tenant, if it is live on this node.
    pub(crate) fn find(&self, tenant: TenantId) -> Option<TenantHandle> {
        self.live
            .get(&tenant)
            .and_then(|shared| shared.upgrade())
            .filter(|shared| shared.actor.connected())
            .map(TenantHandle)
    }

    /// Forgets tenants that are not live any more; called now and then by the lease keeper.
    pub(crate) fn sweep(&self) {
        self.live.retain(|_, shared| shared.strong_count() > 0);
    }
}

impl TenantHandle {
    /// Which tenant.
    pub fn tenant(&self) -> TenantId {
        self.0.tenant
    }

    /// Its share of the models beside others'.
    pub(crate) fn weight(&self) -> u32 {
        self.0.weight
    }

    /// Counts a connection, unless there are too many.
    pub fn admit_connection(&self) -> Result<ConnectionPermit, Rejection> {
        if take(&self.0.connections, self.0.max_connections) {
            Ok(ConnectionPermit {
                tenant: self.clone(),
                share: None,
            })
        } else {
            Err(Rejection::later(
                ErrorCode::RateLimited,
                "this account has too many connections open",
                5_000,
            ))
        }
    }

    /// Counts a message, unless they come too fast.
    pub(crate) fn admit_message(&self) -> Result<(), Rejection> {
        self.0.messages.check().map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            Rejection::too_fast("this account sends too fast", wait)
        })
    }

    pub(crate) fn admit_session(&self) -> Result<SessionPermit, Rejection> {
        if take(&self.0.sessions, self.0.max_sessions) {
            Ok(SessionPermit(self.clone()))
        } else {
            Err(Rejection::later(
                ErrorCode::RateLimited,
                "this account has too many live sessions",
                5_000,
            ))
        }
    }

    /// A bot's configuration, now and as it changes.
    pub(crate) async fn watch_bot(&self, bot: BotId) -> Result<BotWatch, Rejection> {
        let (answer, answered) = oneshot::channel();
        if self.0.actor.try_send(WatchBot { bot, answer }).is_err() {
            return Err(Rejection::overloaded());
        }
        match tokio::time::timeout(capacity::SESSION_DEADLINE, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Rejection::unavailable()),
        }
    }

    /// Reads a bot's configuration again, and waits until sessions see it. Losing this only means
    /// waiting for the next refresh.
    pub(crate) async fn refresh_bot(&self, bot: BotId) {
        let (done, refreshed) = oneshot::channel();
        if self.0.actor.try_send(RefreshBot { bot, done }).is_err() {
            tracing::debug!(%bot, "tenant is busy; the bot is refreshed later");
        } else if tokio::time::timeout(REFRESH_WAIT, refreshed).await.is_err() {
            tracing::debug!(%bot, "the bot is not refreshed yet");
        }
    }
}

impl ConnectionPermit {
    /// Counts as its visitor's, too.
    pub(crate) fn of_visitor(mut self, share: Option<Share>) -> Self {
        self.share = share;
        self
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let count = &self.tenant.0.connections;
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SessionPermit {
    pub(crate) fn tenant(&self) -> &TenantHandle {
        &self.0
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.0.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

fn take(count: &AtomicU32, max: u32) -> bool {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now < max).then_some(now + 1)
        })
        .is_ok()
}

#[derive(Message)]
#[rtype(result = "()")]
struct WatchBot {
    bot: BotId,
    answer: oneshot::Sender<Result<BotWatch, Rejection>>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct RefreshBot {
    bot: BotId,
    /// Dropped when it is done: nothing has to be said.
    done: oneshot::Sender<()>,
}

/// The actor.
struct Tenant {
    id: TenantId,
    store: Arc<dyn MessageStore>,
    bots: HashMap<BotId, watch::Sender<Option<Arc<BotConfig>>>>,
    refreshing: bool,
}

impl Tenant {
    fn load(
        &self,
        bot: BotId,
    ) -> impl Future<Output = Result<Option<BotConfig>, Rejection>> + use<> {
        let (store, tenant) = (self.store.clone(), self.id);
        async move { store.find_bot(tenant, bot).await.map_err(Rejection::from) }
    }

    fn refresh(&mut self, bot: BotId, done: Option<oneshot::Sender<()>>, ctx: &mut Context<Self>) {
        let refreshed = self
            .load(bot)
            .into_actor(self)
            .map(move |loaded, tenant, _| {
                if let (Ok(loaded), Some(watch)) = (loaded, tenant.bots.get(&bot)) {
                    watch.send_if_modified(|current| {
                        let changed = current.as_deref() != loaded.as_ref();
                        if changed {
                            *current = loaded.map(Arc::new);
                        }
                        changed
                    });
                }
                drop(done);
            });
        ctx.spawn(refreshed);
    }

    /// Bots that sessions watch are read again while there are any; the chain of timers ends with
    /// them, so that it does not keep the tenant alive.
    fn refresh_later(&mut self, ctx: &mut Context<Self>) {
        if self.refreshing {
            return;
        }
        self.refreshing = true;
        ctx.run_later(BOT_REFRESH, |tenant, ctx| {
            tenant.refreshing = false;
            tenant.bots.retain(|_, watch| watch.receiver_count() > 0);
            let watched: Vec<BotId> = tenant.bots.keys().copied().collect();
            for bot in watched {
                tenant.refresh(bot, None, ctx);
            }
            if !tenant.bots.is_empty() && ctx.connected() {
                tenant.refresh_later(ctx);
            }
        });
    }
}

impl Actor for Tenant {
    type Context = Context<Self>;
}

impl Handler<WatchBot> for Tenant {
    type Result = ();

    fn handle(&mut self, ask: WatchBot, ctx: &mut Self::Context) {
        if let Some(watch) = self.bots.get(&ask.bot) {
            drop(ask.answer.send(Ok(watch.subscribe())));
            return;
        }
        let loaded = self
            .load(ask.bot)
            .into_actor(self)
            .map(move |loaded, tenant, ctx| {
                let answer = loaded
                    .and_then(|config| config.ok_or(Rejection::no_bot()))
                    .map(|config| {
                        let start = || watch::Sender::new(Some(Arc::new(config)));
                        tenant.bots.entry(ask.bot).or_insert_with(start).subscribe()
                    });
                drop(ask.answer.send(answer));
                if !tenant.bots.is_empty() {
                    tenant.refresh_later(ctx);
                }
            });
        ctx.spawn(loaded);
    }
}

impl Handler<RefreshBot> for Tenant {
    type Result = ();

    fn handle(&mut self, RefreshBot { bot, done }: RefreshBot, ctx: &mut Self::Context) {
        if self.bots.contains_key(&bot) {
            self.refresh(bot, Some(done), ctx);
        }
    }
}
