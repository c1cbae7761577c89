//! Finding stop texts in a stream. Text that may turn out to begin one is held back, so a client
//! never sees part of a stop text.

/// Looks for stop texts across the cuts of a stream.
#[derive(Debug)]
pub struct StopScanner {
    stops: Vec<String>,
    /// A suffix of what came that begins a stop text.
    held: String,
}

impl StopScanner {
    /// A scanner for these texts; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops
            .iter()
            .filter(|stop| !stop.is_empty())
            .cloned()
            .collect();
        Self {
            stops,
            held: String::new(),
        }
    }

    /// Adds text; returns what may be shown, and whether a stop text was found. After it was
    /// found, nothing is held.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min();
        if let Some(at) = found {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let begins_stop = |tail: &str| self.stops.iter().any(|stop| stop.starts_with(tail));
        let keep_from = self
            .held
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| self.held.get(*at..).is_some_and(begins_stop))
            .unwrap_or(self.held.len());
        let tail = self.held.split_off(keep_from);
        (std::mem::replace(&mut self.held, tail), false)
    }

    /// What is still held back, when the answer ended without a stop text.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::StopScanner;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cut_anywhere_shows_exactly_what_precedes_the_first_stop(
            text in "[abé]{0,20}", stop in "[abé]{1,3}", step in 1usize..4,
        ) {
            let mut scanner = StopScanner::new(std::slice::from_ref(&stop));
            let mut shown = String::new();
            let mut stopped = false;
            for part in text.chars().collect::<Vec<_>>().chunks(step) {
                let (more, found) = scanner.push(&part.iter().collect::<String>());
                shown.push_str(&more);
                stopped = found;
                if found {
                    break;
                }
            }
            shown.push_str(&scanner.finish());
            prop_assert_eq!(stopped, text.contains(&stop));
            prop_assert_eq!(shown, text.split(&stop).next().unwrap_or_default());
        }
    }
}
