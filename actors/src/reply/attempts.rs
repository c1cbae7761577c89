//! How often, and after which pause, an answer is attempted. Pure: the caller brings the randomness.

use std::time::Duration;

use rand::Rng;
use rand::RngExt;

use crate::ports::UpstreamError;

/// Attempts in all.
const MOST: u32 = 4;
/// Longest first pause; doubles with every attempt.
const BASE: Duration = Duration::from_millis(250);
/// Longest pause.
const CAP: Duration = Duration::from_secs(4);

/// The attempts of one reply.
#[derive(Debug, Default)]
pub(crate) struct Attempts(u32);

impl Attempts {
    pub(crate) fn made(&self) -> u32 {
        self.0 + 1
    }

    /// The pause before the next attempt; `None` if there is to be none. Full jitter, so that replies
    /// that failed together do not come back together; an upstream that said when is believed.
    pub(crate) fn pause_after(
        &mut self,
        error: UpstreamError,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        self.0 += 1;
        if self.0 >= MOST || !error.is_transient() {
            return None;
        }
        let ceiling = (BASE * 2_u32.pow(self.0 - 1)).min(CAP);
        let jitter = ceiling.mul_f64(rng.random::<f64>());
        match error {
            UpstreamError::Busy(Some(asked)) => Some(asked.min(CAP) + jitter),
            _ => Some(jitter),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    proptest! {
        // R025
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn attempts_are_few_and_pauses_bounded(seed: u64, asked_ms in prop::option::of(0u64..100_000)) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut attempts = Attempts::default();
            let error = UpstreamError::Busy(asked_ms.map(Duration::from_millis));
            let mut pauses = Vec::new();
            while let Some(pause) = attempts.pause_after(error, &mut rng) {
                pauses.push(pause);
            }
            prop_assert_eq!(pauses.len(), 3);
            for (n, pause) in pauses.iter().enumerate() {
                let asked = asked_ms.map_or(Duration::ZERO, Duration::from_millis).min(CAP);
                prop_assert!(*pause >= asked);
                prop_assert!(*pause <= asked + (BASE * 2_u32.pow(u32::try_from(n).unwrap())).min(CAP));
            }
        }
    }

    #[test]
    fn a_refusal_is_not_repeated() {
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(
            Attempts::default().pause_after(UpstreamError::Refused, &mut rng),
            None
        );
    }
}
