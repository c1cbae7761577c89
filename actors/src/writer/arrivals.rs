//! Whether the next batch is worth waiting for. Pure.
//!
//! A commit costs about the same whatever it holds, so two entries that come within a moment of each other are
//! better committed together. Where they come rarely, a pause would gather nothing and delay everybody; where
//! the previous commit took longer than the pause, it has gathered by itself.

use std::time::Duration;

use tokio::time::Instant;

/// Batches begin no closer together than this while entries come fast. The clock of timers ticks in
/// milliseconds, so that a pause is 1.5 ms on average.
const PACE: Duration = Duration::from_millis(1);

/// Over how long arrivals are counted.
const WINDOW: Duration = Duration::from_millis(100);

/// Arrivals within a window from which on a pause gathers one more entry: as many as there are pauses of
/// 1.5 ms in it.
const WORTHWHILE: u32 = 67;

/// When entries came, and when the last batch began.
#[derive(Debug)]
pub(super) struct Arrivals {
    window: Instant,
    count: u32,
    /// Enough came in the last whole window.
    fast: bool,
    began: Option<Instant>,
}

impl Arrivals {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window: now,
            count: 0,
            fast: false,
            began: None,
        }
    }

    /// An entry came.
    pub(super) fn note(&mut self, now: Instant) {
        let passed = now - self.window;
        if passed >= WINDOW {
            // Of a window that ended long ago, nothing is known but that it is over.
            self.fast = passed < 2 * WINDOW && self.count >= WORTHWHILE;
            self.window = now;
            self.count = 0;
        }
        self.count += 1;
    }

    /// A batch begins.
    pub(super) fn began(&mut self, now: Instant) {
        self.began = Some(now);
    }

    /// How long the next batch waits for more.
    pub(super) fn gather(&self, now: Instant) -> Duration {
        let passed = self.began.map_or(PACE, |began| now - began);
        if self.fast {
            PACE.saturating_sub(passed)
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many entries a second for a second, each in a batch of its own that takes no time; the longest wait.
    fn longest_wait(per_second: u32) -> Duration {
        let mut now = Instant::now();
        let mut arrivals = Arrivals::new(now);
        let mut longest = Duration::ZERO;
        for _ in 0..per_second {
            now += Duration::from_secs(1) / per_second;
            arrivals.note(now);
            longest = longest.max(arrivals.gather(now));
            arrivals.began(now);
        }
        longest
    }

    #[test]
    fn rare_entries_wait_for_nobody() {
        assert_eq!(longest_wait(200), Duration::ZERO);
    }

    #[test]
    fn frequent_entries_gather_for_less_than_a_millisecond() {
        let wait = longest_wait(3_000);
        assert!(wait > Duration::ZERO && wait < PACE, "{wait:?}");
    }

    #[test]
    fn after_a_silence_the_first_entry_waits_for_nobody() {
        let mut now = Instant::now();
        let mut arrivals = Arrivals::new(now);
        for _ in 0..2_000 {
            now += Duration::from_micros(200);
            arrivals.note(now);
            arrivals.began(now);
        }
        assert!(arrivals.gather(now) > Duration::ZERO);
        now += Duration::from_secs(5);
        arrivals.note(now);
        assert_eq!(arrivals.gather(now), Duration::ZERO);
    }
}
