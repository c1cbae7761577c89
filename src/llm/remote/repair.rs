//! JSON that a strict parser refuses for what stands in its strings, made readable. Pure.
//!
//! Upstreams cut their texts between tokens, and a token may end inside a character: half a surrogate
//! pair (`"\ud83d"`), or some bytes of one in UTF-8. No `str` can hold those, so they are written as
//! private characters, which [`Text`](super::text::Text) puts together again.

use std::ops::RangeInclusive;

/// Stands for a lone surrogate, `D800` to `DFFF`: far into the last private plane, where no text is.
const SURROGATES: RangeInclusive<u32> = 0x10_D800..=0x10_DFFF;
const SURROGATE_OFFSET: u32 = 0x10_0000;

/// Stands for a byte that is not UTF-8 where it is, `80` to `FF`.
const BYTES: RangeInclusive<u32> = 0x10_F780..=0x10_F7FF;
const BYTE_OFFSET: u32 = 0x10_F700;

/// A part of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Surrogate(u16),
    Byte(u8),
}

/// The part that a private character stands for.
pub(super) fn part(character: char) -> Option<Part> {
    let code = u32::from(character);
    if SURROGATES.contains(&code) {
        return u16::try_from(code - SURROGATE_OFFSET)
            .ok()
            .map(Part::Surrogate);
    }
    if BYTES.contains(&code) {
        return u8::try_from(code - BYTE_OFFSET).ok().map(Part::Byte);
    }
    None
}

/// The same JSON as text, with everything in its strings escaped as it must be, and `null` for numbers
/// that JSON does not have.
pub(super) fn repaired(json: &[u8]) -> String {
    let mut repair = Repair {
        out: String::with_capacity(json.len() + 16),
        in_string: false,
    };
    for chunk in json.utf8_chunks() {
        repair.text(chunk.valid());
        for byte in chunk.invalid() {
            repair.push_private(BYTE_OFFSET + u32::from(*byte));
        }
    }
    repair.out
}

struct Repair {
    out: String,
    in_string: bool,
}

impl Repair {
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let length = if self.in_string {
                self.within_string(rest, character)
            } else {
                self.outside(rest, character)
            };
            rest = rest.get(length..).unwrap_or_default();
        }
    }

    /// Returns how many bytes were taken.
    fn outside(&mut self, rest: &str, character: char) -> usize {
        self.in_string = character == '"';
        for number in ["NaN", "-Infinity", "Infinity"] {
            if rest.starts_with(number) {
                self.out.push_str("null");
                return number.len();
            }
        }
        self.out.push(character);
        character.len_utf8()
    }

    /// Returns how many bytes were taken.
    fn within_string(&mut self, rest: &str, character: char) -> usize {
        match character {
            '"' => self.in_string = false,
            '\\' => return self.escape(rest),
            control if control < ' ' => {
                let escaped = format!("\\u{:04x}", u32::from(control));
                self.out.push_str(&escaped);
                return 1;
            }
            _ => {}
        }
        self.out.push(character);
        character.len_utf8()
    }

    fn escape(&mut self, rest: &str) -> usize {
        let Some(unit) = unit(rest) else {
            // The backslash and what it escapes.
            let length = rest.chars().take(2).map(char::len_utf8).sum();
            self.out.push_str(rest.get(..length).unwrap_or_default());
            return length;
        };
        let is_pair = (0xD800..=0xDBFF).contains(&unit)
            && rest
                .get(UNIT_BYTES..)
                .and_then(self::unit)
                .is_some_and(|low| (0xDC00..=0xDFFF).contains(&low));
        let length = if is_pair { 2 * UNIT_BYTES } else { UNIT_BYTES };
        if !is_pair && (0xD800..=0xDFFF).contains(&unit) {
            self.push_private(SURROGATE_OFFSET + u32::from(unit));
        } else {
            self.out.push_str(rest.get(..length).unwrap_or_default());
        }
        length
    }

    fn push_private(&mut self, code: u32) {
        // Outside a string it stays what it is: not JSON.
        self.out.push(char::from_u32(code).unwrap_or('\u{FFFD}'));
    }
}

/// Bytes of `\uXXXX`.
const UNIT_BYTES: usize = 6;

/// The code unit that a text begins with as an escape.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn read(json: &[u8]) -> Option<Value> {
        serde_json::from_str(&repaired(json)).ok()
    }

    #[test]
    fn strings_that_no_parser_takes_are_read() {
        let text = |json: &[u8]| read(json).unwrap().as_str().unwrap().to_owned();
        assert_eq!(text(br#""\ud83d\ude00 \u010d""#), "😀 č", "a whole pair");
        assert_eq!(text(br#""a\ud83d""#), "a\u{10D83D}");
        assert_eq!(text(br#""\ude00\n\"""#), "\u{10DE00}\n\"");
        assert_eq!(text(br#""\\ud83d""#), "\\ud83d", "not an escape");
        assert_eq!(text(b"\"\xf0\x9f\""), "\u{10F7F0}\u{10F79F}");
        assert_eq!(text(b"\"a\tb\nc\""), "a\tb\nc");
        assert_eq!(read(b"{\"a\":[NaN,-Infinity,1]}").unwrap()["a"][2], 1);
        assert_eq!(part('\u{10D83D}'), Some(Part::Surrogate(0xD83D)));
        assert_eq!(part('\u{10F79F}'), Some(Part::Byte(0x9F)));
        assert_eq!(part('č'), None);
    }

    proptest! {
        #[test]
        fn what_is_json_stays_what_it_is(text in any::<String>(), number in any::<i64>()) {
            let value = serde_json::json!({"a": [text, number], text.as_str(): null});
            let json = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(read(&json), Some(value));
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(
            prop_oneof![Just(b'"'), Just(b'\\'), Just(b'u'), Just(b'd'), any::<u8>()], 0..60,
        )) {
            drop(repaired(&bytes));
        }
    }
}
