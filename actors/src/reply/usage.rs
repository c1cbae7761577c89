//! Tokens, counted by us where nobody else does. Pure.

use hubbub_protocol::Usage;

use crate::ports::ChatTurn;

/// Bytes of text that count as one token of usage: what English text comes to with the usual vocabularies.
/// An estimate to bill and compare by; whether a prompt fits is decided by a more careful one.
const TOKEN_BYTES: usize = 4;

/// Estimated tokens of a text.
pub(crate) fn tokens(text: &str) -> u64 {
    text.len().div_ceil(TOKEN_BYTES) as u64
}

/// Estimated tokens of a prompt.
pub(crate) fn prompt_tokens(turns: &[ChatTurn]) -> u64 {
    turns.iter().map(|turn| tokens(&turn.text)).sum()
}

/// What an answer of so many bytes took, as we count it.
pub(crate) fn of_bytes(prompt_tokens: u64, bytes: usize) -> Usage {
    Usage {
        input_tokens: prompt_tokens,
        output_tokens: bytes.div_ceil(TOKEN_BYTES) as u64,
        estimated: true,
        ..Usage::default()
    }
}
