//! `LlmPool`: who may ask which upstream, and when.
//!
//! Started by the node, one, always. It owns the slots and the health of every upstream and the queue
//! of replies that wait for one. If it dies, replies that hold a slot go on; those that waited fail
//! with `unavailable`; the next pool starts with all slots free.

mod asking;
mod classes;
mod handle;
mod health;
mod limit;
mod prediction;
mod queue;
mod request;
mod route;
pub mod state;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::SessionId;
use tokio::time::Instant;

pub use asking::Place;
pub(crate) use handle::{Permit, PoolHandle, Verdict};
pub(crate) use request::Request;
pub(crate) use route::Route;

use crate::ports::Upstream;
use crate::rejection::Rejection;
use asking::{Asking, PLACE_INTERVAL};
use handle::{Acquire, AcquireSpare, Learn, OwnHandle, Release};
use health::{Change, Returned, Used};
use request::RequestId;
use state::{Admitted, PoolState};

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
    /// Longest wait of a reply for an upstream's first sign of life, over all its attempts, from the
    /// first slot it is given.
    pub first_sign_wait: Duration,
    /// An upstream that gave no sign of life for so long is not waited for alone; `None` for never.
    pub hedge_after: Option<Duration>,
}

impl PoolConfig {
    /// The upstreams of a route, by index, best first; names that are not configured (any more) are skipped.
    fn resolve(&self, route: &[String]) -> Vec<usize> {
        let route = if route.is_empty() {
            &self.default_route
        } else {
            route
        };
        if route.is_empty() {
            return (0..self.upstreams.len()).collect();
        }
        let of_name = |name: &String| self.upstreams.iter().position(|up| up.name() == name);
        route.iter().filter_map(of_name).collect()
    }
}

/// The actor.
pub(crate) struct LlmPool {
    config: Arc<PoolConfig>,
    state: PoolState,
    asking: HashMap<RequestId, Asking>,
    generation: u64,
    own: OwnHandle,
    telling_places: bool,
}

impl LlmPool {
    fn new(config: Arc<PoolConfig>, generation: u64, own: OwnHandle) -> Self {
        let slots = config
            .upstreams
            .iter()
            .map(|upstream| upstream.slots())
            .collect();
        let pool = Self {
            state: PoolState::new(slots, config.queue_len),
            config,
            asking: HashMap::new(),
            generation,
            own,
            telling_places: false,
        };
        pool.record();
        pool
    }

    fn grant(&mut self, id: RequestId, index: usize) {
        let Some(asking) = self.asking.remove(&id) else {
            return;
        };
        metrics::histogram!("hubbub_llm_wait_seconds", "class" => asking.class.as_str())
            .record(asking.since.elapsed());
        if let Some(permit) = self.permit(id, index, asking.session, asking.model) {
            // Whoever asked may be gone; the permit comes back and frees its slot as it drops.
            drop(asking.grant.send(Ok(permit)));
        }
    }

    /// The right to a slot that is occupied. The slot is freed again if there is nobody to give it back to.
    fn permit(
        &mut self,
        id: RequestId,
        index: usize,
        session: SessionId,
        model: Option<String>,
    ) -> Option<Permit> {
        let returned = Returned {
            id,
            session,
            model,
            verdict: Verdict::Neutral,
            used: Used::default(),
        };
        let actor = self.own.get().and_then(Weak::upgrade);
        let (Some(upstream), Some(actor)) = (self.config.upstreams.get(index), actor) else {
            let now = Instant::now();
            self.state.release(now, index, &returned, Duration::ZERO);
            return None;
        };
        Some(Permit {
            upstream: upstream.clone(),
            index,
            generation: self.generation,
            returned,
            progress: self.state.progress(id),
            held_since: Instant::now(),
            pool: PoolHandle {
                actor,
                config: self.config.clone(),
            },
        })
    }

    /// Gives free slots to those who wait, dropping whoever stopped waiting.
    fn grant_waiting(&mut self) {
        loop {
            let asking = &self.asking;
            let gone = |id| asking.get(&id).is_none_or(|a: &Asking| a.grant.is_closed());
            match self.state.next_grant(Instant::now(), gone) {
                Some((id, index)) => self.grant(id, index),
                None => break,
            }
        }
        let state = &self.state;
        self.asking.retain(|id, _| state.is_waiting(*id));
        self.record();
    }

    /// Tells those who made room for others.
    fn refuse_shed(&mut self) {
        for id in self.state.take_shed() {
            let Some(asking) = self.asking.remove(&id) else {
                continue;
            };
            count_refused("shed");
            let eta = asking.place.borrow().map(|place| place.eta);
            // Whoever asked may be gone.
            drop(asking.grant.send(Err(full(eta.unwrap_or_default()))));
        }
    }

    fn tell_places_later(&mut self, ctx: &mut Context<Self>) {
        if self.telling_places || self.asking.is_empty() {
            return;
        }
        self.telling_places = true;
        ctx.run_later(PLACE_INTERVAL, |pool, ctx| {
            pool.telling_places = false;
            // A pause may have ended by time alone: nobody releases anything then.
            pool.grant_waiting();
            let now = Instant::now();
            for (id, place) in pool.state.places(now) {
                if let Some(asking) = pool.asking.get_mut(&id) {
                    asking.tell(now, place);
                }
            }
            pool.tell_places_later(ctx);
        });
    }

    fn tell_change(&self, index: usize, change: Option<Change>) {
        let (Some(change), Some(upstream)) = (change, self.config.upstreams.get(index)) else {
            return;
        };
        let upstream = upstream.name();
        match change {
            Change::Opened => {
                tracing::warn!(upstream, "the upstream keeps failing and pauses");
            }
            Change::Closed => tracing::info!(upstream, "the upstream takes requests again"),
            Change::SetAside => tracing::info!(
                upstream,
                "others are asked before this upstream, because its set-up is wrong"
            ),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "gauges are floats; these numbers are small"
    )]
    fn record(&self) {
        for (class, depth) in self.state.depths() {
            metrics::gauge!("hubbub_llm_queue_length", "class" => class.as_str()).set(depth as f64);
        }
        let now = Instant::now();
        let upstreams = self.config.upstreams.iter();
        for (upstream, health) in upstreams.zip(self.state.upstreams()) {
            let name = || upstream.name().to_owned();
            metrics::gauge!("hubbub_llm_slots", "upstream" => name()).set(health.limit());
            metrics::gauge!("hubbub_llm_slots_busy", "upstream" => name()).set(health.busy());
            metrics::gauge!("hubbub_llm_breaker_open", "upstream" => name())
                .set(f64::from(u8::from(health.is_open())));
            metrics::gauge!("hubbub_llm_set_aside", "upstream" => name())
                .set(f64::from(u8::from(health.is_set_aside_for_any(now))));
        }
    }
}

/// Counts one who gets no slot.
fn count_refused(reason: &'static str) {
    metrics::counter!("hubbub_llm_refused_total", "reason" => reason).increment(1);
}

/// There is no room to wait; this long until there may be.
fn full(eta: Duration) -> Rejection {
    let wait_ms = u64::try_from(eta.as_millis()).unwrap_or(u64::MAX);
    Rejection {
        retry_after_ms: Some(wait_ms.max(1_000)),
        ..Rejection::overloaded()
    }
}

impl Actor for LlmPool {
    type Context = Context<Self>;
}

impl Handler<Acquire> for LlmPool {
    type Result = ();

    fn handle(&mut self, ask: Acquire, ctx: &mut Self::Context) {
        let Acquire {
            request,
            place,
            grant,
        } = ask;
        if self.state.waiting() >= self.config.queue_len {
            // Whoever left the line must not keep others out of it.
            self.grant_waiting();
        }
        let now = Instant::now();
        let mut asking = Asking {
            since: now,
            class: request.class,
            session: request.session,
            model: request.model.clone(),
            place,
            promised: now,
            told_at: now,
            grant,
        };
        let admitted = self.state.admit(now, request);
        self.refuse_shed();
        let refused = match admitted {
            Admitted::Granted(id, index) => {
                self.asking.insert(id, asking);
                self.grant(id, index);
                self.record();
                return;
            }
            Admitted::Queued(id, place) => {
                asking.tell(now, place);
                self.asking.insert(id, asking);
                self.tell_places_later(ctx);
                self.record();
                return;
            }
            Admitted::Full(eta) => {
                count_refused("full");
                full(eta)
            }
            Admitted::NoUpstream => {
                count_refused("no_upstream");
                Rejection::unavailable()
            }
        };
        drop(asking.grant.send(Err(refused)));
    }
}

impl Handler<AcquireSpare> for LlmPool {
    type Result = ();

    fn handle(&mut self, AcquireSpare { request, grant }: AcquireSpare, _: &mut Self::Context) {
        let spare = self.state.admit_at_once(Instant::now(), &request);
        if let Some((id, index)) = spare
            && let Some(permit) = self.permit(id, index, request.session, request.model)
        {
            // Whoever asked may be gone; the permit comes back and frees its slot as it drops.
            drop(grant.send(permit));
        }
        self.record();
    }
}

impl Handler<Release> for LlmPool {
    type Result = ();

    fn handle(&mut self, release: Release, _: &mut Self::Context) {
        // A permit of a pool that died holds no slot of this one.
        if release.generation == self.generation {
            let Release { index, held, .. } = release;
            let now = Instant::now();
            let change = self.state.release(now, index, &release.returned, held);
            self.tell_change(index, change);
            self.grant_waiting();
        }
    }
}

impl Handler<Learn> for LlmPool {
    type Result = ();

    fn handle(&mut self, learn: Learn, _: &mut Self::Context) {
        if learn.generation == self.generation {
            let change = self
                .state
                .learn(Instant::now(), learn.index, &learn.returned, learn.wait);
            self.tell_change(learn.index, change);
            if change.is_some() {
                self.grant_waiting();
            }
        }
    }
}
