//! Text as PostgreSQL can hold it, and its digest.

use sha2::{Digest as _, Sha256};

/// SHA-256 of a text.
pub(super) type Digest = [u8; 32];

/// PostgreSQL's text has no NUL, JSON's has: one message with it would fail its whole batch. It
/// becomes U+FFFD, as a decoder would do with a byte it cannot take.
pub(super) fn storable(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{FFFD}")
    } else {
        text
    }
}

/// What tells a repeated message from a conflict.
pub(super) fn digest(text: &str) -> Digest {
    Sha256::digest(text.as_bytes()).into()
}
