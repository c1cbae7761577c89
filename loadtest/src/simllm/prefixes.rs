//! The prompts an upstream has read: what a prefix cache spares it from reading again.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Prefixes that are remembered; the oldest go first.
const MOST: usize = 200_000;

/// The prefixes of all prompts lately read, by turns, with the answers that were written to them.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    known: HashSet<u64>,
    oldest_first: VecDeque<u64>,
}

/// One prompt: after each of its turns a name for all of it so far, and its tokens so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Prompt {
    until: Vec<(u64, u64)>,
}

impl Prompt {
    /// Of these turns: role and text.
    pub(super) fn new<'a>(turns: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let mut prompt = Self::default();
        for (role, text) in turns {
            prompt.push(role, &text);
        }
        prompt
    }

    /// One more turn: the answer.
    pub(super) fn push(&mut self, role: &str, text: &str) {
        let (name, tokens) = self.until.last().copied().unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (name, role, text).hash(&mut hasher);
        let long = text.split_whitespace().count() as u64;
        self.until.push((hasher.finish(), tokens + long));
    }

    /// Its tokens.
    pub(super) fn tokens(&self) -> u64 {
        self.until.last().map_or(0, |(_, tokens)| *tokens)
    }
}

impl Prefixes {
    /// Tokens of the longest prefix that was read before.
    pub(super) fn cached(&self, prompt: &Prompt) -> u64 {
        let mut longest_first = prompt.until.iter().rev();
        let known = longest_first.find(|(name, _)| self.known.contains(name));
        known.map_or(0, |(_, tokens)| *tokens)
    }

    pub(super) fn remember(&mut self, prompt: &Prompt) {
        for (name, _) in &prompt.until {
            if self.known.insert(*name) {
                self.oldest_first.push_back(*name);
            }
        }
        while self.oldest_first.len() > MOST {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(turns: &[(&str, &str)]) -> Prompt {
        let mut prompt = Prompt::default();
        for (role, text) in turns {
            prompt.push(role, text);
        }
        prompt
    }

    #[test]
    fn the_longest_prefix_counts_and_a_change_ends_it() {
        let mut prefixes = Prefixes::default();
        let first = prompt(&[("system", "be nice"), ("user", "one two three")]);
        assert_eq!(prefixes.cached(&first), 0);
        prefixes.remember(&first);
        assert_eq!(prefixes.cached(&first), 5);
        let next = prompt(&[
            ("system", "be nice"),
            ("user", "one two three"),
            ("assistant", "four"),
            ("user", "five six"),
        ]);
        assert_eq!((prefixes.cached(&next), next.tokens()), (5, 8));
        let other = prompt(&[("system", "be nice"), ("user", "one two  three")]);
        assert_eq!(prefixes.cached(&other), 2);
        let role = prompt(&[("user", "be nice")]);
        assert_eq!(prefixes.cached(&role), 0);
    }
}
