//! An upstream's own words, made fit for our log: short, on one line, without our key and without what
//! people wrote. Pure.

use std::collections::HashSet;

use hubbub_actors::ports::ChatTurn;

use crate::telemetry::logs::truncated;

/// Most bytes of an upstream's words in our log.
const LOGGED_BYTES: usize = 512;

/// So many bytes of a prompt in a row are a quotation. Shorter ones are words that anybody uses.
const QUOTED_BYTES: usize = 16;

/// What is written instead.
const HIDDEN: &str = "***";

/// The words as they may be logged: `secrets` and quotations from the prompt hidden.
pub(super) fn for_log<'a>(
    said: &str,
    secrets: impl Iterator<Item = &'a str>,
    prompt: &[ChatTurn],
) -> String {
    // A quotation that is cut at the end is still found: more is searched than is logged.
    let mut words = truncated(said, 2 * LOGGED_BYTES).to_owned();
    for secret in secrets.filter(|secret| !secret.is_empty()) {
        words = words.replace(secret, HIDDEN);
    }
    let words = without_quotations(&words, prompt);
    let mut line = String::with_capacity(words.len());
    for character in words.chars() {
        match character {
            '\n' | '\r' | '\t' => line.push(' '),
            control if control.is_control() => line.extend(control.escape_default()),
            other => line.push(other),
        }
    }
    truncated(line.trim(), LOGGED_BYTES).to_owned()
}

/// One pass over the prompt, however long it is.
fn without_quotations(words: &str, prompt: &[ChatTurn]) -> String {
    let bytes = words.as_bytes();
    let windows: HashSet<&[u8]> = bytes.windows(QUOTED_BYTES).collect();
    let mut quoted: HashSet<&[u8]> = HashSet::new();
    for turn in prompt {
        let text = turn.text.as_bytes();
        quoted.extend(
            text.windows(QUOTED_BYTES)
                .filter(|part| windows.contains(part)),
        );
    }
    let mut hidden = vec![false; bytes.len()];
    for (at, part) in bytes.windows(QUOTED_BYTES).enumerate() {
        if quoted.contains(part) {
            hidden
                .iter_mut()
                .skip(at)
                .take(QUOTED_BYTES)
                .for_each(|byte| *byte = true);
        }
    }
    let mut shown = String::with_capacity(words.len());
    let mut was_hidden = false;
    for (at, character) in words.char_indices() {
        let is_hidden = hidden.get(at).copied().unwrap_or(false);
        match (is_hidden, was_hidden) {
            (false, _) => shown.push(character),
            (true, false) => shown.push_str(HIDDEN),
            (true, true) => {}
        }
        was_hidden = is_hidden;
    }
    shown
}

#[cfg(test)]
mod tests {
    use hubbub_actors::ports::TurnRole;

    use super::*;

    fn logged(said: &str) -> String {
        let turn = |text: &str| ChatTurn {
            role: TurnRole::User,
            text: text.into(),
        };
        let prompt = [
            turn("be brief"),
            turn("my card is 4111 1111 1111 1111, žluťoučký kůň"),
        ];
        for_log(said, ["sk-canary"].into_iter(), &prompt)
    }

    // H12
    #[test]
    fn words_are_short_and_tell_neither_key_nor_prompt() {
        assert_eq!(logged("model 'x' not found"), "model 'x' not found");
        assert_eq!(logged("key sk-canary is wrong"), "key *** is wrong");
        assert_eq!(
            logged("invalid: 'my card is 4111 1111 1111 1111, žl' is too long"),
            "invalid: '***' is too long"
        );
        assert_eq!(logged("a\nb\x1b[31m\u{9b}c"), "a b\\u{1b}[31m\\u{9b}c");
        assert!(logged(&"x".repeat(5_000)).len() <= LOGGED_BYTES);
        // Cut in the middle of a quotation: its rest is not shown either.
        let long = format!("{} 4111 1111 1111 1111", "x".repeat(LOGGED_BYTES - 12));
        assert!(!logged(&long).contains("4111"));
    }
}
