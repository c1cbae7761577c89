//! When a session is handed to a person by itself.

use serde::{Deserialize, Serialize};

/// A bot's rules for calling a person. Without any, only the visitor does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Escalation {
    /// Words and phrases with which a visitor asks for a person, in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
    /// So many replies failed in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_failures: Option<u32>,
    /// The model scores each of its answers, from 0 to 100, by how sure it is of it: less than this calls a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below_score: Option<u8>,
    /// The widget offers visitors a button that asks for a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub button: bool,
}

impl Escalation {
    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a text has one of the keywords: as whole words, whatever their case and the blanks between them.
    pub fn is_asked_for(&self, text: &str) -> bool {
        if self.keywords.is_empty() {
            return false;
        }
        let text = folded(text);
        let mut keywords = self.keywords.iter().map(|keyword| folded(keyword));
        keywords.any(|keyword| !keyword.is_empty() && has_words(&text, &keyword))
    }
}

/// In lower case, with single blanks.
fn folded(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

fn has_words(text: &str, words: &str) -> bool {
    // Scripts without upper and lower case may write words without blanks between them.
    let runs_on = |one: Option<char>, other: Option<char>| {
        let is_of_word = |c: char| c.is_lowercase() || c.is_numeric();
        one.is_some_and(is_of_word) && other.is_some_and(is_of_word)
    };
    text.match_indices(words).any(|(at, found)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text
            .get(at + found.len()..)
            .and_then(|after| after.chars().next());
        !runs_on(before, found.chars().next()) && !runs_on(found.chars().next_back(), after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_whole_words_in_any_case() {
        let escalation = Escalation {
            keywords: ["a human", "Agent", "人工", "  ", "Straße"]
                .map(str::to_owned)
                .to_vec(),
            ..Escalation::default()
        };
        for asks in [
            "I want a human!",
            "i want A  HUMAN",
            "Agent?",
            "(agent)",
            "我要人工客服",
            "STRASSE? straße",
        ] {
            assert!(escalation.is_asked_for(asks), "{asks}");
        }
        for does_not in [
            "a humane answer",
            "agents",
            "reagent",
            "human",
            "",
            "agent2",
        ] {
            assert!(!escalation.is_asked_for(does_not), "{does_not}");
        }
        assert!(!Escalation::default().is_asked_for("a human"));
    }
}
