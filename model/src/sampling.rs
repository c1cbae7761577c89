//! Choosing the next token from the model's scores. Everything random comes from one seed, so the
//! same request with the same seed gives the same answer.

use crate::engine::Token;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How strongly a recent token is held back. A model this small loops without it.
const REPETITION_PENALTY: f32 = 1.1;

/// How many recent tokens are held back.
const REPETITION_WINDOW: usize = 64;

/// How freely the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingConfig {
    /// 0 takes the likeliest token always; 1 follows the model's probabilities; at most 2.
    pub temperature: f32,
    /// Only the likeliest tokens that together have this probability are candidates; above 0,
    /// at most 1.
    pub top_p: f32,
    /// Where the random numbers start.
    pub seed: u64,
}

/// Chooses tokens for one answer.
#[derive(Debug)]
pub struct Sampler {
    config: SamplingConfig,
    random: StdRng,
    recent: Vec<Token>,
}

impl Sampler {
    /// A sampler at the start of its random numbers.
    pub fn new(config: SamplingConfig) -> Self {
        Self {
            config,
            random: StdRng::seed_from_u64(config.seed),
            recent: Vec::new(),
        }
    }

    /// The next token; `None` when the scores are empty.
    pub fn choose(&mut self, mut scores: Vec<f32>) -> Option<Token> {
        self.hold_back_recent(&mut scores);
        let index = if self.config.temperature <= 0.0 {
            likeliest(&scores)
        } else {
            self.draw(&scores)
        }?;
        let token = Token::try_from(index).ok()?;
        if self.recent.len() == REPETITION_WINDOW {
            self.recent.remove(0);
        }
        self.recent.push(token);
        Some(token)
    }

    fn hold_back_recent(&self, scores: &mut [f32]) {
        let mut tokens = self.recent.clone();
        tokens.sort_unstable();
        tokens.dedup();
        for token in tokens {
            if let Some(score) = scores.get_mut(token as usize) {
                *score = if *score > 0.0 {
                    *score / REPETITION_PENALTY
                } else {
                    *score * REPETITION_PENALTY
                };
            }
        }
    }

    /// Draws from the likeliest candidates in proportion to their probabilities.
    fn draw(&mut self, scores: &[f32]) -> Option<usize> {
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut weights: Vec<(usize, f32)> = scores
            .iter()
            .map(|score| ((score - highest) / self.config.temperature).exp())
            .enumerate()
            // What is a millionth as likely as the best is never drawn and not worth sorting.
            .filter(|(_, weight)| *weight > 1e-6)
            .collect();
        weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let wanted = weights.iter().map(|(_, weight)| weight).sum::<f32>() * self.config.top_p;
        let mut total = 0.0;
        let mut candidates = 0;
        for (_, weight) in &weights {
            total += weight;
            candidates += 1;
            if total >= wanted {
                break;
            }
        }
        let mut left = self.random.random::<f32>() * total;
        for (index, weight) in weights.iter().take(candidates) {
            left -= weight;
            if left <= 0.0 {
                return Some(*index);
            }
        }
        weights
            .first()
            .map(|(index, _)| *index)
            .or_else(|| likeliest(scores))
    }
}

fn likeliest(scores: &[f32]) -> Option<usize> {
    scores
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f32, top_p: f32, seed: u64) -> Sampler {
        Sampler::new(SamplingConfig {
            temperature,
            top_p,
            seed,
        })
    }

    #[test]
    fn temperature_zero_takes_the_likeliest() {
        assert_eq!(sampler(0.0, 1.0, 1).choose(vec![0.1, 3.0, 2.9]), Some(1));
    }

    #[test]
    fn a_token_just_said_loses_a_close_race() {
        let mut sampler = sampler(0.0, 1.0, 1);
        assert_eq!(sampler.choose(vec![0.1, 3.0, 2.9]), Some(1));
        assert_eq!(sampler.choose(vec![0.1, 3.0, 2.9]), Some(2));
    }

    #[test]
    fn one_seed_gives_one_sequence_and_another_gives_another() {
        let sequence = |seed| {
            let mut sampler = sampler(1.5, 1.0, seed);
            (0..40)
                .map(|_| sampler.choose(vec![1.0; 50]))
                .collect::<Vec<_>>()
        };
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
    }

    #[test]
    fn a_small_top_p_leaves_only_the_likeliest() {
        for seed in 0..50 {
            assert_eq!(sampler(1.0, 0.1, seed).choose(vec![1.0, 2.0, 1.0]), Some(1));
        }
    }

    #[test]
    fn scores_of_no_use_never_stop_the_program() {
        assert_eq!(sampler(1.0, 1.0, 1).choose(Vec::new()), None);
        assert!(sampler(1.0, 1.0, 1).choose(vec![f32::NAN; 3]).is_some());
    }
}
