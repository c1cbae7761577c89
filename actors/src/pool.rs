//! `LlmPool`: who may ask which upstream, and when.
//!
//! Started by the node, one, always. It owns the slots and the health of every upstream and the queue
//! of replies that wait for one. If it dies, replies that hold a slot go on; those that waited fail
//! with `unavailable`; the next pool starts with all slots free.

pub mod state;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::capacity;
use crate::ports::{Upstream, UpstreamError};
use crate::rejection::Rejection;
use crate::supervision::{Fatal, Permanent};
use state::{Admission, PoolState, Ticket, Waiting};

/// How often places in the queue are told to those who wait.
const PLACE_INTERVAL: Duration = Duration::from_millis(500);

/// The pool's settings.
#[derive(Clone)]
pub struct PoolConfig {
    /// Every configured upstream.
    pub upstreams: Vec<Arc<dyn Upstream>>,
    /// Route of bots that name none, by upstream name. Empty means every upstream, in order.
    pub default_route: Vec<String>,
    /// Most replies waiting at once.
    pub queue_len: usize,
    /// Longest wait for a slot.
    pub queue_wait: Duration,
}

/// Where a waiting reply stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// 1 is next.
    pub position: u32,
    /// Expected wait.
    pub eta: Duration,
}

/// How an attempt went, as far as the upstream's health goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered.
    Answered,
    /// It did not, and it was its fault.
    Faulty(Option<Duration>),
    /// Says nothing about it: cancelled, or our request was refused.
    Neutral,
}

impl From<UpstreamError> for Outcome {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Refused => Self::Neutral,
            UpstreamError::Busy(pause) => Self::Faulty(pause),
            _ => Self::Faulty(None),
        }
    }
}

/// A held slot of an upstream. Dropping it frees the slot.
pub(crate) struct Permit {
    upstream: Arc<dyn Upstream>,
    index: usize,
    generation: u64,
    outcome: Outcome,
    held_since: Instant,
    pool: PoolHandle,
}

impl Permit {
    pub(crate) fn upstream(&self) -> &Arc<dyn Upstream> {
        &self.upstream
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn release(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.actor.send_lifecycle(Release {
            index: self.index,
            generation: self.generation,
            outcome: self.outcome,
            held: self.held_since.elapsed(),
        });
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Acquire {
    route: Arc<[String]>,
    /// The upstream that failed just now: anyone else first.
    avoid: Option<usize>,
    place: watch::Sender<Option<Place>>,
    grant: oneshot::Sender<Result<Permit, Rejection>>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Release {
    index: usize,
    generation: u64,
    outcome: Outcome,
    held: Duration,
}

/// The way to the pool.
#[derive(Clone)]
pub(crate) struct PoolHandle {
    actor: Arc<Permanent<LlmPool>>,
    deadline: Duration,
}

impl PoolHandle {
    pub(crate) fn start(config: PoolConfig, fatal: Fatal) -> Self {
        let deadline = config.queue_wait;
        let generations = std::cell::Cell::new(0);
        // The pool hands out permits that lead back to it, so it needs its own handle once it exists.
        let own = Arc::new(std::sync::OnceLock::<std::sync::Weak<Permanent<LlmPool>>>::new());
        let slot = own.clone();
        let actor = Permanent::start("llm_pool", capacity::POOL_MAILBOX, fatal, move || {
            generations.set(generations.get() + 1);
            LlmPool::new(config.clone(), generations.get(), slot.clone())
        });
        // Set once, right here, before anybody can send the pool anything.
        let _already_set = own.set(Arc::downgrade(&actor));
        Self { actor, deadline }
    }

    /// Waits for a slot of an upstream of the route; `place` tells where one stands meanwhile.
    pub(crate) async fn acquire(
        &self,
        route: Arc<[String]>,
        avoid: Option<usize>,
        place: watch::Sender<Option<Place>>,
    ) -> Result<Permit, Rejection> {
        let (grant, granted) = oneshot::channel();
        if self
            .actor
            .try_send(Acquire {
                route,
                avoid,
                place,
                grant,
            })
            .is_err()
        {
            return Err(Rejection::overloaded());
        }
        match tokio::time::timeout(self.deadline, granted).await {
            Ok(Ok(result)) => result,
            Ok(Err(_pool_died)) => Err(Rejection::unavailable()),
            Err(_elapsed) => Err(Rejection::overloaded()),
        }
    }
}

struct Asking {
    place: watch::Sender<Option<Place>>,
    grant: oneshot::Sender<Result<Permit, Rejection>>,
}

/// The actor.
pub(crate) struct LlmPool {
    config: PoolConfig,
    state: PoolState,
    asking: HashMap<Ticket, Asking>,
    generation: u64,
    own: Arc<std::sync::OnceLock<std::sync::Weak<Permanent<LlmPool>>>>,
    telling_places: bool,
}

impl LlmPool {
    fn new(
        config: PoolConfig,
        generation: u64,
        own: Arc<std::sync::OnceLock<std::sync::Weak<Permanent<LlmPool>>>>,
    ) -> Self {
        let slots = config
            .upstreams
            .iter()
            .map(|upstream| upstream.slots())
            .collect();
        Self {
            state: PoolState::new(slots, config.queue_len),
            config,
            asking: HashMap::new(),
            generation,
            own,
            telling_places: false,
        }
    }

    /// A bot's route as indices; names that are not configured (any more) are skipped.
    fn resolve(&self, route: &[String]) -> Vec<usize> {
        let route = if route.is_empty() {
            &self.config.default_route
        } else {
            route
        };
        let upstreams = &self.config.upstreams;
        if route.is_empty() {
            return (0..upstreams.len()).collect();
        }
        route
            .iter()
            .filter_map(|name| {
                upstreams
                    .iter()
                    .position(|upstream| upstream.name() == name)
            })
            .collect()
    }

    fn grant(&mut self, ticket: Ticket, index: usize) {
        let Some(asking) = self.asking.remove(&ticket) else {
            self.state
                .release(Instant::now(), index, Outcome::Neutral, Duration::ZERO);
            return;
        };
        let pool = self.own.get().and_then(std::sync::Weak::upgrade);
        let (Some(upstream), Some(actor)) = (self.config.upstreams.get(index), pool) else {
            return;
        };
        let permit = Permit {
            upstream: upstream.clone(),
            index,
            generation: self.generation,
            outcome: Outcome::Neutral,
            held_since: Instant::now(),
            pool: PoolHandle {
                actor,
                deadline: self.config.queue_wait,
            },
        };
        // Whoever asked may be gone; the permit comes back and frees its slot as it drops.
        drop(asking.grant.send(Ok(permit)));
    }

    /// Gives free slots to those who wait, dropping whoever stopped waiting.
    fn grant_waiting(&mut self) {
        loop {
            let asking = &self.asking;
            let gone = |ticket| {
                asking
                    .get(&ticket)
                    .is_none_or(|a: &Asking| a.grant.is_closed())
            };
            match self.state.next_grant(Instant::now(), gone) {
                Some((ticket, index)) => self.grant(ticket, index),
                None => break,
            }
        }
        let state = &self.state;
        self.asking.retain(|ticket, _| state.is_waiting(*ticket));
        self.record();
    }

    fn tell_places_later(&mut self, ctx: &mut Context<Self>) {
        if self.telling_places || self.asking.is_empty() {
            return;
        }
        self.telling_places = true;
        ctx.run_later(PLACE_INTERVAL, |pool, ctx| {
            pool.telling_places = false;
            // A breaker may have closed by time alone: nobody releases anything then.
            pool.grant_waiting();
            for (ticket, place) in pool.state.places() {
                if let Some(asking) = pool.asking.get(&ticket) {
                    asking.place.send_if_modified(|told| {
                        let changed = told.map(|p| p.position) != Some(place.position);
                        if changed {
                            *told = Some(place);
                        }
                        changed
                    });
                }
            }
            pool.tell_places_later(ctx);
        });
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "gauges are floats; these numbers are small"
    )]
    fn record(&self) {
        metrics::gauge!("hubbub_llm_queue_length").set(self.state.waiting() as f64);
        metrics::gauge!("hubbub_llm_slots_busy").set(f64::from(self.state.busy()));
    }
}

impl Actor for LlmPool {
    type Context = Context<Self>;
}

impl Handler<Acquire> for LlmPool {
    type Result = ();

    fn handle(&mut self, ask: Acquire, ctx: &mut Self::Context) {
        let waiting = Waiting {
            route: self.resolve(&ask.route),
            avoid: ask.avoid,
        };
        let refused = match self.state.admit(Instant::now(), waiting) {
            Admission::Granted(ticket, index) => {
                self.asking.insert(
                    ticket,
                    Asking {
                        place: ask.place,
                        grant: ask.grant,
                    },
                );
                self.grant(ticket, index);
                self.record();
                return;
            }
            Admission::Queued(ticket, place) => {
                ask.place.send_replace(Some(place));
                self.asking.insert(
                    ticket,
                    Asking {
                        place: ask.place,
                        grant: ask.grant,
                    },
                );
                self.tell_places_later(ctx);
                self.record();
                return;
            }
            Admission::Full(eta) => Rejection {
                retry_after_ms: Some(
                    u64::try_from(eta.as_millis())
                        .unwrap_or(u64::MAX)
                        .max(1_000),
                ),
                ..Rejection::overloaded()
            },
            Admission::NoUpstream => Rejection::unavailable(),
        };
        metrics::counter!("hubbub_llm_refused_total").increment(1);
        drop(ask.grant.send(Err(refused)));
    }
}

impl Handler<Release> for LlmPool {
    type Result = ();

    fn handle(&mut self, release: Release, _: &mut Self::Context) {
        // A permit of a pool that died holds no slot of this one.
        if release.generation == self.generation {
            self.state
                .release(Instant::now(), release.index, release.outcome, release.held);
            self.grant_waiting();
        }
    }
}
