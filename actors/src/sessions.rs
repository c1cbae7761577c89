//! The registry: finds a session's actor, or starts it.
//!
//! It holds weak addresses only, so a session that nobody uses can end; it is taken out as its task ends,
//! whatever ended it. One actor per session is guaranteed by the map's entry lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::WeakAddr;
use actix::prelude::*;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use hubbub_protocol::{EndedReply, ErrorCode, SessionId, TenantId};
use tokio::time::Instant;

use crate::capacity;
use crate::node::Node;
use crate::places::SessionPlaces;
use crate::ports::NewSession;
use crate::quarantine::Quarantine;
use crate::rejection::Rejection;
use crate::session::{ReplyRecovered, Session, SessionHandle};
use crate::supervision::spawn_watched;

struct Registered {
    address: WeakAddr<Session>,
    generation: u64,
}

/// The tenant is part of the key: who asks for another tenant's session gets an actor that finds nothing,
/// and stands in nobody's way.
type Key = (TenantId, SessionId);

/// Pause before a session that died is built again; doubles each time it dies at once again.
const REBUILD_PAUSE: Duration = Duration::from_millis(50);
const REBUILD_PAUSE_MAX: Duration = Duration::from_mins(1);

/// A session that lived this long has recovered: its deaths are counted afresh.
const DEATHS_FORGIVEN_AFTER: Duration = Duration::from_mins(1);

/// Every live session of this node.
pub(crate) struct Sessions {
    live: DashMap<Key, Registered>,
    generations: AtomicU64,
    places: SessionPlaces,
    quarantine: Arc<Quarantine>,
    node: Arc<Node>,
}

/// A session's entry in the registry, taken out when dropped: as the actor's task ends, whatever ended it.
struct Registration {
    sessions: Weak<Sessions>,
    key: Key,
    generation: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(sessions) = self.sessions.upgrade() {
            // A successor may stand there already.
            sessions
                .live
                .remove_if(&self.key, |_, r| r.generation == self.generation);
            sessions.shrink();
        }
    }
}

impl Sessions {
    pub(crate) fn new(node: Arc<Node>, max: usize) -> Arc<Self> {
        Arc::new(Self {
            live: DashMap::new(),
            generations: AtomicU64::new(0),
            places: SessionPlaces::new(max),
            quarantine: Arc::default(),
            node,
        })
    }

    /// Creates a session in storage. Its actor starts when somebody asks for it.
    pub(crate) async fn open(&self, new: NewSession) -> Result<SessionId, Rejection> {
        Ok(self.node.store.open_session(new).await?.session)
    }

    /// The session's actor, started on the current worker if it is not live. Whether the session
    /// exists is for the actor to find out; everything asked of it is answered accordingly.
    pub(crate) fn get(
        self: &Arc<Self>,
        tenant: TenantId,
        session: SessionId,
    ) -> Result<SessionHandle, Rejection> {
        self.get_or_start(tenant, session, 0)
    }

    fn get_or_start(
        self: &Arc<Self>,
        tenant: TenantId,
        session: SessionId,
        deaths: u32,
    ) -> Result<SessionHandle, Rejection> {
        let handle = |address| {
            Ok(SessionHandle::new(
                address,
                session,
                self.quarantine.clone(),
            ))
        };
        match self.live.entry((tenant, session)) {
            Entry::Occupied(mut entry) => {
                if let Some(address) = live(entry.get()) {
                    return handle(address);
                }
                let (registered, address) = self.start(tenant, session, deaths)?;
                entry.insert(registered);
                handle(address)
            }
            Entry::Vacant(entry) => {
                let (registered, address) = self.start(tenant, session, deaths)?;
                entry.insert(registered);
                handle(address)
            }
        }
    }

    /// Sessions live on this node.
    pub(crate) fn count(&self) -> usize {
        self.places.taken()
    }

    /// Every live session, for the drain.
    pub(crate) fn all(self: &Arc<Self>) -> Vec<SessionHandle> {
        let of = |entry: dashmap::mapref::multiple::RefMulti<'_, Key, Registered>| {
            live(entry.value())
                .map(|address| SessionHandle::new(address, entry.key().1, self.quarantine.clone()))
        };
        self.live.iter().filter_map(of).collect()
    }

    /// Tells a session, if it is live, that a reply was ended whose node died.
    pub(crate) fn tell_ended(&self, tenant: TenantId, session: SessionId, ended: EndedReply) {
        let address = self
            .live
            .get(&(tenant, session))
            .and_then(|registered| live(registered.value()));
        let Some(address) = address else { return };
        if address.try_send(ReplyRecovered(ended)).is_err() {
            tracing::warn!(%session, "devices were not told of an orphaned reply's end");
        }
    }

    fn start(
        self: &Arc<Self>,
        tenant: TenantId,
        session: SessionId,
        deaths: u32,
    ) -> Result<(Registered, Addr<Session>), Rejection> {
        let place = self.places.take().ok_or(Rejection::later(
            ErrorCode::Overloaded,
            "this server has too many live sessions",
            5_000,
        ))?;
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let registration = Registration {
            sessions: Arc::downgrade(self),
            key: (tenant, session),
            generation,
        };
        let node = self.node.clone();
        let (address, task) = spawn_watched(capacity::SESSION_MAILBOX, |_| {
            Session::new(tenant, session, node, place)
        });
        self.watch(registration, task, deaths);
        Ok((
            Registered {
                address: address.downgrade(),
                generation,
            },
            address,
        ))
    }

    /// A session that panicked is built again at once: replies it had written must get their end, and
    /// its devices are about to join again. One that keeps dying is built again ever more seldom.
    fn watch(
        self: &Arc<Self>,
        registration: Registration,
        task: tokio::task::JoinHandle<()>,
        deaths: u32,
    ) {
        let sessions = Arc::downgrade(self);
        let (tenant, session) = registration.key;
        let started = Instant::now();
        actix_rt::spawn(async move {
            let ended = task.await;
            drop(registration);
            if ended.is_ok() {
                return;
            }
            metrics::counter!("hubbub_actor_panics_total", "actor" => "session").increment(1);
            let deaths = if started.elapsed() < DEATHS_FORGIVEN_AFTER {
                deaths
            } else {
                0
            };
            let pause = REBUILD_PAUSE * 2_u32.pow(deaths.min(16));
            tracing::error!(%session, deaths, "a session's actor died; it is built again from storage");
            tokio::time::sleep(pause.min(REBUILD_PAUSE_MAX)).await;
            let Some(sessions) = sessions.upgrade() else {
                return;
            };
            match sessions.get_or_start(tenant, session, deaths + 1) {
                Ok(rebuilt) => rebuilt.reconcile(),
                Err(rejection) => {
                    tracing::error!(%session, %rejection, "the session could not be built again");
                }
            }
        });
    }

    /// Gives memory back after a rush: the map's tables only grow by themselves.
    fn shrink(&self) {
        let (used, held) = (self.live.len(), self.live.capacity());
        if held > 16_384 && used < held / 8 {
            self.live.shrink_to_fit();
        }
    }
}

fn live(registered: &Registered) -> Option<Addr<Session>> {
    registered.address.upgrade().filter(Addr::connected)
}
