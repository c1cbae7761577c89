//! Bare JSON in an answer's lines: an object a line, or one document over many. Bounded. Pure.

use crate::llm::sse::{MAX_EVENT_BYTES, TooLarge};

/// Finds the documents in lines that are no events.
#[derive(Debug, Default)]
pub(super) struct JsonLines {
    /// The document that is not over.
    document: Vec<u8>,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl JsonLines {
    /// Takes a line, and hands on each document that is over with it. `false` if it is no JSON.
    pub(super) fn feed(
        &mut self,
        line: &[u8],
        mut document: impl FnMut(&[u8]),
    ) -> Result<bool, TooLarge> {
        let mut rest = line;
        loop {
            if self.document.is_empty() {
                // Between two documents of a list there is a comma.
                rest = rest.trim_ascii_start();
                rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
                if rest.is_empty() {
                    return Ok(true);
                }
                if !matches!(rest.first(), Some(b'{' | b'[')) {
                    return Ok(false);
                }
            }
            let end = rest.iter().position(|byte| self.is_over_with(*byte));
            let (part, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            if self.document.len() + part.len() >= MAX_EVENT_BYTES {
                return Err(TooLarge);
            }
            self.document.extend_from_slice(part);
            if end.is_none() {
                self.document.push(b'\n');
                return Ok(true);
            }
            document(&self.document);
            *self = Self::default();
            rest = after;
        }
    }

    /// Whether this byte closes what the first opened.
    fn is_over_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(lines: &[&str]) -> (Vec<String>, Vec<bool>) {
        let (mut reader, mut found) = (JsonLines::default(), Vec::new());
        let taken = lines
            .iter()
            .map(|line| {
                reader
                    .feed(line.as_bytes(), |json| {
                        found.push(String::from_utf8_lossy(json).into_owned());
                    })
                    .unwrap()
            })
            .collect();
        (found, taken)
    }

    // M14
    #[test]
    fn documents_are_found_a_line_and_over_lines() {
        let (found, taken) =
            documents(&["{\"a\":\"}\\\"\"}", "{", "  \"b\": [1]", "}", "{}{}, {}"]);
        assert_eq!(
            found,
            ["{\"a\":\"}\\\"\"}", "{\n  \"b\": [1]\n}", "{}", "{}", "{}"]
        );
        assert_eq!(taken, [true; 5]);
        assert_eq!(documents(&["<html>"]).1, [false]);
        assert_eq!(documents(&["Internal Server Error"]).1, [false]);
    }

    #[test]
    fn an_endless_document_is_refused() {
        let mut reader = JsonLines::default();
        let line = vec![b'['; 64 * 1024];
        assert!((0..100).any(|_| reader.feed(&line, |_| ()).is_err()));
        assert!(reader.document.len() <= MAX_EVENT_BYTES);
    }
}
