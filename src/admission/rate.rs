//! A rate for each of very many keys, in bounded memory.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Keys are counted in so many buckets, each by a hash that nobody outside can foresee. Whoever has addresses
/// without end fills no memory with them (6 MiB at most), and meets a given stranger's bucket with one
/// address in 131,072.
const BUCKETS: u64 = 1 << 17;

/// So many a minute for each key.
pub(super) struct Rate {
    buckets: DefaultKeyedRateLimiter<u64>,
    hasher: RandomState,
}

impl Rate {
    /// As many at once, after a pause.
    pub(super) fn per_minute(allowed: u32) -> Self {
        let allowed = NonZeroU32::new(allowed).unwrap_or(NonZeroU32::MIN);
        Self {
            buckets: RateLimiter::keyed(Quota::per_minute(allowed)),
            hasher: RandomState::new(),
        }
    }

    /// Counts one for a key, or returns how long it has to wait.
    pub(super) fn check(&self, key: &impl Hash) -> Result<(), Duration> {
        let bucket = self.hasher.hash_one(key) % BUCKETS;
        self.buckets
            .check_key(&bucket)
            .map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }

    /// Frees buckets that are as good as new.
    pub(super) fn forget_unused(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_end_fill_no_memory_and_leave_it_again() {
        let rate = Rate::per_minute(60_000);
        for key in 0..200_000_u32 {
            rate.check(&key).unwrap();
        }
        assert!(rate.buckets.len() as u64 <= BUCKETS);
        // 60,000 a minute are one a millisecond: whatever was used comes back at once.
        while !rate.buckets.is_empty() {
            rate.forget_unused();
        }
    }
}
