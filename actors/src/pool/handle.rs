//! The way to the pool, and what it hands out: the right to have one request running at an upstream.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::{SessionId, Usage};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::health::{Returned, Used};
use super::queue::{Cost, Progress};
use super::request::Request;
use super::{LlmPool, Place, PoolConfig, Route, count_refused};
use crate::capacity;
use crate::ports::{Upstream, UpstreamError};
use crate::rejection::Rejection;
use crate::supervision::{Fatal, Permanent};

/// A pool that is too busy to say so within this time has nothing to spare.
const SPARE_WAIT: Duration = Duration::from_millis(100);

/// How an attempt went, as far as the upstream's health goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It wrote an answer.
    Answered,
    /// It took the request, and ended it for a reason that lies in the request.
    Responded,
    /// It failed, and may fail others too.
    Faulty,
    /// It has too much to do; perhaps it said for how long.
    Busy(Option<Duration>),
    /// It takes no request like this one, whatever it asks.
    Misconfigured,
    /// Nothing is known of it: nobody waited for its answer.
    Neutral,
}

impl From<UpstreamError> for Verdict {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Refused | UpstreamError::Filtered => Self::Responded,
            UpstreamError::Misconfigured => Self::Misconfigured,
            UpstreamError::Busy(pause) => Self::Busy(pause),
            UpstreamError::Unreachable
            | UpstreamError::TimedOut
            | UpstreamError::Failed
            | UpstreamError::Cut
            | UpstreamError::Garbage => Self::Faulty,
        }
    }
}

/// A held slot of an upstream. Dropping it frees the slot.
pub(crate) struct Permit {
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) index: usize,
    pub(super) generation: u64,
    pub(super) returned: Returned,
    pub(super) progress: Progress,
    pub(super) held_since: Instant,
    pub(super) pool: PoolHandle,
}

impl Permit {
    pub(crate) fn upstream(&self) -> &Arc<dyn Upstream> {
        &self.upstream
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Tells that the upstream answers while the answer goes on: others need not wait for its end.
    pub(crate) fn answers(&self) {
        let learn = Learn {
            index: self.index,
            generation: self.generation,
            returned: Returned {
                verdict: Verdict::Answered,
                ..self.returned.clone()
            },
            wait: self.held_since.elapsed(),
        };
        // If the pool is too busy for it, it learns it from the end of the answer.
        drop(self.pool.actor.try_send(learn));
    }

    /// The upstream has read the prompt.
    pub(crate) fn note_input(&mut self, tokens: u64) {
        if self.returned.used.input == 0 {
            self.returned.used.input = tokens;
            self.progress.add(Cost::of(tokens, 0));
        }
    }

    /// The upstream has written a piece of the answer.
    pub(crate) fn note_output(&mut self, tokens: u64) {
        self.returned.used.output += tokens;
        self.progress.add(Cost::of(0, tokens));
    }

    /// What the upstream says that it took.
    pub(crate) fn note_usage(&mut self, usage: Usage) {
        self.returned.used = Used {
            input: usage.input_tokens,
            output: usage.output_tokens,
        };
    }

    pub(crate) fn release(mut self, verdict: Verdict) {
        self.returned.verdict = verdict;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.actor.send_lifecycle(Release {
            index: self.index,
            generation: self.generation,
            returned: self.returned.clone(),
            held: self.held_since.elapsed(),
        });
    }
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Acquire {
    pub(super) request: Request,
    pub(super) place: watch::Sender<Option<Place>>,
    pub(super) grant: oneshot::Sender<Result<Permit, Rejection>>,
}

/// Asks for a slot that is free now and that nobody waits for.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct AcquireSpare {
    pub(super) request: Request,
    pub(super) grant: oneshot::Sender<Permit>,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Release {
    pub(super) index: usize,
    pub(super) generation: u64,
    pub(super) returned: Returned,
    pub(super) held: Duration,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Learn {
    pub(super) index: usize,
    pub(super) generation: u64,
    pub(super) returned: Returned,
    /// From the request to the first word.
    pub(super) wait: Duration,
}

/// The pool's own handle, which it finds once it exists.
pub(super) type OwnHandle = Arc<OnceLock<Weak<Permanent<LlmPool>>>>;

/// The way to the pool.
#[derive(Clone)]
pub(crate) struct PoolHandle {
    pub(super) actor: Arc<Permanent<LlmPool>>,
    pub(super) config: Arc<PoolConfig>,
}

impl PoolHandle {
    pub(crate) fn start(config: PoolConfig, fatal: Fatal) -> Self {
        let config = Arc::new(config);
        let generations = std::cell::Cell::new(0);
        // The pool hands out permits that lead back to it, so it needs its own handle once it exists.
        let own = OwnHandle::default();
        let (slot, of_actor) = (own.clone(), config.clone());
        let actor = Permanent::start("llm_pool", capacity::POOL_MAILBOX, fatal, move || {
            generations.set(generations.get() + 1);
            LlmPool::new(of_actor.clone(), generations.get(), slot.clone())
        });
        // Set once, right here, before anybody can send the pool anything.
        let _already_set = own.set(Arc::downgrade(&actor));
        Self { actor, config }
    }

    /// Longest wait for a slot.
    pub(crate) fn queue_wait(&self) -> Duration {
        self.config.queue_wait
    }

    /// Longest wait of a reply for the first sign of life, over all its attempts.
    pub(crate) fn first_sign_wait(&self) -> Duration {
        self.config.first_sign_wait
    }

    /// How long an upstream may be silent before another is asked too; `None` for never.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        self.config.hedge_after
    }

    /// The upstreams of a bot's route, best first for this session, which one of them has read last.
    pub(crate) fn route(
        &self,
        names: &[String],
        session: SessionId,
        read_by: Option<&str>,
    ) -> Route {
        let route = self.config.resolve(names);
        Route::of_session(session, read_by, &route, &self.config.upstreams)
    }

    /// Tokens that an upstream can read and write.
    pub(crate) fn window(&self, index: usize) -> u32 {
        let upstream = self.config.upstreams.get(index);
        upstream.map_or(0, |upstream| upstream.context_tokens())
    }

    /// Names of these upstreams, each with the model that answers where `model` is asked for.
    pub(crate) fn models(&self, route: &[usize], model: Option<&str>) -> Vec<(String, String)> {
        let upstreams = route
            .iter()
            .filter_map(|index| self.config.upstreams.get(*index));
        let named = upstreams.map(|upstream| {
            let model = model.unwrap_or_else(|| upstream.default_model());
            (upstream.name().to_owned(), model.to_owned())
        });
        named.collect()
    }

    /// A slot that is free now and that nobody waits for, if there is one.
    pub(crate) async fn acquire_spare(&self, request: Request) -> Option<Permit> {
        let (grant, granted) = oneshot::channel();
        let sent = self.actor.try_send(AcquireSpare { request, grant });
        sent.ok()?;
        tokio::time::timeout(SPARE_WAIT, granted).await.ok()?.ok()
    }

    /// Waits for a slot of an upstream of the route, but not beyond `until`; `place` tells where one
    /// stands meanwhile.
    pub(crate) async fn acquire(
        &self,
        request: Request,
        until: Instant,
        place: watch::Sender<Option<Place>>,
    ) -> Result<Permit, Rejection> {
        let (grant, granted) = oneshot::channel();
        let places = place.subscribe();
        let sent = self.actor.try_send(Acquire {
            request,
            place,
            grant,
        });
        if sent.is_err() {
            return Err(Rejection::overloaded());
        }
        match tokio::time::timeout_at(until, granted).await {
            Ok(Ok(result)) => result,
            Ok(Err(_pool_died)) => Err(Rejection::unavailable()),
            Err(_elapsed) => {
                count_refused("waited");
                // Too many wait, or nobody answers.
                let is_paused = places.borrow().is_some_and(|place| place.paused);
                Err(if is_paused {
                    Rejection::unavailable()
                } else {
                    Rejection::overloaded()
                })
            }
        }
    }
}
