//! Open-loop arrivals: when the next one is due does not depend on how the last one fared.
//!
//! Gaps are exponential, as those of many people who know nothing of each other, so sessions do not act at
//! one instant. What is late is timed from when it was due: otherwise a server that stalls would be asked
//! less while it does, and look well (coordinated omission).

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep_until};

/// A Poisson process on the clock.
pub struct Arrivals {
    rng: StdRng,
    /// Mean gap, in seconds.
    mean: f64,
    due: Instant,
}

impl Arrivals {
    /// So many a second on average, the first one a random gap after `begin`.
    pub fn new(per_second: f64, begin: Instant, rng: StdRng) -> Self {
        let mut arrivals = Self {
            rng,
            mean: 1.0 / per_second.max(0.001),
            due: begin,
        };
        arrivals.advance();
        arrivals
    }

    fn advance(&mut self) {
        let uniform: f64 = self.rng.random();
        let gap = -self.mean * (1.0 - uniform).ln();
        self.due += Duration::from_secs_f64(gap);
    }

    /// Waits for the next arrival; returns when it was due. Dropped before its end, nothing is lost.
    pub async fn next(&mut self) -> Instant {
        sleep_until(self.due).await;
        let due = self.due;
        self.advance();
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[tokio::test(start_paused = true)]
    async fn arrivals_keep_their_rate_and_are_never_together() {
        let begin = Instant::now();
        let mut arrivals = Arrivals::new(100.0, begin, StdRng::seed_from_u64(1));
        let mut last = begin;
        for _ in 0..10_000 {
            let due = arrivals.next().await;
            assert!(due > last);
            last = due;
        }
        let seconds = (last - begin).as_secs_f64();
        assert!((97.0..103.0).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_late_catches_up_with_what_was_due() {
        let begin = Instant::now();
        let mut arrivals = Arrivals::new(10.0, begin, StdRng::seed_from_u64(2));
        tokio::time::advance(Duration::from_secs(10)).await;
        let late = Instant::now();
        let mut caught_up = 0;
        while arrivals.next().await < late {
            caught_up += 1;
        }
        assert!((60..140).contains(&caught_up), "{caught_up}");
    }
}
