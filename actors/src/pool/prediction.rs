//! How long a bot's answers are, learned from those it gave: a running quantile. Pure.

use std::collections::HashMap;

use hubbub_protocol::BotId;

use super::Request;
use super::queue::Cost;

/// How many of a bot's answers are no longer than what is predicted: rather too long, so that little is owed
/// at the end.
const QUANTILE: f64 = 0.75;

/// How much of itself the prediction moves with each answer.
const STEP: f64 = 0.1;

/// Bots of which something is known. All is learned again beyond that.
const BOTS: usize = 4_096;

/// What is known of each bot's answers, in tokens.
#[derive(Debug, Default)]
pub(super) struct Predictions(HashMap<BotId, f64>);

impl Predictions {
    /// What a request is going to take. Of a bot that has not answered yet, the most that it may.
    pub(super) fn cost(&self, request: &Request) -> Cost {
        let most = u64::from(request.max_output_tokens);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of tokens, never negative"
        )]
        let learned = self.0.get(&request.bot).map(|tokens| tokens.ceil() as u64);
        Cost::of(request.input_tokens, learned.unwrap_or(most).min(most))
    }

    /// An answer was so long.
    pub(super) fn learn(&mut self, bot: BotId, output_tokens: u64) {
        if self.0.len() >= BOTS && !self.0.contains_key(&bot) {
            self.0.clear();
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "numbers of tokens are far below 2^52"
        )]
        let seen = output_tokens as f64;
        let predicted = self.0.entry(bot).or_insert(seen);
        let step = STEP * predicted.max(16.0);
        let towards = if seen > *predicted {
            step * QUANTILE
        } else {
            -step * (1.0 - QUANTILE)
        };
        *predicted = (*predicted + towards).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use hubbub_protocol::{ReplyClass, SessionId, TenantId};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn answers_are_predicted_from_those_there_were_and_never_beyond_their_bound() {
        let bot = BotId::generate();
        let request = |max_output_tokens| Request {
            tenant: TenantId::generate(),
            class: ReplyClass::Live,
            weight: 1,
            session: SessionId::generate(),
            bot,
            model: None,
            input_tokens: 100,
            max_output_tokens,
            route: vec![0],
            home: None,
            tried: Vec::new(),
        };
        let mut predictions = Predictions::default();
        assert_eq!(predictions.cost(&request(500)), Cost::of(100, 500));
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..2_000 {
            predictions.learn(bot, rng.random_range(0..400));
        }
        let Cost(cost) = predictions.cost(&request(500));
        let output = (cost - 100) / 2;
        assert!((250..=350).contains(&output), "{output}, not about 300");
        assert_eq!(predictions.cost(&request(50)), Cost::of(100, 50));
    }
}
