//! How many requests an upstream is given at once, where it is to be found out. Pure.
//!
//! Between a floor and a ceiling the limit follows the time to the first word. While that stays near what it is
//! when the upstream has room, the limit grows by the root of itself each round; once it is much longer, requests
//! wait inside of the upstream, and the limit shrinks in proportion. Being told that it is too busy, or silence,
//! halves it. After the gradient limit of Netflix's concurrency-limits.

use std::time::Duration;

use tokio::time::Instant;

/// The wait that counts as an upstream with room may be so many times as long before the limit shrinks: prompts
/// are not equally long.
const TOLERANCE: f64 = 2.0;

/// Of a new measurement, in the average of what is usual now.
const RECENT: f64 = 0.2;

/// What the wait with room forgets at each measurement that cannot be blamed on load: an upstream may become
/// slower for good.
const FORGETTING: f64 = 0.002;

/// Two cuts are at least so far apart: what was sent before the first says nothing of the second.
const CUT_INTERVAL: Duration = Duration::from_secs(1);

/// The limit of one upstream.
#[derive(Debug)]
pub(super) struct Limit {
    floor: f64,
    ceiling: f64,
    now: f64,
    /// Seconds to the first word while there is room.
    with_room: Option<f64>,
    /// The same, of late.
    lately: f64,
    cut_at: Option<Instant>,
}

impl Limit {
    /// Begins at the ceiling: an upstream that takes what it is said to take is never held back.
    pub(super) fn new(floor: u32, ceiling: u32) -> Self {
        Self {
            floor: f64::from(floor.clamp(1, ceiling.max(1))),
            ceiling: f64::from(ceiling),
            now: f64::from(ceiling),
            with_room: None,
            lately: 0.0,
            cut_at: None,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between two counts"
    )]
    pub(super) fn now(&self) -> u32 {
        self.now as u32
    }

    /// The first word came after so long, with so many requests running.
    pub(super) fn first_word(&mut self, wait: Duration, busy: u32) {
        let wait = wait.as_secs_f64().max(1e-3);
        // A limit that nobody reaches is not known to be too low.
        let is_used = f64::from(busy) >= self.now / 2.0;
        self.lately = match self.with_room {
            Some(_) => self.lately + RECENT * (wait - self.lately),
            None => wait,
        };
        let mut with_room = self.with_room.map_or(wait, |known| known.min(wait));
        if !is_used || self.now <= self.floor {
            with_room += FORGETTING * (wait - with_room);
        }
        self.with_room = Some(with_room);
        let gradient = (TOLERANCE * with_room / self.lately).clamp(0.5, 1.0);
        if gradient < 1.0 {
            // One of many measurements of a round, so a small part of the way.
            self.set(self.now + (self.now * gradient - self.now) / self.now.max(1.0));
        } else if is_used {
            self.set(self.now + self.now.sqrt() / self.now.max(1.0));
        }
    }

    /// It said that it is too busy, or nothing.
    pub(super) fn overloaded(&mut self, now: Instant) {
        if self.cut_at.is_some_and(|at| now < at + CUT_INTERVAL) {
            return;
        }
        self.cut_at = Some(now);
        self.set(self.now / 2.0);
    }

    fn set(&mut self, limit: f64) {
        self.now = limit.clamp(self.floor, self.ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upstream that serves `room` at once within 200 ms, and makes the others wait for them.
    fn wait(busy: u32, room: u32) -> Duration {
        Duration::from_millis(200) * busy.max(room) / room
    }

    fn run(limit: &mut Limit, rounds: u32, room: u32) {
        for _ in 0..rounds {
            let busy = limit.now();
            for _ in 0..busy {
                limit.first_word(wait(busy, room), busy);
            }
        }
    }

    #[test]
    fn it_finds_what_the_upstream_serves_without_a_wait_and_follows_it() {
        let mut limit = Limit::new(4, 200);
        // Little traffic first: that is when it learns how long an answer takes to begin.
        for _ in 0..20 {
            limit.first_word(wait(1, 40), 1);
        }
        assert_eq!(limit.now(), 200);
        run(&mut limit, 50, 40);
        assert!((50..=110).contains(&limit.now()), "{}", limit.now());
        run(&mut limit, 100, 10);
        assert!((10..=40).contains(&limit.now()), "{}", limit.now());
        run(&mut limit, 100, 400);
        assert_eq!(limit.now(), 200, "and never above the ceiling");
    }

    #[test]
    fn a_limit_that_nobody_reaches_does_not_grow() {
        let mut limit = Limit::new(4, 200);
        limit.overloaded(Instant::now());
        assert_eq!(limit.now(), 100);
        for _ in 0..500 {
            limit.first_word(wait(1, 40), 1);
        }
        assert_eq!(limit.now(), 100);
    }

    #[test]
    fn being_too_busy_halves_it_once_a_second_down_to_the_floor() {
        let mut limit = Limit::new(8, 100);
        let start = Instant::now();
        limit.overloaded(start);
        limit.overloaded(start + Duration::from_millis(900));
        assert_eq!(limit.now(), 50);
        for second in 1..10 {
            limit.overloaded(start + Duration::from_secs(second));
        }
        assert_eq!(limit.now(), 8);
    }

    #[test]
    fn without_a_range_it_is_fixed() {
        let mut limit = Limit::new(32, 32);
        limit.overloaded(Instant::now());
        for _ in 0..1_000 {
            limit.first_word(Duration::from_mins(1), 32);
        }
        assert_eq!(limit.now(), 32);
    }
}
