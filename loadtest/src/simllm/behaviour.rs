//! How the simulated upstream behaves, and what becomes of one request under it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// What requests are answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As a model answers, except for the shares given by the rates.
    #[default]
    Ok,
    /// HTTP 500.
    Error,
    /// HTTP 429 with `Retry-After: 1`.
    Busy,
    /// Accepts and never answers.
    Hang,
    /// Status 200, then bytes that are not server-sent events.
    Garbage,
    /// A stream that is cut in the middle.
    Half,
}

/// The knobs. Times are in milliseconds; rates and jitter are fractions from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Behaviour {
    /// What every request meets; `ok` leaves it to the rates.
    pub mode: Mode,
    /// From the request to the first token.
    pub ttft_ms: u64,
    /// Between two tokens.
    pub token_interval_ms: u64,
    /// Tokens in an answer; `max_tokens` of the request may lower it.
    pub tokens: u32,
    /// Each wait is drawn from ± this fraction of its nominal length.
    pub jitter: f64,
    /// Share of requests answered with 500.
    pub error_rate: f64,
    /// Share answered with 429.
    pub busy_rate: f64,
    /// Share never answered.
    pub hang_rate: f64,
    /// Share answered with garbage.
    pub garbage_rate: f64,
    /// Share cut in the middle.
    pub half_rate: f64,
    /// Requests answered at once; more are refused with 429. 0 means no limit.
    pub slots: u64,
    /// Microseconds to read a token of the prompt, on top of `ttft_ms`; none for what is cached.
    pub prompt_token_us: u64,
    /// Whether prompts that begin like an earlier one are read from there on only.
    pub prefix_cache: bool,
    /// Seed of every draw: the same seed and order of requests draws the same.
    pub seed: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            mode: Mode::Ok,
            ttft_ms: 200,
            token_interval_ms: 20,
            tokens: 60,
            jitter: 0.0,
            error_rate: 0.0,
            busy_rate: 0.0,
            hang_rate: 0.0,
            garbage_rate: 0.0,
            half_rate: 0.0,
            slots: 0,
            prompt_token_us: 0,
            prefix_cache: false,
            seed: 1,
        }
    }
}

/// A behaviour that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidBehaviour(pub &'static str);

impl std::fmt::Display for InvalidBehaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidBehaviour {}

/// What `PUT /control` may change: every field of [`Behaviour`], each left alone when absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each field is documented at Behaviour")]
pub struct BehaviourPatch {
    pub mode: Option<Mode>,
    pub ttft_ms: Option<u64>,
    pub token_interval_ms: Option<u64>,
    pub tokens: Option<u32>,
    pub jitter: Option<f64>,
    pub error_rate: Option<f64>,
    pub busy_rate: Option<f64>,
    pub hang_rate: Option<f64>,
    pub garbage_rate: Option<f64>,
    pub half_rate: Option<f64>,
    pub slots: Option<u64>,
    pub prompt_token_us: Option<u64>,
    pub prefix_cache: Option<bool>,
    pub seed: Option<u64>,
    /// Also set the counters to zero.
    pub reset_counters: bool,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Answered as a model answers.
    Answer,
    /// 500.
    Error,
    /// 429.
    Busy,
    /// Never answered.
    Hang,
    /// Bytes that are not events.
    Garbage,
    /// Cut in the middle.
    Half,
}

impl Behaviour {
    /// Checks that the fractions are fractions.
    ///
    /// # Errors
    /// Names the rule that is broken.
    pub fn validated(self) -> Result<Self, InvalidBehaviour> {
        let fractions = [
            self.jitter,
            self.error_rate,
            self.busy_rate,
            self.hang_rate,
            self.garbage_rate,
            self.half_rate,
        ];
        if !fractions
            .iter()
            .all(|fraction| (0.0..=1.0).contains(fraction))
        {
            return Err(InvalidBehaviour(
                "jitter and rates must lie between 0 and 1",
            ));
        }
        if fractions.iter().skip(1).sum::<f64>() > 1.0 {
            return Err(InvalidBehaviour("the rates add up to more than 1"));
        }
        Ok(self)
    }

    /// This behaviour with a patch laid over it.
    pub fn patched(mut self, patch: &BehaviourPatch) -> Self {
        macro_rules! lay_over {
            ($($field:ident),*) => { $( if let Some(value) = patch.$field { self.$field = value; } )* };
        }
        lay_over!(
            mode,
            ttft_ms,
            token_interval_ms,
            tokens,
            jitter,
            error_rate,
            busy_rate,
            hang_rate,
            garbage_rate,
            half_rate,
            slots,
            prompt_token_us,
            prefix_cache,
            seed
        );
        self
    }

    /// The draws of the `number`-th request.
    pub(super) fn draws(&self, number: u64) -> Draws {
        // Neighbouring seeds give unrelated streams: the generator hashes its seed.
        Draws {
            generator: StdRng::seed_from_u64(self.seed.wrapping_add(number)),
        }
    }
}

/// The randomness of one request.
pub(super) struct Draws {
    generator: StdRng,
}

impl Draws {
    /// Draws what becomes of the request.
    pub fn fate(&mut self, behaviour: &Behaviour) -> Fate {
        match behaviour.mode {
            Mode::Ok => {}
            Mode::Error => return Fate::Error,
            Mode::Busy => return Fate::Busy,
            Mode::Hang => return Fate::Hang,
            Mode::Garbage => return Fate::Garbage,
            Mode::Half => return Fate::Half,
        }
        let mut point: f64 = self.generator.random();
        for (rate, fate) in [
            (behaviour.error_rate, Fate::Error),
            (behaviour.busy_rate, Fate::Busy),
            (behaviour.hang_rate, Fate::Hang),
            (behaviour.garbage_rate, Fate::Garbage),
            (behaviour.half_rate, Fate::Half),
        ] {
            if point < rate {
                return fate;
            }
            point -= rate;
        }
        Fate::Answer
    }

    /// A wait of `ms` milliseconds, give or take `jitter` of it.
    pub fn wait(&mut self, ms: u64, jitter: f64) -> Duration {
        let nominal = Duration::from_millis(ms);
        if jitter <= 0.0 {
            return nominal;
        }
        let spread: f64 = self.generator.random_range(-jitter..=jitter);
        nominal.mul_f64(1.0 + spread)
    }

    /// Bytes that are neither text nor events.
    pub fn garbage(&mut self) -> [u8; 512] {
        let mut bytes = [0_u8; 512];
        self.generator.fill_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_decides_for_every_request() {
        let behaviour = Behaviour {
            mode: Mode::Hang,
            error_rate: 1.0,
            ..Behaviour::default()
        };
        assert_eq!(behaviour.draws(7).fate(&behaviour), Fate::Hang);
    }

    #[test]
    fn rates_are_met_and_a_seed_repeats_them() {
        let behaviour = Behaviour {
            error_rate: 0.2,
            half_rate: 0.1,
            ..Behaviour::default()
        };
        let draw = || {
            (0..5_000)
                .map(|n| behaviour.draws(n).fate(&behaviour))
                .collect::<Vec<_>>()
        };
        let fates = draw();
        let share = |fate| fates.iter().filter(|f| **f == fate).count();
        assert!(
            (900..1_100).contains(&share(Fate::Error)),
            "{}",
            share(Fate::Error)
        );
        assert!(
            (420..580).contains(&share(Fate::Half)),
            "{}",
            share(Fate::Half)
        );
        assert_eq!(share(Fate::Busy), 0);
        assert_eq!(fates, draw());
    }

    #[test]
    fn jitter_stays_within_its_fraction() {
        let behaviour = Behaviour::default();
        let mut draws = behaviour.draws(0);
        let waits: Vec<_> = (0..1_000).map(|_| draws.wait(100, 0.5)).collect();
        assert!(waits.iter().all(|w| (50..=150).contains(&w.as_millis())));
        assert!(waits.iter().any(|w| w.as_millis() < 70));
        assert!(waits.iter().any(|w| w.as_millis() > 130));
    }

    #[test]
    fn rates_beyond_one_are_refused() {
        let wrong = Behaviour {
            error_rate: 0.6,
            half_rate: 0.6,
            ..Behaviour::default()
        };
        assert!(wrong.validated().is_err());
        assert!(
            Behaviour {
                jitter: -0.1,
                ..Behaviour::default()
            }
            .validated()
            .is_err()
        );
        assert!(Behaviour::default().validated().is_ok());
    }

    #[test]
    fn a_patch_changes_only_what_it_names() {
        let patch: BehaviourPatch = serde_json::from_str(r#"{"mode":"half","tokens":5}"#).unwrap();
        let patched = Behaviour::default().patched(&patch);
        assert_eq!(
            patched,
            Behaviour {
                mode: Mode::Half,
                tokens: 5,
                ..Behaviour::default()
            }
        );
        assert!(serde_json::from_str::<BehaviourPatch>(r#"{"mod":"half"}"#).is_err());
    }
}
