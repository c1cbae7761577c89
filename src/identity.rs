//! Credentials: API keys, visitor tokens and tickets. How they are made, written and recognised.
//!
//! Each is a prefix, where to look it up, and 32 random bytes. Only a SHA-256 of the secret is stored:
//! with that much entropy a slow hash would protect nothing and cost every request.

use hubbub_protocol::TenantId;
use rand::RngExt;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Characters of a secret: 43 of 62 possible ones are 256 bits.
const SECRET_CHARS: usize = 43;
const KEY_ID_CHARS: usize = 8;
const CHECK_CHARS: usize = 6;

/// A digest as it is stored.
pub type SecretDigest = [u8; 32];

/// The digest of a secret.
pub fn digest(secret: &str) -> SecretDigest {
    Sha256::digest(secret.as_bytes()).into()
}

/// Compares digests in a time that does not depend on where they differ.
pub fn digests_match(stored: &[u8], given: &SecretDigest) -> bool {
    stored.ct_eq(given).into()
}

/// An API key: `hbk_<id>_<secret>_<check>`. The check lets scanners of leaked secrets, and people who
/// cut one off while copying, know a real one without asking a server.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public part, by which it is found.
    pub id: String,
    secret: String,
}

impl ApiKey {
    /// A fresh one.
    pub fn generate() -> Self {
        Self {
            id: random_text(KEY_ID_CHARS),
            secret: random_text(SECRET_CHARS),
        }
    }

    /// Recognises one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("hbk_")?.split('_');
        let (id, secret, check) = (parts.next()?, parts.next()?, parts.next()?);
        let key = Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
        };
        let is_whole = id.len() == KEY_ID_CHARS && secret.len() == SECRET_CHARS;
        (is_whole && parts.next().is_none() && key.check() == check).then_some(key)
    }

    /// As it is handed out, once.
    pub fn expose(&self) -> String {
        format!("hbk_{}_{}_{}", self.id, self.secret, self.check())
    }

    /// As it is stored.
    pub fn digest(&self) -> SecretDigest {
        digest(&self.secret)
    }

    fn check(&self) -> String {
        let sum = digest(&format!("{}_{}", self.id, self.secret));
        sum.iter()
            .take(CHECK_CHARS)
            .map(|byte| letter(*byte))
            .collect()
    }
}

/// A visitor's token: `hbv_<tenant>_<secret>`. It names its tenant, because nothing else in the request
/// does.
#[derive(Clone, PartialEq, Eq)]
pub struct VisitorToken {
    /// Whose visitor it is.
    pub tenant: TenantId,
    secret: String,
}

impl VisitorToken {
    /// A fresh one.
    pub fn generate(tenant: TenantId) -> Self {
        Self {
            tenant,
            secret: random_text(SECRET_CHARS),
        }
    }

    /// Recognises one.
    pub fn parse(text: &str) -> Option<Self> {
        let (tenant, secret) = text.strip_prefix("hbv_")?.split_once('_')?;
        let tenant = tenant.parse().ok()?;
        (secret.len() == SECRET_CHARS).then(|| Self {
            tenant,
            secret: secret.to_owned(),
        })
    }

    /// As the visitor's device keeps it.
    pub fn expose(&self) -> String {
        format!("hbv_{}_{}", self.tenant.0.simple(), self.secret)
    }

    /// As it is stored.
    pub fn digest(&self) -> SecretDigest {
        digest(&self.secret)
    }
}

/// A fresh ticket: 256 random bits, good for one connection within 30 s.
pub fn generate_ticket() -> String {
    random_text(SECRET_CHARS)
}

fn random_text(chars: usize) -> String {
    let mut rng = rand::rng();
    (0..chars)
        .map(|_| letter(rng.random_range(0..62)))
        .collect()
}

fn letter(byte: u8) -> char {
    ALPHABET
        .get(usize::from(byte) % ALPHABET.len())
        .map_or('0', |letter| char::from(*letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tokens_are_recognised_whole_and_only_whole() {
        let key = ApiKey::generate();
        let text = key.expose();
        assert!(ApiKey::parse(&text).is_some_and(|parsed| parsed == key));
        for at in 0..text.len() {
            assert!(ApiKey::parse(&text[..at]).is_none(), "cut at {at}");
        }
        assert!(ApiKey::parse(&format!("{text}_")).is_none());

        let token = VisitorToken::generate(TenantId::generate());
        assert!(VisitorToken::parse(&token.expose()).is_some_and(|parsed| parsed == token));
        assert!(VisitorToken::parse("hbv_x_y").is_none());
    }

    #[test]
    fn secrets_do_not_repeat() {
        let secrets: std::collections::HashSet<_> = (0..1_000).map(|_| generate_ticket()).collect();
        assert_eq!(secrets.len(), 1_000);
    }
}
