//! A shape: a response as some upstream sends it, and what it must come to.

use std::path::{Path, PathBuf};

use hubbub::config::Api;
use hubbub_protocol::Usage;

/// How the connection ends after the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Close,
    Reset,
}

/// One file.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The file's name.
    pub name: String,
    /// The dialect.
    pub api: Api,
    pub status: u16,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
    pub after: After,
    /// The text that is shown.
    pub text: String,
    /// `complete`, `length`, or an error's name.
    pub end: String,
    pub usage: Option<Usage>,
    /// Where the good end is: a body that is cut before the end of these words has none.
    good_end: Option<String>,
}

impl Shape {
    /// All of them, by name.
    pub fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upstreams/shapes");
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        let shapes: Vec<Self> = paths.iter().map(|path| Self::read(path)).collect();
        assert!(shapes.len() >= 100, "only {} shapes", shapes.len());
        shapes
    }

    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(path).unwrap();
        let at = bytes.windows(6).position(|part| part == b"\n----\n");
        let at = at.unwrap_or_else(|| panic!("{name} has no line ----"));
        let head = std::str::from_utf8(&bytes[..at]).unwrap();
        let mut shape = Self {
            name,
            api: Api::OpenAi,
            status: 200,
            headers: Vec::new(),
            body: bytes[at + 6..].to_vec(),
            after: After::Close,
            text: String::new(),
            end: String::new(),
            usage: None,
            good_end: None,
        };
        for line in head.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line.split_once(": ").unwrap();
            shape.set(key, value);
        }
        assert!(
            !shape.end.is_empty(),
            "{}: what does it come to?",
            shape.name
        );
        shape
    }

    fn set(&mut self, key: &str, value: &str) {
        match key {
            "api" => {
                self.api = match value {
                    "anthropic" => Api::Anthropic,
                    "ollama" => Api::Ollama,
                    other => panic!("{}: who speaks {other}?", self.name),
                }
            }
            "status" => self.status = value.parse().unwrap(),
            "header" => self.headers.push(value.to_owned()),
            "after" if value == "reset" => self.after = After::Reset,
            "text" => self.text = serde_json::from_str(value).unwrap(),
            "end" => value.clone_into(&mut self.end),
            "usage" => {
                let mut counts = value.split(' ').map(|count| count.parse().unwrap());
                self.usage = Some(Usage {
                    input_tokens: counts.next().unwrap(),
                    output_tokens: counts.next().unwrap(),
                    estimated: false,
                    cached_input_tokens: counts.next().unwrap_or(0),
                });
            }
            "good-end" => self.good_end = Some(serde_json::from_str(value).unwrap()),
            "source" | "line" => {}
            _ => panic!("{}: what is {key}?", self.name),
        }
    }

    /// Whether it ends well.
    pub fn is_good(&self) -> bool {
        self.end == "complete" || self.end == "length"
    }

    /// So many bytes at least belong to an answer that ends well.
    pub fn good_end(&self) -> usize {
        let words = match &self.good_end {
            Some(words) => words,
            None if self.is_good() => "\"finish_reason\":\"stop\"",
            None => return usize::MAX,
        };
        let words = words.as_bytes();
        let at = self
            .body
            .windows(words.len())
            .position(|part| part == words);
        at.unwrap_or_else(|| panic!("{} has no good end", self.name)) + words.len()
    }
}
