//! Server-sent events as they arrive: bytes in, the data of events out. No I/O, bounded memory.
//!
//! Why not `eventsource-stream`: it bounds neither a line nor an event, and allocates three strings
//! for each; this hands out a borrowed text. Names, ids and retry times are not used by any dialect.

/// Most bytes of one line, and of one event's data.
pub(super) const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Not a stream of events we can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SseError {
    /// A line or an event is larger than [`MAX_EVENT_BYTES`].
    #[error("an event is too large")]
    TooLarge,
    /// An event's data is not UTF-8.
    #[error("an event is not UTF-8")]
    NotUtf8,
}

/// Splits a byte stream, cut anywhere, into events.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// The data of the event so far, each line followed by `\n`.
    data: Vec<u8>,
    /// The last chunk ended in `\r`: a `\n` at the start of the next belongs to it.
    after_cr: bool,
    /// The first line, which may begin with a byte order mark, is complete.
    started: bool,
}

impl SseParser {
    /// Takes the next bytes and hands each event they complete to `event`.
    pub(super) fn feed(
        &mut self,
        chunk: &[u8],
        mut event: impl FnMut(&str),
    ) -> Result<(), SseError> {
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
                self.take_line(line, &mut event)?;
            } else {
                self.keep(line)?;
                let whole = std::mem::take(&mut self.line);
                self.take_line(&whole, &mut event)?;
                // The buffer goes back, so a stream cut in mid-line allocates once.
                self.line = whole;
                self.line.clear();
            }
        }
        self.keep(rest)
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), SseError> {
        if self.line.len() + part.len() > MAX_EVENT_BYTES {
            return Err(SseError::TooLarge);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], event: &mut impl FnMut(&str)) -> Result<(), SseError> {
        let line = if std::mem::replace(&mut self.started, true) {
            line
        } else {
            line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
        };
        if line.is_empty() {
            return self.end_event(event);
        }
        let value = match line.strip_prefix(b"data") {
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            Some([]) => &[],
            // A comment, or a field nobody here needs.
            _ => return Ok(()),
        };
        if self.data.len() + value.len() >= MAX_EVENT_BYTES {
            return Err(SseError::TooLarge);
        }
        self.data.extend_from_slice(value);
        self.data.push(b'\n');
        Ok(())
    }

    fn end_event(&mut self, event: &mut impl FnMut(&str)) -> Result<(), SseError> {
        if let Some(data) = self.data.strip_suffix(b"\n") {
            event(std::str::from_utf8(data).map_err(|_| SseError::NotUtf8)?);
            self.data.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Result<Vec<String>, SseError> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.feed(chunk, |event| events.push(event.to_owned()))?;
        }
        Ok(events)
    }

    const STREAM: &str = "\u{feff}: hello\r\ndata: {\"a\":\"žluťoučký 🐎\"}\r\n\r\nevent: x\ndata:1\n\
        data: 2\ndata\n\nid: 7\n\nretry: 1\rdata:  two\r\rdatax: no\n\ndata: [DONE]\n\ndata: unfinished";

    #[test]
    fn events_are_split_as_the_standard_says() {
        let events = parse(&[STREAM.as_bytes()]).unwrap();
        assert_eq!(
            events,
            ["{\"a\":\"žluťoučký 🐎\"}", "1\n2\n", " two", "[DONE]"]
        );
    }

    #[test]
    fn a_split_at_any_two_bytes_gives_the_same_events() {
        let (bytes, whole) = (STREAM.as_bytes(), parse(&[STREAM.as_bytes()]).unwrap());
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(
                    parse(&parts).unwrap(),
                    whole,
                    "split at {first} and {second}"
                );
            }
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(parse(&single).unwrap(), whole);
    }

    #[test]
    fn memory_is_bounded() {
        let mut parser = SseParser::default();
        let chunk = vec![b'x'; 64 * 1024];
        let endless_line = (0..100).find_map(|_| parser.feed(&chunk, |_| ()).err());
        assert_eq!(endless_line, Some(SseError::TooLarge));
        assert!(parser.line.len() <= MAX_EVENT_BYTES);

        let mut parser = SseParser::default();
        let line = [b"data: ".as_slice(), &chunk, b"\n"].concat();
        let endless_event = (0..100).find_map(|_| parser.feed(&line, |_| ()).err());
        assert_eq!(endless_event, Some(SseError::TooLarge));
        assert!(parser.data.len() <= MAX_EVENT_BYTES);
    }

    #[test]
    fn data_that_is_not_utf_8_is_refused() {
        assert_eq!(parse(&[b"data: \xff\n\n"]), Err(SseError::NotUtf8));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_give_the_same_answer(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'd'), any::<u8>()],
                0..200,
            ),
            lines in "(data: ?[a-zč]{0,4}(\n|\r|\r\n){1,2}){0,6}",
            size in 1_usize..20,
        ) {
            let bytes = [lines.as_bytes(), &bytes].concat();
            let chunks: Vec<_> = bytes.chunks(size).collect();
            prop_assert_eq!(parse(&chunks), parse(&[&bytes]));
        }
    }
}
