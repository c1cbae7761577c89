//! Server-sent events as they arrive: bytes in, events out. No I/O, bounded memory.
//!
//! Lenient where real upstreams are careless: an event needs no blank line before the next one, the last
//! needs none at all, names of fields may be indented, and a line that is no field is handed on, since
//! it may be bare JSON. Why not a crate: `docs/adr/0015-upstreams-read-by-what-is-meant.md`.

/// Most bytes of one line, and of one event's data.
pub(super) const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Longest name of an event that is kept; none that matters is longer.
const MAX_NAME_BYTES: usize = 32;

/// A line or an event is larger than [`MAX_EVENT_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is too large")]
pub(super) struct TooLarge;

/// What a stream consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A comment, a blank line that ends nothing, a field without meaning here: the other side lives.
    KeepAlive,
    /// An event.
    Event {
        /// Its `event:` field, without blanks; empty for most.
        name: &'a [u8],
        /// Its `data:` lines, joined by `\n`. May be empty, and need not be UTF-8.
        data: &'a [u8],
    },
    /// A line that is no field of an event.
    Line(&'a [u8]),
}

/// Splits a byte stream, cut anywhere, into events.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    event: Event,
    /// The last chunk ended in `\r`: a `\n` at the start of the next belongs to it.
    after_cr: bool,
    /// The first line, which may begin with a byte order mark, is complete.
    started: bool,
}

/// The event so far.
#[derive(Debug, Default)]
struct Event {
    name: Vec<u8>,
    /// Each line followed by `\n`.
    data: Vec<u8>,
}

impl SseParser {
    /// Takes the next bytes and hands each item they complete to `item`.
    pub(super) fn feed(
        &mut self,
        chunk: &[u8],
        mut item: impl FnMut(Item<'_>),
    ) -> Result<(), TooLarge> {
        let mut rest = chunk;
        if self.after_cr && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            self.after_cr = false;
        }
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, end) = rest.split_at(at);
            rest = match end {
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [b'\r', b'\n', after @ ..] | [_, after @ ..] => after,
                [] => &[],
            };
            if self.line.is_empty() {
                self.take_line(line, &mut item)?;
            } else {
                self.keep(line)?;
                let whole = std::mem::take(&mut self.line);
                self.take_line(&whole, &mut item)?;
                // The buffer goes back, so a stream cut in mid-line allocates once.
                self.line = whole;
                self.line.clear();
            }
        }
        self.keep(rest)
    }

    /// The stream is over: hands on the line and the event that nothing ended. Whether they are whole
    /// is for the reader to see.
    pub(super) fn finish(&mut self, mut item: impl FnMut(Item<'_>)) -> Result<(), TooLarge> {
        let rest = std::mem::take(&mut self.line);
        if !rest.is_empty() {
            self.take_line(&rest, &mut item)?;
        }
        self.event.dispatch(&mut item);
        Ok(())
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), TooLarge> {
        if self.line.len() + part.len() > MAX_EVENT_BYTES {
            return Err(TooLarge);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], item: &mut impl FnMut(Item<'_>)) -> Result<(), TooLarge> {
        let line = if std::mem::replace(&mut self.started, true) {
            line
        } else {
            line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
        };
        if line.trim_ascii().is_empty() {
            if !self.event.dispatch(item) {
                item(Item::KeepAlive);
            }
            return Ok(());
        }
        match Field::of(line) {
            Field::Data(value) => {
                if self.event.is_over_before(value) {
                    self.event.dispatch(item);
                }
                self.event.append(value)?;
            }
            Field::Name(name) => {
                // Between two events without a blank line, a name begins the second.
                if !self.event.data.is_empty() {
                    self.event.dispatch(item);
                }
                self.event.name = name
                    .get(..MAX_NAME_BYTES.min(name.len()))
                    .unwrap_or_default()
                    .to_vec();
            }
            // Said by servers that mistook the name of an event for that of a field.
            Field::Error(data) => {
                self.event.dispatch(item);
                item(Item::Event {
                    name: b"error",
                    data,
                });
            }
            Field::Meaningless => item(Item::KeepAlive),
            Field::None => item(Item::Line(line)),
        }
        Ok(())
    }
}

impl Event {
    /// Whether a further line of data cannot belong to the same event: after a whole object, JSON has
    /// no other.
    fn is_over_before(&self, next: &[u8]) -> bool {
        let next = next.trim_ascii();
        self.data.trim_ascii_end().ends_with(b"}") && (next.starts_with(b"{") || next == b"[DONE]")
    }

    fn append(&mut self, value: &[u8]) -> Result<(), TooLarge> {
        if self.data.len() + value.len() >= MAX_EVENT_BYTES {
            return Err(TooLarge);
        }
        self.data.extend_from_slice(value);
        self.data.push(b'\n');
        Ok(())
    }

    /// Hands it on, if there is one.
    fn dispatch(&mut self, item: &mut impl FnMut(Item<'_>)) -> bool {
        let is_one = if let Some(data) = self.data.strip_suffix(b"\n") {
            let name = &self.name;
            item(Item::Event { name, data });
            true
        } else {
            false
        };
        self.name.clear();
        self.data.clear();
        is_one
    }
}

/// What a line says.
enum Field<'a> {
    Data(&'a [u8]),
    Name(&'a [u8]),
    Error(&'a [u8]),
    /// A comment, or a field of the standard that no dialect uses.
    Meaningless,
    /// Not a field.
    None,
}

impl<'a> Field<'a> {
    fn of(line: &'a [u8]) -> Self {
        // As nearly every line is.
        if let Some(value) = line.strip_prefix(b"data: ") {
            return Self::Data(value);
        }
        let line = line.trim_ascii_start();
        let at = line.iter().position(|byte| *byte == b':');
        let (name, value) = match at {
            Some(at) => line.split_at(at),
            None => (line, [].as_slice()),
        };
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let name = name.trim_ascii_end();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("data") {
            Self::Data(value)
        } else if is("event") {
            Self::Name(value.trim_ascii())
        } else if is("error") && at.is_some() {
            Self::Error(value)
        } else if is("") || is("id") || is("retry") {
            Self::Meaningless
        } else {
            Self::None
        }
    }
}

#[cfg(test)]
mod tests;
