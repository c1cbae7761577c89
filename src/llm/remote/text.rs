//! The text of an answer, whole characters only. Pure.

use super::repair::{Part, part};

/// Collects pieces of text, and puts characters together that were split between two of them. Half a
/// character whose other half never comes is dropped at the end, and shown as U+FFFD before more text.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// Whole, and not yet taken.
    ready: String,
    half: Half,
}

#[derive(Debug, Default)]
enum Half {
    #[default]
    None,
    Surrogate(u16),
    /// One to three bytes of a character in UTF-8.
    Bytes(Vec<u8>),
}

impl Text {
    /// Adds a piece in which no character is split.
    pub(super) fn push_whole(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.give_up();
            self.ready.push_str(piece);
        }
    }

    /// Adds a piece of [`repaired`](super::repair::repaired) JSON.
    pub(super) fn push(&mut self, piece: &str) {
        for character in piece.chars() {
            match part(character) {
                None => {
                    self.give_up();
                    self.ready.push(character);
                }
                Some(Part::Surrogate(unit)) => self.surrogate(unit),
                Some(Part::Byte(byte)) => self.byte(byte),
            }
        }
    }

    /// Takes what is whole.
    pub(super) fn take(&mut self) -> Option<String> {
        (!self.ready.is_empty()).then(|| std::mem::take(&mut self.ready))
    }

    fn surrogate(&mut self, unit: u16) {
        if let Half::Surrogate(high) = self.half
            && let Some(Ok(character)) = char::decode_utf16([high, unit]).next()
        {
            self.half = Half::None;
            self.ready.push(character);
            return;
        }
        self.give_up();
        if (0xD800..=0xDBFF).contains(&unit) {
            self.half = Half::Surrogate(unit);
        } else {
            self.ready.push(char::REPLACEMENT_CHARACTER);
        }
    }

    fn byte(&mut self, byte: u8) {
        let mut bytes = match std::mem::take(&mut self.half) {
            Half::Bytes(bytes) => bytes,
            other => {
                self.half = other;
                self.give_up();
                Vec::with_capacity(4)
            }
        };
        bytes.push(byte);
        let found = std::str::from_utf8(&bytes).map(str::to_owned);
        match found {
            Ok(text) => self.ready.push_str(&text),
            // It may still become one.
            Err(error) if error.error_len().is_none() => self.half = Half::Bytes(bytes),
            Err(_) => {
                self.ready.push(char::REPLACEMENT_CHARACTER);
                // The byte that did not fit may be the first of the next.
                if bytes.len() > 1 {
                    self.byte(byte);
                }
            }
        }
    }

    fn give_up(&mut self) {
        if !matches!(std::mem::take(&mut self.half), Half::None) {
            self.ready.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::repair::repaired;
    use super::*;

    fn joined(pieces: &[&[u8]]) -> String {
        let (mut text, mut all) = (Text::default(), String::new());
        for piece in pieces {
            let json = repaired(&[b"\"", *piece, b"\""].concat());
            text.push(&serde_json::from_str::<String>(&json).unwrap());
            all.extend(text.take());
        }
        all
    }

    // M8
    #[test]
    fn split_characters_are_put_together() {
        assert_eq!(joined(&[b"a\\ud83d", b"\\ude00b"]), "a😀b");
        assert_eq!(joined(&[b"\xf0", b"\x9f\x98", b"\x80!"]), "😀!");
        assert_eq!(
            joined(&[b"\\ud83d", b"", b"\\ude00"]),
            "😀",
            "an empty piece between"
        );
    }

    #[test]
    fn halves_without_their_other_half_are_shown_as_such() {
        assert_eq!(joined(&[b"a\\ud83d", b"b"]), "a\u{FFFD}b");
        assert_eq!(joined(&[b"\\ude00", b"b"]), "\u{FFFD}b");
        assert_eq!(joined(&[b"\\ud83d", b"\\ud83d", b"\\ude00"]), "\u{FFFD}😀");
        assert_eq!(joined(&[b"\xf0\x9f", b"\xc4", b"\x8d"]), "\u{FFFD}č");
        assert_eq!(joined(&[b"\xff", b"b"]), "\u{FFFD}b");
        assert_eq!(joined(&[b"a\\ud83d"]), "a", "nothing comes after it");
        assert_eq!(joined(&[b"\xf0\x9f", b"\\ud83d", b"\\ude00"]), "\u{FFFD}😀");
    }

    proptest! {
        #[test]
        fn a_text_cut_at_any_bytes_is_the_same(
            text in "[a-zč🐎😀€ ]{0,12}", cuts in proptest::collection::vec(0_usize..40, 0..6)
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut from = 0;
            let mut pieces = Vec::new();
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(joined(&pieces), text);
        }
    }
}
