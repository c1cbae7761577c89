//! The id that a message's writer gives it, kept as it was written.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::ReplyId;

/// A message's id, given by whoever wrote it. Unique within its session; the key of idempotency.
///
/// A UUID may be written in upper or lower case, without hyphens, in braces or as a URN: these are the
/// same id, and two of them are equal. It is given back as it was written, so that a client which compares
/// strings finds its own message.
#[derive(Clone, Copy)]
pub struct ClientMessageId {
    uuid: Uuid,
    spelling: Spelling,
}

/// How a UUID is written. Bit n is set where its nth hexadecimal digit is an upper-case letter, bits 32 and
/// 33 tell the form; 0 is lower case with hyphens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spelling(u64);

const SIMPLE: u64 = 1;
const URN: u64 = 2;
const BRACED: u64 = 3;

impl Spelling {
    /// Of a text that is a UUID.
    fn of(text: &str) -> Self {
        let (form, digits) = match text.len() {
            32 => (SIMPLE, text),
            38 => (BRACED, text),
            45 => (URN, text.strip_prefix("urn:uuid:").unwrap_or(text)),
            _ => (0, text),
        };
        let digits = digits.bytes().filter(u8::is_ascii_hexdigit);
        let upper = digits
            .zip(0u32..32)
            .filter(|(digit, _)| digit.is_ascii_uppercase())
            .fold(0, |bits, (_, place)| bits | 1 << place);
        Self(form << 32 | upper)
    }

    fn form(self) -> u64 {
        self.0 >> 32 & 3
    }

    fn is_upper(self, place: u32) -> bool {
        self.0 >> place & 1 == 1
    }
}

impl ClientMessageId {
    /// A fresh UUIDv7.
    pub fn generate() -> Self {
        Uuid::now_v7().into()
    }

    /// The id itself, however it is written.
    pub fn uuid(self) -> Uuid {
        self.uuid
    }

    /// How it is written, as a number to keep beside the id; 0 for lower case with hyphens.
    pub fn spelling(self) -> i64 {
        // 34 bits are used.
        self.spelling.0.cast_signed()
    }

    /// An id that is written in a way that [`ClientMessageId::spelling`] once told.
    pub fn spelled(uuid: Uuid, spelling: i64) -> Self {
        let spelling = Spelling(spelling.cast_unsigned());
        Self { uuid, spelling }
    }
}

impl From<Uuid> for ClientMessageId {
    fn from(uuid: Uuid) -> Self {
        Self::spelled(uuid, 0)
    }
}

impl From<ReplyId> for ClientMessageId {
    /// An answer's message is keyed by its reply, so a reply can never be stored twice.
    fn from(reply: ReplyId) -> Self {
        reply.0.into()
    }
}

impl FromStr for ClientMessageId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (uuid, spelling) = (Uuid::parse_str(text)?, Spelling::of(text));
        Ok(Self { uuid, spelling })
    }
}

impl fmt::Display for ClientMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.spelling == Spelling::default() {
            return fmt::Display::fmt(&self.uuid, f);
        }
        let mut buffer = Uuid::encode_buffer();
        let form = self.spelling.form();
        let lower: &str = match form {
            SIMPLE => self.uuid.simple().encode_lower(&mut buffer),
            _ => self.uuid.hyphenated().encode_lower(&mut buffer),
        };
        f.write_str(match form {
            URN => "urn:uuid:",
            BRACED => "{",
            _ => "",
        })?;
        let mut place = 0;
        for letter in lower.chars() {
            let is_upper = letter != '-' && self.spelling.is_upper(place);
            place += u32::from(letter != '-');
            f.write_char(if is_upper {
                letter.to_ascii_uppercase()
            } else {
                letter
            })?;
        }
        f.write_str(if form == BRACED { "}" } else { "" })
    }
}

impl fmt::Debug for ClientMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ClientMessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClientMessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| de::Error::custom(format_args!("UUID parsing failed: {error}")))
    }
}

impl PartialEq for ClientMessageId {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}

impl Eq for ClientMessageId {}

impl Hash for ClientMessageId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl PartialOrd for ClientMessageId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ClientMessageId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.uuid.cmp(&other.uuid)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mixed_case(text: &str, upper: u64) -> String {
        let cased = text.chars().enumerate().map(|(n, letter)| {
            if upper >> (n % 64) & 1 == 1 {
                letter.to_ascii_uppercase()
            } else {
                letter
            }
        });
        cased.collect()
    }

    proptest! {
        // S5
        #[test]
        fn an_id_is_given_back_as_it_was_written(id: u128, upper: u64, form in 0..4) {
            let uuid = Uuid::from_u128(id);
            let text = match form {
                0 => mixed_case(&uuid.to_string(), upper),
                1 => mixed_case(&uuid.simple().to_string(), upper),
                2 => format!("{{{}}}", mixed_case(&uuid.to_string(), upper)),
                _ => format!("urn:uuid:{}", mixed_case(&uuid.to_string(), upper)),
            };
            let read: ClientMessageId = text.parse().unwrap();
            prop_assert_eq!(read.to_string(), text);
            prop_assert_eq!(read, ClientMessageId::from(uuid));
            let stored = ClientMessageId::spelled(read.uuid(), read.spelling());
            prop_assert_eq!(stored.to_string(), read.to_string());
        }
    }

    #[test]
    fn a_spelling_that_was_never_told_is_still_an_id() {
        for spelling in [-1, i64::MIN, i64::MAX] {
            let id = ClientMessageId::spelled(Uuid::max(), spelling);
            assert_eq!(id.to_string().parse::<ClientMessageId>().unwrap(), id);
        }
    }
}
