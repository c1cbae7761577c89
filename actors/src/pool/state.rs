//! The pool's rules, without clocks or channels: slots, breakers, and a bounded queue in order of
//! arrival. A fair queue over tenants can take the place of the `VecDeque` here, and nothing else moves.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Outcome, Place};

/// Failures in a row that open an upstream's breaker.
const BREAKER_FAILURES: u32 = 3;

/// How long an open breaker keeps everybody away before one attempt may try again.
const BREAKER_PAUSE: Duration = Duration::from_secs(5);

/// Longest pause an upstream may ask for itself (`Retry-After`).
const BREAKER_PAUSE_MAX: Duration = Duration::from_mins(1);

/// Assumed length of an answer until one has been seen.
const FIRST_GUESS: Duration = Duration::from_secs(5);

/// Somebody in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What somebody waits for.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// Upstreams that will do, best first.
    pub(crate) route: Vec<usize>,
    /// Not this one, if another is free.
    pub(crate) avoid: Option<usize>,
}

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

#[derive(Debug)]
struct Slots {
    total: u32,
    busy: u32,
    /// Failures since the last answer.
    failures: u32,
    /// While the breaker is open: when one attempt may try again.
    closed_until: Option<Instant>,
}

impl Slots {
    fn is_free(&self, now: Instant) -> bool {
        match self.closed_until {
            // Half-open: one attempt at a time finds out whether it is back.
            Some(until) => now >= until && self.busy == 0,
            None => self.busy < self.total,
        }
    }
}

/// Slots, health and queue.
#[derive(Debug)]
pub(crate) struct PoolState {
    slots: Vec<Slots>,
    queue: VecDeque<(Ticket, Waiting)>,
    queue_len: usize,
    next_ticket: u64,
    /// Moving average of how long a slot is held.
    held: Duration,
}

impl PoolState {
    pub(crate) fn new(slots: Vec<u32>, queue_len: usize) -> Self {
        let slots = slots
            .into_iter()
            .map(|total| Slots {
                total,
                busy: 0,
                failures: 0,
                closed_until: None,
            })
            .collect();
        Self {
            slots,
            queue: VecDeque::new(),
            queue_len,
            next_ticket: 0,
            held: FIRST_GUESS,
        }
    }

    pub(crate) fn admit(&mut self, now: Instant, waiting: Waiting) -> Admission {
        if waiting.route.is_empty() {
            return Admission::NoUpstream;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        // Nobody overtakes: a free slot goes to the queue first, unless nobody in it can use it.
        if !self.anyone_waits_for(&waiting.route)
            && let Some(index) = self.pick(now, &waiting)
        {
            self.occupy(index);
            return Admission::Granted(ticket, index);
        }
        if self.queue.len() >= self.queue_len {
            return Admission::Full(self.eta(self.queue.len(), &waiting.route));
        }
        self.queue.push_back((ticket, waiting));
        let place = self.place(self.queue.len() - 1);
        Admission::Queued(ticket, place)
    }

    /// Frees a slot and learns from how it went.
    pub(crate) fn release(&mut self, now: Instant, index: usize, outcome: Outcome, held: Duration) {
        let Some(slots) = self.slots.get_mut(index) else {
            return;
        };
        slots.busy = slots.busy.saturating_sub(1);
        match outcome {
            Outcome::Answered => {
                slots.failures = 0;
                slots.closed_until = None;
                self.held = (self.held * 7 + held) / 8;
            }
            Outcome::Faulty(pause) => {
                slots.failures = slots.failures.saturating_add(1);
                if pause.is_some() || slots.failures >= BREAKER_FAILURES {
                    let pause = pause.unwrap_or(BREAKER_PAUSE).min(BREAKER_PAUSE_MAX);
                    slots.closed_until = Some(now + pause);
                }
            }
            Outcome::Neutral => {}
        }
    }

    /// Takes the first of the queue for whom a slot is free; those who are `gone` leave it unserved.
    pub(crate) fn next_grant(
        &mut self,
        now: Instant,
        gone: impl Fn(Ticket) -> bool,
    ) -> Option<(Ticket, usize)> {
        // Also while no slot is free: whoever left must not keep others out of the queue.
        self.queue.retain(|(ticket, _)| !gone(*ticket));
        if !self.slots.iter().any(|slots| slots.is_free(now)) {
            return None;
        }
        let (at, index) = self
            .queue
            .iter()
            .enumerate()
            .find_map(|(at, (_, waiting))| self.pick(now, waiting).map(|index| (at, index)))?;
        let (ticket, _) = self.queue.remove(at)?;
        self.occupy(index);
        Some((ticket, index))
    }

    pub(crate) fn is_waiting(&self, ticket: Ticket) -> bool {
        // Tickets rise along the queue.
        self.queue
            .binary_search_by_key(&ticket, |(waiting, _)| *waiting)
            .is_ok()
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = (Ticket, Place)> {
        self.queue
            .iter()
            .enumerate()
            .map(|(at, (ticket, _))| (*ticket, self.place(at)))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn busy(&self) -> u32 {
        self.slots.iter().map(|slots| slots.busy).sum()
    }

    fn anyone_waits_for(&self, route: &[usize]) -> bool {
        self.queue
            .iter()
            .any(|(_, other)| other.route.iter().any(|index| route.contains(index)))
    }

    /// The first of the route that is free; the one to avoid only if no other is.
    fn pick(&self, now: Instant, waiting: &Waiting) -> Option<usize> {
        let is_free = |index: &usize| self.slots.get(*index).is_some_and(|s| s.is_free(now));
        let mut free = waiting.route.iter().copied().filter(is_free);
        let first = free.next()?;
        if waiting.avoid == Some(first) {
            free.next().or(Some(first))
        } else {
            Some(first)
        }
    }

    fn occupy(&mut self, index: usize) {
        if let Some(slots) = self.slots.get_mut(index) {
            slots.busy += 1;
        }
    }

    fn place(&self, at: usize) -> Place {
        let route = self
            .queue
            .get(at)
            .map_or(&[][..], |(_, waiting)| &waiting.route);
        Place {
            position: u32::try_from(at + 1).unwrap_or(u32::MAX),
            eta: self.eta(at, route),
        }
    }

    /// Those ahead, and oneself, each hold a slot of the route for the average time.
    fn eta(&self, ahead: usize, route: &[usize]) -> Duration {
        let slots: u32 = route
            .iter()
            .filter_map(|i| self.slots.get(*i))
            .map(|s| s.total)
            .sum();
        let rounds = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
        self.held.saturating_mul(rounds) / slots.max(1)
    }
}
