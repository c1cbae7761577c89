//! How often, where, and after which pause an answer is attempted. Pure: the caller brings the time and the
//! randomness.

use std::time::Duration;

use rand::Rng;
use rand::RngExt;
use tokio::time::Instant;

use crate::pool::Route;
use crate::ports::UpstreamError;

/// Attempts in all, once every upstream of the route had one.
const MOST: usize = 4;
/// Longest first pause; doubles with every attempt.
const BASE: Duration = Duration::from_millis(250);
/// Longest pause.
const CAP: Duration = Duration::from_secs(4);
/// Doublings that reach [`CAP`].
const DOUBLINGS: usize = 4;

/// The attempts of one reply.
#[derive(Debug)]
pub(crate) struct Attempts {
    /// Every upstream that can read the prompt, best first.
    route: Route,
    /// Upstreams that failed, as often as they did.
    tried: Vec<usize>,
    /// Upstreams that would fail again in the same way.
    excluded: Vec<usize>,
    /// When a slot was first given, from which on [`bound`](Self::bound) counts.
    begun: Option<Instant>,
    /// Longest wait for the first sign of life, over all attempts.
    bound: Duration,
}

/// What comes after an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// The pause that is due before an upstream is asked again.
    pub(crate) pause: Duration,
    /// Whether there is an upstream that has not been asked: it is owed no pause.
    pub(crate) elsewhere: bool,
}

impl Attempts {
    pub(crate) fn new(route: Route, bound: Duration) -> Self {
        Self {
            route,
            tried: Vec::new(),
            excluded: Vec::new(),
            begun: None,
            bound,
        }
    }

    /// A slot was given.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    /// Until when an upstream may show its first sign of life; `None` before the first slot.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Some(self.begun? + self.bound)
    }

    pub(crate) fn tried(&self) -> &[usize] {
        &self.tried
    }

    /// The upstreams that may be asked still, best first.
    pub(crate) fn left(&self) -> impl Iterator<Item = usize> {
        let left = |index: &usize| !self.excluded.contains(index);
        self.route.upstreams.iter().copied().filter(left)
    }

    /// The one that has read the conversation before, unless it has failed this reply or may not be asked.
    pub(crate) fn home(&self) -> Option<usize> {
        let home = self.route.home?;
        let may_be = self.left().any(|index| index == home) && !self.tried.contains(&home);
        may_be.then_some(home)
    }

    /// What to do after an attempt at `index` failed before its first word; `None` if
    /// nothing. Full jitter, so that replies that failed together do not come back together; an upstream
    /// that said when is believed.
    pub(crate) fn after(
        &mut self,
        index: usize,
        error: UpstreamError,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Next> {
        if error == UpstreamError::Filtered {
            return None;
        }
        self.failed(index, error);
        self.left().next()?;
        let elsewhere = self.left().any(|other| !self.tried.contains(&other));
        let pause = self.pause(error, rng);
        let earliest = now + if elsewhere { Duration::ZERO } else { pause };
        let is_late = self.deadline().is_some_and(|until| earliest >= until);
        if is_late || (!elsewhere && self.tried.len() >= MOST) {
            return None;
        }
        Some(Next { pause, elsewhere })
    }

    /// Notes an attempt at `index` that failed before its first word.
    pub(crate) fn failed(&mut self, index: usize, error: UpstreamError) {
        let is_alone = self.route.upstreams.iter().all(|other| *other == index);
        self.tried.push(index);
        let repeats = match error {
            UpstreamError::Misconfigured | UpstreamError::Refused => true,
            // It costs too much to be tried twice, where another may do.
            UpstreamError::TimedOut => !is_alone,
            UpstreamError::Unreachable
            | UpstreamError::Busy(_)
            | UpstreamError::Failed
            | UpstreamError::Cut
            | UpstreamError::Garbage
            | UpstreamError::Filtered => false,
        };
        if repeats {
            self.excluded.push(index);
        }
    }

    fn pause(&self, error: UpstreamError, rng: &mut impl Rng) -> Duration {
        let doublings = self.tried.len().saturating_sub(1).min(DOUBLINGS);
        let ceiling = (BASE * (1 << doublings)).min(CAP);
        let jitter = ceiling.mul_f64(rng.random::<f64>());
        match error {
            UpstreamError::Busy(Some(asked)) => asked.min(CAP) + jitter,
            _ => jitter,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn attempts(route: &[usize]) -> Attempts {
        let mut attempts = Attempts::new(
            Route {
                upstreams: route.to_vec(),
                home: None,
            },
            Duration::from_mins(1),
        );
        attempts.begin(Instant::now());
        attempts
    }

    fn error() -> impl Strategy<Value = UpstreamError> {
        prop_oneof![
            Just(UpstreamError::Unreachable),
            Just(UpstreamError::TimedOut),
            Just(UpstreamError::Failed),
            Just(UpstreamError::Misconfigured),
            Just(UpstreamError::Refused),
            Just(UpstreamError::Cut),
            Just(UpstreamError::Garbage),
            prop::option::of(0u64..100_000)
                .prop_map(|ms| UpstreamError::Busy(ms.map(Duration::from_millis))),
        ]
    }

    proptest! {
        // R025
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn attempts_are_few_and_pauses_bounded(seed: u64, asked_ms in prop::option::of(0u64..100_000)) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut attempts = attempts(&[0]);
            let error = UpstreamError::Busy(asked_ms.map(Duration::from_millis));
            let mut pauses = Vec::new();
            while let Some(next) = attempts.after(0, error, Instant::now(), &mut rng) {
                pauses.push(next.pause);
            }
            prop_assert_eq!(pauses.len(), 3);
            for (n, pause) in pauses.iter().enumerate() {
                let asked = asked_ms.map_or(Duration::ZERO, Duration::from_millis).min(CAP);
                prop_assert!(*pause >= asked);
                prop_assert!(*pause <= asked + (BASE * 2_u32.pow(u32::try_from(n).unwrap())).min(CAP));
            }
        }

        // M9
        /// Whatever fails, every upstream of the route is asked before the reply is given up, and none
        /// again for an error that repeats.
        #[test]
        fn every_upstream_is_asked_before_a_reply_is_given_up(
            seed: u64, errors in prop::collection::vec(error(), 1..7),
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let route: Vec<usize> = (0..errors.len()).collect();
            let mut attempts = attempts(&route);
            let mut asked: HashMap<usize, usize> = HashMap::new();
            loop {
                let times = |index: &usize| {
                    attempts.tried().iter().filter(|tried| *tried == index).count()
                };
                let index = attempts.left().min_by_key(times).unwrap();
                *asked.entry(index).or_default() += 1;
                let next = attempts.after(index, errors[index], Instant::now(), &mut rng);
                if next.is_none() { break }
            }
            for (index, error) in errors.iter().enumerate() {
                let repeats = matches!(error, UpstreamError::Misconfigured | UpstreamError::Refused);
                let times = asked.get(&index).copied().unwrap_or_default();
                prop_assert!(times >= 1, "{index} was not asked: {errors:?}");
                prop_assert!(!repeats || times == 1, "{index} was asked again: {errors:?}");
            }
            prop_assert!(asked.values().sum::<usize>() <= MOST.max(route.len()));
        }
    }

    // M9, H12
    #[test]
    fn what_would_fail_again_is_not_repeated() {
        let mut rng = StdRng::seed_from_u64(1);
        let now = Instant::now();
        for error in [UpstreamError::Misconfigured, UpstreamError::Refused] {
            assert_eq!(attempts(&[0]).after(0, error, now, &mut rng), None);
            let next = attempts(&[0, 1]).after(0, error, now, &mut rng);
            assert!(next.is_some_and(|next| next.elsewhere), "{error}");
        }
        let filtered = UpstreamError::Filtered;
        assert_eq!(
            attempts(&[0, 1]).after(0, filtered, now, &mut rng),
            None,
            "no filter is shopped around for"
        );
    }

    // M10
    #[test]
    fn a_time_out_is_repeated_only_where_there_is_no_other_upstream() {
        let mut rng = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let timed_out = UpstreamError::TimedOut;
        let mut alone = attempts(&[0]);
        assert!(alone.after(0, timed_out, now, &mut rng).is_some());
        let mut two = attempts(&[0, 1]);
        let next = two.after(0, timed_out, now, &mut rng);
        assert!(next.is_some_and(|next| next.elsewhere));
        assert_eq!(two.after(1, timed_out, now, &mut rng), None);
    }

    // M10, H13
    #[test]
    fn nothing_is_attempted_beyond_the_bound_on_the_whole_wait() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut attempts = attempts(&[0, 1]);
        let later = Instant::now() + Duration::from_mins(1);
        let next = attempts.after(0, UpstreamError::Failed, later, &mut rng);
        assert_eq!(next, None);
    }
}
