//! The pool's rules, without clocks or channels: who gets which upstream, and who waits for one.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use hubbub_protocol::{BotId, ReplyClass};
use tokio::time::Instant;

use super::classes::Classes;
use super::health::{Change, Health, Returned};
use super::prediction::Predictions;
use super::queue::{Charge, Cost, Progress, Usable};
use super::request::{Request, RequestId};
use super::{Place, Verdict};

/// Assumed length of an answer until one has been seen.
const FIRST_GUESS: Duration = Duration::from_secs(5);

/// Nobody is told a shorter wait for a pause to end: the queue is checked that often.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// The answer to somebody who asks for a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Admitted {
    /// Go ahead with this upstream.
    Granted(RequestId, usize),
    /// Wait here.
    Queued(RequestId, Place),
    /// The queue is full; this long until there may be room.
    Full(Duration),
    /// No upstream of the route exists.
    NoUpstream,
}

/// Slots, health and queue.
#[derive(Debug)]
pub(crate) struct PoolState {
    upstreams: Vec<Health>,
    queue: Classes,
    queue_len: usize,
    /// Slots that are held, with what was charged for them.
    held_for: HashMap<RequestId, (Charge, BotId)>,
    predictions: Predictions,
    /// Those who were to wait and made room for others.
    shed: Vec<RequestId>,
    next_id: u64,
    /// Moving average of how long a slot is held.
    held: Duration,
}

impl PoolState {
    pub(crate) fn new(slots: Vec<RangeInclusive<u32>>, queue_len: usize) -> Self {
        Self {
            upstreams: slots.into_iter().map(Health::new).collect(),
            queue: Classes::default(),
            queue_len,
            held_for: HashMap::new(),
            predictions: Predictions::default(),
            shed: Vec::new(),
            next_id: 0,
            held: FIRST_GUESS,
        }
    }

    pub(crate) fn admit(&mut self, now: Instant, request: Request) -> Admitted {
        if request.route.is_empty() {
            return Admitted::NoUpstream;
        }
        if let Some((id, index)) = self.admit_at_once(now, &request) {
            return Admitted::Granted(id, index);
        }
        if self.queue.len() >= self.queue_len {
            // Who has more than its share makes room.
            let shed = self.queue.shed_for(&request);
            match shed {
                Some(id) => self.shed.push(id),
                None => {
                    return Admitted::Full(self.place(now, self.queue.len(), &request.route).eta);
                }
            }
        }
        let ahead = self.queue.ahead_of(&request);
        let place = self.place(now, ahead, &request.route);
        let cost = self.predictions.cost(&request);
        let id = self.id();
        self.queue.push(id, request, cost);
        Admitted::Queued(id, place)
    }

    /// Gives a slot that is free. Nobody overtakes: it goes to the queue first, unless nobody in it can use it.
    pub(crate) fn admit_at_once(
        &mut self,
        now: Instant,
        request: &Request,
    ) -> Option<(RequestId, usize)> {
        // Looked up in this order, because a queue is long only while nothing is free.
        let index = self.pick(now, request)?;
        if self.anyone_could_use(now, &request.route) {
            return None;
        }
        let id = self.id();
        let cost = self.predictions.cost(request);
        let charge = self.queue.serve_at_once(id, request, cost);
        self.occupy(now, id, index, (charge, request.bot));
        Some((id, index))
    }

    fn id(&mut self) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        id
    }

    /// Those who made room for others since the last time, and wait no more.
    pub(crate) fn take_shed(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.shed)
    }

    /// Frees a slot and learns from how it went.
    pub(crate) fn release(
        &mut self,
        now: Instant,
        index: usize,
        returned: &Returned,
        held: Duration,
    ) -> Option<Change> {
        if let Some((charge, bot)) = self.held_for.remove(&returned.id) {
            let used = returned.used;
            let actual = Cost::of(used.input, used.output);
            self.queue.settle(&charge, actual);
            if returned.verdict == Verdict::Answered {
                self.predictions.learn(bot, used.output);
            }
        }
        if returned.verdict == Verdict::Answered {
            self.held = (self.held * 7 + held) / 8;
        }
        self.upstreams.get_mut(index)?.release(now, returned)
    }

    /// Learns from an attempt that goes on, and whose answer began after so long.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        index: usize,
        returned: &Returned,
        wait: Duration,
    ) -> Option<Change> {
        let upstream = self.upstreams.get_mut(index)?;
        upstream.first_word(wait);
        upstream.learn(now, returned)
    }

    /// Takes the first of the queue for whom a slot is free; those who are `gone` leave it unserved.
    pub(crate) fn next_grant(
        &mut self,
        now: Instant,
        gone: impl Fn(RequestId) -> bool,
    ) -> Option<(RequestId, usize)> {
        // Also while no slot is free: whoever left must not keep others out of the queue.
        self.queue.retain(|id| !gone(id));
        if !self.upstreams.iter().any(|upstream| upstream.is_free(now)) {
            return None;
        }
        let mut queue = std::mem::take(&mut self.queue);
        let next = queue.next(|request| {
            let index = self.pick(now, request)?;
            Some(Usable {
                what: (index, request.bot),
                is_home: self.is_home(now, request, index),
            })
        });
        self.queue = queue;
        let (id, (index, bot), charge) = next?;
        self.occupy(now, id, index, (charge, bot));
        Some((id, index))
    }

    /// Where to note how much of what was granted is done.
    pub(crate) fn progress(&self, id: RequestId) -> Progress {
        let held = self.held_for.get(&id);
        held.map(|(charge, _)| charge.progress())
            .unwrap_or_default()
    }

    pub(crate) fn is_waiting(&self, id: RequestId) -> bool {
        self.queue.contains(id)
    }

    pub(crate) fn places(&self, now: Instant) -> impl Iterator<Item = (RequestId, Place)> {
        let in_order = self.queue.in_order().enumerate();
        in_order.map(move |(at, (id, request))| (id, self.place(now, at, &request.route)))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many of each class wait.
    pub(crate) fn depths(&self) -> impl Iterator<Item = (ReplyClass, usize)> {
        self.queue.depths()
    }

    pub(crate) fn upstreams(&self) -> &[Health] {
        &self.upstreams
    }

    fn anyone_could_use(&self, now: Instant, route: &[usize]) -> bool {
        self.queue.requests().any(|other| {
            self.pick(now, other)
                .is_some_and(|index| route.contains(&index))
        })
    }

    /// Of those that are free, the one that failed this reply least; then the first of the route. One
    /// whose set-up is known to be wrong is asked only when no other is in service.
    fn pick(&self, now: Instant, request: &Request) -> Option<usize> {
        let model = request.model.as_deref();
        let is_set_aside = |upstream: &Health| upstream.is_set_aside(model, now);
        let in_service = |upstream: &Health| !upstream.is_open() && !is_set_aside(upstream);
        let mut route = request.route.iter();
        let any_in_service = route.any(|index| self.upstreams.get(*index).is_some_and(in_service));
        let usable = |index: &usize| {
            self.upstreams.get(*index).is_some_and(|upstream| {
                upstream.is_free(now) && !(any_in_service && is_set_aside(upstream))
            })
        };
        let failures = |index: &usize| {
            let here = request.tried.iter().filter(|tried| *tried == index).count();
            let before = self
                .upstreams
                .get(*index)
                .is_some_and(|upstream| upstream.failed_lately(request.session, now));
            here + usize::from(before)
        };
        request
            .route
            .iter()
            .copied()
            .filter(usable)
            .min_by_key(failures)
    }

    /// Whether no other upstream would do better: none that works has read the conversation before.
    fn is_home(&self, now: Instant, request: &Request, index: usize) -> bool {
        let home = request.home.and_then(|home| self.upstreams.get(home));
        let works = |home: &Health| {
            !home.is_open()
                && !home.is_set_aside(request.model.as_deref(), now)
                && !home.failed_lately(request.session, now)
        };
        request.home == Some(index) || !home.is_some_and(works)
    }

    fn occupy(&mut self, now: Instant, id: RequestId, index: usize, held: (Charge, BotId)) {
        self.held_for.insert(id, held);
        if let Some(upstream) = self.upstreams.get_mut(index) {
            upstream.occupy(id, now);
        }
    }

    /// Those ahead, and oneself, each hold a slot of the route for the average time. While every upstream
    /// pauses, nothing is promised but that one is tried again.
    fn place(&self, now: Instant, ahead: usize, route: &[usize]) -> Place {
        let position = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
        let route = route.iter().filter_map(|index| self.upstreams.get(*index));
        let (mut slots, mut pause) = (0, Duration::MAX);
        for upstream in route {
            match upstream.pause(now) {
                None => slots += upstream.limit(),
                Some(remaining) => pause = pause.min(remaining),
            }
        }
        if slots == 0 {
            return Place {
                position,
                eta: pause.max(SHORTEST_PAUSE),
                paused: true,
            };
        }
        Place {
            position,
            eta: self.held.saturating_mul(position) / slots,
            paused: false,
        }
    }
}
