//! Tokens back to text. A token is a run of bytes and may end inside a character, so bytes wait
//! here until they make whole characters: a client never sees half of one.

/// Collects the bytes of tokens and gives them out as whole characters.
#[derive(Debug, Default)]
pub struct Detokenizer {
    /// The beginning of a character whose end has not come yet: at most three bytes.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Adds a token's bytes; returns the text that is complete now, possibly empty.
    /// Bytes that can never become a character are replaced by U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let whole = self
                        .pending
                        .drain(..error.valid_up_to())
                        .collect::<Vec<_>>();
                    text.push_str(&String::from_utf8_lossy(&whole));
                    // No length means the bytes may still become a character.
                    let Some(invalid) = error.error_len() else {
                        return text;
                    };
                    self.pending.drain(..invalid);
                    text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
    }

    /// What is left when the answer ends: U+FFFD for a character that was never finished.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }
}

/// The bytes of a vocabulary entry written in the byte-level alphabet of GPT-2, in which every
/// byte is one printable character. `None` when a character is outside that alphabet.
pub fn bytes_of_entry(entry: &str) -> Option<Vec<u8>> {
    entry.chars().map(byte_of_char).collect()
}

/// Printable Latin-1 stands for itself; the other 68 bytes are numbered upwards from U+0100.
fn byte_of_char(character: char) -> Option<u8> {
    let code = u32::from(character);
    let offset = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => return u8::try_from(code).ok(),
        0x100..=0x143 => code - 0x100,
        _ => return None,
    };
    let byte = match offset {
        0..=0x20 => offset,
        0x21..=0x42 => offset - 0x21 + 0x7f,
        _ => 0xad,
    };
    u8::try_from(byte).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_a_character_waits_for_its_other_half() {
        let mut detokenizer = Detokenizer::default();
        assert_eq!(detokenizer.push("é".as_bytes().split_at(1).0), "");
        assert_eq!(detokenizer.push("é".as_bytes().split_at(1).1), "é");
        assert_eq!(detokenizer.finish(), "");
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        let mut detokenizer = Detokenizer::default();
        assert_eq!(detokenizer.push(b"a\xff"), "a\u{fffd}");
        assert_eq!(detokenizer.push(b"\xe2\x82b"), "\u{fffd}b");
        assert_eq!(detokenizer.push(b"\xe2\x82"), "");
        assert_eq!(detokenizer.finish(), "\u{fffd}");
    }

    #[test]
    fn byte_alphabet_covers_every_byte_once() {
        let mut seen: Vec<u8> = (0..=0x143u32)
            .filter_map(char::from_u32)
            .filter_map(byte_of_char)
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255u8).collect::<Vec<_>>());
        assert_eq!(bytes_of_entry("ĠHiĊ"), Some(b" Hi\n".to_vec()));
        assert_eq!(bytes_of_entry("日"), None);
    }

    proptest! {
        #[test]
        fn any_cut_of_a_text_gives_the_same_text(text in ".{0,40}", step in 1usize..5) {
            let mut detokenizer = Detokenizer::default();
            let mut out = String::new();
            for part in text.as_bytes().chunks(step) {
                out.push_str(&detokenizer.push(part));
            }
            out.push_str(&detokenizer.finish());
            prop_assert_eq!(out, text);
        }
    }
}
