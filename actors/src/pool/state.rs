//! The pool's rules, without clocks or channels: who gets which upstream, and a bounded queue in order of
//! arrival. A fair queue over tenants can take the place of the `VecDeque` here, and nothing else moves.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::health::{Change, Health, Returned};
use super::{Outcome, Place, Request};

/// Assumed length of an answer until one has been seen.
const FIRST_GUESS: Duration = Duration::from_secs(5);

/// Nobody is told a shorter wait for a pause to end: that is how often the queue is looked through.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// Somebody who asked for a slot; also names the attempt that is made with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// The answer to somebody who asks for a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Admission {
    /// Go ahead with this upstream.
    Granted(Ticket, usize),
    /// Wait here.
    Queued(Ticket, Place),
    /// The queue is full; this long until there may be room.
    Full(Duration),
    /// No upstream of the route exists.
    NoUpstream,
}

/// Slots, health and queue.
#[derive(Debug)]
pub(crate) struct PoolState {
    upstreams: Vec<Health>,
    queue: VecDeque<(Ticket, Request)>,
    queue_len: usize,
    next_ticket: u64,
    /// Moving average of how long a slot is held.
    held: Duration,
}

impl PoolState {
    pub(crate) fn new(slots: Vec<u32>, queue_len: usize) -> Self {
        Self {
            upstreams: slots.into_iter().map(Health::new).collect(),
            queue: VecDeque::new(),
            queue_len,
            next_ticket: 0,
            held: FIRST_GUESS,
        }
    }

    pub(crate) fn admit(&mut self, now: Instant, request: Request) -> Admission {
        if request.route.is_empty() {
            return Admission::NoUpstream;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        // Nobody overtakes: a free slot goes to the queue first, unless nobody in it can use it.
        // Looked up in this order, because a queue is long only while nothing is free.
        if let Some(index) = self.pick(now, &request)
            && !self.anyone_could_use(now, &request.route)
        {
            self.occupy(now, ticket, index);
            return Admission::Granted(ticket, index);
        }
        if self.queue.len() >= self.queue_len {
            return Admission::Full(self.place(now, self.queue.len(), &request.route).eta);
        }
        let place = self.place(now, self.queue.len(), &request.route);
        self.queue.push_back((ticket, request));
        Admission::Queued(ticket, place)
    }

    /// Frees a slot and learns from how it went.
    pub(crate) fn release(
        &mut self,
        now: Instant,
        index: usize,
        returned: &Returned,
        held: Duration,
    ) -> Option<Change> {
        if returned.outcome == Outcome::Answered {
            self.held = (self.held * 7 + held) / 8;
        }
        self.upstreams.get_mut(index)?.release(now, returned)
    }

    /// Learns from an attempt that goes on.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        index: usize,
        returned: &Returned,
    ) -> Option<Change> {
        self.upstreams.get_mut(index)?.learn(now, returned)
    }

    /// Takes the first of the queue for whom a slot is free; those who are `gone` leave it unserved.
    pub(crate) fn next_grant(
        &mut self,
        now: Instant,
        gone: impl Fn(Ticket) -> bool,
    ) -> Option<(Ticket, usize)> {
        // Also while no slot is free: whoever left must not keep others out of the queue.
        self.queue.retain(|(ticket, _)| !gone(*ticket));
        if !self.upstreams.iter().any(|upstream| upstream.is_free(now)) {
            return None;
        }
        let (at, index) = self
            .queue
            .iter()
            .enumerate()
            .find_map(|(at, (_, request))| self.pick(now, request).map(|index| (at, index)))?;
        let (ticket, _) = self.queue.remove(at)?;
        self.occupy(now, ticket, index);
        Some((ticket, index))
    }

    pub(crate) fn is_waiting(&self, ticket: Ticket) -> bool {
        // Tickets rise along the queue.
        self.queue
            .binary_search_by_key(&ticket, |(waiting, _)| *waiting)
            .is_ok()
    }

    pub(crate) fn places(&self, now: Instant) -> impl Iterator<Item = (Ticket, Place)> {
        self.queue
            .iter()
            .enumerate()
            .map(move |(at, (ticket, request))| (*ticket, self.place(now, at, &request.route)))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn busy(&self) -> u32 {
        self.upstreams.iter().map(Health::busy).sum()
    }

    /// Of each upstream: whether its breaker is open, and whether it is set aside.
    pub(crate) fn health(&self, now: Instant) -> impl Iterator<Item = (bool, bool)> {
        self.upstreams
            .iter()
            .map(move |upstream| (upstream.is_open(), upstream.is_set_aside_for_any(now)))
    }

    fn anyone_could_use(&self, now: Instant, route: &[usize]) -> bool {
        self.queue.iter().any(|(_, other)| {
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

    fn occupy(&mut self, now: Instant, ticket: Ticket, index: usize) {
        if let Some(upstream) = self.upstreams.get_mut(index) {
            upstream.occupy(ticket, now);
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
                None => slots += upstream.total(),
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
