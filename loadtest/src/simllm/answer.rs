//! What the simulated model says: a pure function of the question and the number of tokens.

use std::fmt::Write as _;

/// Every so many tokens one lies outside the Basic Multilingual Plane, so that a reader who counts
/// bytes or scalar values where UTF-16 code units are meant is found out.
const WIDE_TOKEN_EVERY: u32 = 16;

/// The `index`-th token (from 0) of the answer to `question`.
///
/// The first names the question (`a` and 8 hexadecimal digits of the hash of its last paragraph), the
/// others number themselves: ` t1`, ` t2`, …
pub fn answer_token(question: &str, index: u32) -> String {
    match index {
        0 => format!("a{:08x}", fnv1a(last_paragraph(question))),
        _ if index.is_multiple_of(WIDE_TOKEN_EVERY) => format!(" t{index}é😀"),
        _ => format!(" t{index}"),
    }
}

/// The whole answer to `question` in `tokens` tokens.
pub fn answer_text(question: &str, tokens: u32) -> String {
    let mut text = String::with_capacity(tokens as usize * 5);
    for index in 0..tokens {
        // Writing to a string cannot fail.
        text.write_str(&answer_token(question, index))
            .unwrap_or_default();
    }
    text
}

/// A server puts questions that were left without an answer into one turn, a paragraph each; the last
/// is what is asked now.
fn last_paragraph(question: &str) -> &str {
    question
        .rsplit_once("\n\n")
        .map_or(question, |(_, last)| last)
}

/// FNV-1a, 32 bit: enough to tell one question's answer from another's.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_depends_on_the_question_and_counts_its_tokens() {
        assert_eq!(answer_text("", 3), "a811c9dc5 t1 t2");
        assert_ne!(answer_text("one", 2), answer_text("two", 2));
        assert_eq!(answer_text("one\n\ntwo", 2), answer_text("two", 2));
        assert_eq!(answer_text("x", 0), "");
        assert!(answer_text("x", 17).ends_with(" t16é😀"));
    }
}
