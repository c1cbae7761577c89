//! What a message may say.

use crate::{ErrorCode, Metadata};

/// The rules for a message's content, the same over WebSocket and HTTP.
pub fn message_violation(
    text: &str,
    metadata: Option<&Metadata>,
    text_chars: usize,
) -> Option<(ErrorCode, &'static str)> {
    if text.trim().is_empty() {
        return Some((ErrorCode::Invalid, "text is empty"));
    }
    if text.contains('\0') {
        return Some((ErrorCode::Invalid, "text contains a NUL character"));
    }
    // Counting characters is only needed when the bytes alone do not settle it.
    if text.len() > text_chars && text.chars().count() > text_chars {
        return Some((ErrorCode::TooLarge, "text is longer than limits.text_chars"));
    }
    metadata.and_then(Metadata::violation)
}
