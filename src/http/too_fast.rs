//! Tokens of visitors who were refused because they ask too fast. Until they may ask again they are
//! refused without a look at the database, which would cost more than the refusal saves.
//!
//! Only tokens that were found valid get here, so nobody fills it with what was made up. Nothing is lost
//! with it: each is checked once more.

use std::time::Duration;

use dashmap::DashMap;
use hubbub_actors::Rejection;
use tokio::time::Instant;

use crate::identity::{SecretDigest, digest};

/// Most tokens remembered; a visitor has one. 64 bytes each, 1 MiB.
const TOKENS: usize = 16_384;

/// The tokens, by their digest.
#[derive(Debug, Default)]
pub struct TooFast(DashMap<SecretDigest, Refused>);

#[derive(Clone, Debug)]
struct Refused {
    until: Instant,
    rejection: Rejection,
}

impl TooFast {
    /// Whether a token may be looked up.
    ///
    /// # Errors
    /// Not yet, with the time that is left.
    pub(super) fn check(&self, token: &str) -> Result<(), Rejection> {
        // Most of the time nobody is too fast, and no digest has to be made.
        if self.0.is_empty() {
            return Ok(());
        }
        let token = digest(token);
        let Some(refused) = self.0.get(&token).map(|refused| refused.clone()) else {
            return Ok(());
        };
        let left = refused.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.0.remove(&token);
            return Ok(());
        }
        Err(Rejection::too_fast(refused.rejection.message, left))
    }

    /// Remembers a token that was used too fast, for as long as its holder was told to wait.
    pub(super) fn note(&self, token: &str, rejection: &Rejection) {
        let now = Instant::now();
        if self.0.len() >= TOKENS {
            self.0.retain(|_, refused| refused.until > now);
        }
        let Some(wait_ms) = rejection.retry_after_ms.filter(|_| self.0.len() < TOKENS) else {
            return;
        };
        let refused = Refused {
            until: now + Duration::from_millis(wait_ms),
            rejection: rejection.clone(),
        };
        self.0.insert(digest(token), refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // X8
    #[test]
    fn a_token_is_refused_until_its_time_has_come_and_then_forgotten() {
        let tokens = TooFast::default();
        let wait = Duration::from_millis(60);
        tokens.note("fast", &Rejection::too_fast("you send too fast", wait));
        let refused = tokens.check("fast").unwrap_err();
        assert!(refused.retry_after_ms.is_some_and(|ms| ms > 0));
        assert!(tokens.check("another").is_ok());
        let until = Instant::now() + Duration::from_secs(10);
        while tokens.check("fast").is_err() {
            assert!(Instant::now() < until, "refused for ever");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(tokens.0.is_empty());
    }

    // X8
    #[test]
    fn only_so_many_tokens_are_remembered() {
        let tokens = TooFast::default();
        let wait = Rejection::too_fast("you send too fast", Duration::from_mins(1));
        for n in 0..TOKENS + 100 {
            tokens.note(&n.to_string(), &wait);
        }
        assert_eq!(tokens.0.len(), TOKENS);
    }
}
