//! The score that a model gives an answer of its own: how sure it is that it helps. It comes as a mark in the
//! answer, which is taken out before anybody sees it. Pure.

/// Told to a bot that has a rule for it.
pub(crate) const INSTRUCTIONS: &str = "End every answer with one more line that holds nothing but \
    [[score: N]], where N is a number from 0 to 100: how sure you are that your answer is right and is what \
    this person needs. 100 is certain; 0 means that a human colleague should take over, because they ask for \
    one, are in distress, or you cannot help them. Nobody sees that line.";

/// How a mark begins, in any case.
const OPEN: &[u8] = b"[[score:";
/// How it ends.
const CLOSE: &str = "]]";
/// Most bytes between the two.
const MOST_INSIDE: usize = 8;

/// Takes marks out of a text that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct ScoreFilter {
    /// What may turn out to be a mark, with the white space before it.
    held: String,
    score: Option<u8>,
}

impl ScoreFilter {
    /// The next piece of the text. Returns what of it, and of what was held back, is no mark.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        let text = std::mem::take(&mut self.held) + piece;
        let (mut rest, mut shown) = (text.as_str(), String::new());
        // Up to here the rest is text.
        let mut text_len = rest.len();
        while let Some(open) = rest.find('[') {
            let (before, marked) = rest.split_at(open);
            let taken = match read(marked) {
                Mark::Whole { score, bytes } => {
                    self.score = Some(score);
                    shown.push_str(before.trim_end());
                    open + bytes
                }
                Mark::None => {
                    shown.push_str(before);
                    shown.push('[');
                    open + 1
                }
                Mark::Unfinished => {
                    text_len = open;
                    break;
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
            text_len = rest.len();
        }
        let kept = rest.get(..text_len).unwrap_or_default().trim_end().len();
        let (text, held) = rest.split_at(kept);
        shown.push_str(text);
        held.clone_into(&mut self.held);
        shown
    }

    /// The text is over. Returns what was held back and is no mark, not even one that was cut short.
    pub(crate) fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        let is_cut = held.trim_start().len() >= OPEN.len();
        match self.score {
            _ if is_cut => String::new(),
            Some(_) => held.trim_end().to_owned(),
            None => held,
        }
    }

    /// The last score given.
    pub(crate) fn score(&self) -> Option<u8> {
        self.score
    }
}

enum Mark {
    None,
    /// It may become one.
    Unfinished,
    Whole {
        score: u8,
        bytes: usize,
    },
}

/// Reads the mark that a text begins with.
fn read(text: &str) -> Mark {
    let bytes = text.as_bytes();
    let known = bytes.len().min(OPEN.len());
    let (head, open) = (bytes.get(..known), OPEN.get(..known));
    if !head
        .zip(open)
        .is_some_and(|(head, open)| head.eq_ignore_ascii_case(open))
    {
        return Mark::None;
    }
    let Some(inside) = text.get(OPEN.len()..) else {
        return Mark::Unfinished;
    };
    let nearest = inside.floor_char_boundary(MOST_INSIDE + CLOSE.len());
    let near = inside.get(..nearest).unwrap_or_default();
    let Some(end) = near.find(CLOSE) else {
        let may_be = |c: char| c.is_ascii_digit() || c == ' ' || c == ']';
        return if inside.len() <= MOST_INSIDE && inside.chars().all(may_be) {
            Mark::Unfinished
        } else {
            Mark::None
        };
    };
    let number = inside.get(..end).map(str::trim).unwrap_or_default();
    match number.parse() {
        Ok(score @ 0..=100) => Mark::Whole {
            score,
            bytes: OPEN.len() + end + CLOSE.len(),
        },
        _ => Mark::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filtered<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, Option<u8>) {
        let mut filter = ScoreFilter::default();
        let mut shown: String = pieces.into_iter().map(|piece| filter.push(piece)).collect();
        shown.push_str(&filter.finish());
        (shown, filter.score())
    }

    #[test]
    fn a_mark_is_taken_out_wherever_the_text_is_cut() {
        let cases = [
            ("Yes.\n\n[[score: 7]]", "Yes.", Some(7)),
            ("Yes.\n[[Score:100]]\n", "Yes.", Some(100)),
            ("[[score: 90]]", "", Some(90)),
            ("[[score: 1]] Yes. [[score: 2]]", " Yes.", Some(2)),
            ("One. [[score: 3]] Two.", "One. Two.", Some(3)),
            ("a[0] [x](y) [[link]] [", "a[0] [x](y) [[link]] [", None),
            ("[[score: 101]] ", "[[score: 101]] ", None),
            ("[[score: high]]", "[[score: high]]", None),
            ("Yes. [[score: 5", "Yes.", None),
            ("Yes. [[sco", "Yes. [[sco", None),
            ("[[score: 5]] Yes. [", " Yes. [", Some(5)),
            ("[[[score: 5]]]", "[]", Some(5)),
            ("Привет [[score: 5]]", "Привет", Some(5)),
        ];
        for (text, shown, score) in cases {
            for (at, _) in text.char_indices() {
                let (one, other) = text.split_at(at);
                assert_eq!(
                    filtered([one, other]),
                    (shown.to_owned(), score),
                    "{text} at {at}"
                );
            }
            let letters = text
                .char_indices()
                .map(|(at, c)| &text[at..at + c.len_utf8()]);
            assert_eq!(
                filtered(letters),
                (shown.to_owned(), score),
                "{text}, by letters"
            );
        }
    }

    proptest! {
        /// A text without a mark comes out as it went in, and what is held back is short.
        #[test]
        fn nothing_else_is_taken_out(pieces in prop::collection::vec("[\\[\\]a-z0-9: sé]{0,12}", 0..12)) {
            let text = pieces.concat();
            let mut filter = ScoreFilter::default();
            let mut shown = String::new();
            for piece in &pieces {
                shown.push_str(&filter.push(piece));
                prop_assert!(filter.held.trim_start().len() <= OPEN.len() + MOST_INSIDE);
            }
            shown.push_str(&filter.finish());
            if !text.contains("[[score:") {
                prop_assert_eq!(shown, text);
            }
        }
    }
}
