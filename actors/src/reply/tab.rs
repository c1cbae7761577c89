//! The tab of a reply: its attempts, and what each has taken so far. Written as it happens, so that the session
//! can settle it whenever the reply ends, also when the reply's actor died.

use std::sync::{Arc, Mutex, PoisonError};

use hubbub_protocol::{BotId, Timestamp, Usage, VisitorId};

use super::usage;
use crate::ports::{Attempt, AttemptOutcome, UsageSource};

/// A reply's tab. Clones are the same tab.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tab(Arc<Mutex<Vec<Line>>>);

/// An attempt on a tab. Clones are the same attempt.
#[derive(Clone, Debug)]
pub(super) struct TabEntry {
    tab: Tab,
    number: usize,
}

/// Who asks for an attempt, and whom.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) bot: BotId,
    pub(super) visitor: Option<VisitorId>,
    pub(super) upstream: String,
    pub(super) model: String,
    /// Estimated tokens of the prompt.
    pub(super) prompt_tokens: u64,
}

#[derive(Debug)]
struct Line {
    number: usize,
    asked: Asked,
    started_at: Timestamp,
    /// `None` while it runs.
    outcome: Option<AttemptOutcome>,
    is_alive: bool,
    /// What the upstream said last.
    reported: Option<Usage>,
    /// Bytes of text that came after that.
    unreported: usize,
}

impl Tab {
    /// An attempt begins.
    pub(super) fn open(&self, asked: Asked) -> TabEntry {
        let number = self.entries(|entries| {
            let numbers = entries.iter().map(|entry| entry.number);
            let number = numbers.max().map_or(0, |last| last + 1);
            entries.push(Line {
                number,
                asked,
                started_at: Timestamp::now(),
                outcome: None,
                is_alive: false,
                reported: None,
                unreported: 0,
            });
            number
        });
        TabEntry {
            tab: self.clone(),
            number,
        }
    }

    /// Every attempt, the one that answers last. One that still runs is cancelled by this.
    pub(crate) fn settle(&self) -> Vec<Attempt> {
        self.entries(|entries| entries.drain(..).map(Line::attempt).collect())
    }

    fn entries<T>(&self, with: impl FnOnce(&mut Vec<Line>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TabEntry {
    /// The upstream reads the prompt.
    pub(super) fn alive(&self) {
        self.running(|entry| entry.is_alive = true);
    }

    /// The upstream wrote so many bytes.
    pub(super) fn written(&self, bytes: usize) {
        self.running(|entry| {
            entry.is_alive = true;
            entry.unreported += bytes;
        });
    }

    /// The upstream says what all of it took until now.
    pub(super) fn reported(&self, usage: Usage) {
        self.running(|entry| {
            entry.reported = Some(usage);
            entry.unreported = 0;
        });
    }

    /// The attempt is over.
    pub(super) fn close(&self, outcome: AttemptOutcome) {
        self.running(|entry| entry.outcome = Some(outcome));
    }

    /// Of several that were made at once it is the one that answers.
    pub(super) fn becomes_last(&self) {
        self.tab
            .entries(|entries| entries.sort_by_key(|entry| entry.number == self.number));
    }

    fn running(&self, change: impl FnOnce(&mut Line)) {
        self.tab.entries(|entries| {
            let mut running = entries.iter_mut().filter(|entry| entry.outcome.is_none());
            running
                .find(|entry| entry.number == self.number)
                .map(change);
        });
    }
}

impl Line {
    fn attempt(self) -> Attempt {
        let (usage, source) = self.usage();
        Attempt {
            usage,
            source,
            outcome: self.outcome.unwrap_or(AttemptOutcome::Cancelled),
            started_at: self.started_at,
            bot: self.asked.bot,
            visitor: self.asked.visitor,
            upstream: self.asked.upstream,
            model: self.asked.model,
        }
    }

    fn usage(&self) -> (Usage, UsageSource) {
        let estimated = || usage::of_bytes(self.asked.prompt_tokens, self.unreported);
        match self.reported {
            Some(usage) if self.unreported == 0 => (usage, UsageSource::Reported),
            Some(usage) => {
                let output = estimated().output_tokens;
                let usage = Usage {
                    output_tokens: usage.output_tokens.saturating_add(output),
                    estimated: true,
                    ..usage
                };
                (usage, UsageSource::Estimated)
            }
            None if self.is_alive => (estimated(), UsageSource::Estimated),
            None => (Usage::default(), UsageSource::Counted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(upstream: &str) -> Asked {
        Asked {
            bot: BotId::generate(),
            visitor: None,
            upstream: upstream.to_owned(),
            model: "small".to_owned(),
            prompt_tokens: 7,
        }
    }

    fn opened() -> (Tab, TabEntry) {
        let tab = Tab::default();
        let entry = tab.open(asked("one"));
        (tab, entry)
    }

    fn taken(tab: &Tab) -> (u64, u64, UsageSource, AttemptOutcome) {
        let attempts = tab.settle();
        let Attempt {
            usage,
            source,
            outcome,
            ..
        } = attempts.last().unwrap().clone();
        (usage.input_tokens, usage.output_tokens, source, outcome)
    }

    const REPORTED: Usage = Usage {
        input_tokens: 20,
        output_tokens: 3,
        cached_input_tokens: 0,
        estimated: false,
    };

    #[test]
    fn what_an_attempt_took_is_known_at_every_moment() {
        use AttemptOutcome::{Answered, Cancelled, Failed};
        use UsageSource::{Counted, Estimated, Reported};

        let (tab, _) = opened();
        assert_eq!(taken(&tab), (0, 0, Counted, Cancelled), "never begun");
        let (tab, entry) = opened();
        entry.alive();
        assert_eq!(taken(&tab), (7, 0, Estimated, Cancelled), "it thinks");
        let (tab, entry) = opened();
        entry.written(9);
        assert_eq!(taken(&tab), (7, 3, Estimated, Cancelled), "by its text");
        let (tab, entry) = opened();
        entry.written(9);
        entry.reported(REPORTED);
        assert_eq!(taken(&tab), (20, 3, Reported, Cancelled), "by its word");
        let (tab, entry) = opened();
        entry.reported(REPORTED);
        entry.written(5);
        assert_eq!(taken(&tab), (20, 5, Estimated, Cancelled), "by both");
        let (tab, entry) = opened();
        entry.reported(REPORTED);
        entry.close(Answered);
        entry.written(5);
        assert_eq!(taken(&tab), (20, 3, Reported, Answered), "after its end");
        let (tab, entry) = opened();
        entry.close(Failed);
        assert_eq!(taken(&tab), (0, 0, Counted, Failed));
    }

    #[test]
    fn a_settled_tab_is_empty() {
        let (tab, entry) = opened();
        entry.close(AttemptOutcome::Failed);
        tab.open(asked("two"));
        let attempts = tab.settle();
        let went: Vec<_> = attempts.iter().map(|a| (&*a.upstream, a.outcome)).collect();
        assert_eq!(
            went,
            [
                ("one", AttemptOutcome::Failed),
                ("two", AttemptOutcome::Cancelled)
            ]
        );
        assert!(tab.settle().is_empty());
    }

    #[test]
    fn of_two_at_once_each_is_on_the_tab_and_the_one_that_answers_is_last() {
        let (tab, one) = opened();
        let two = tab.open(asked("two"));
        one.written(9);
        two.alive();
        two.close(AttemptOutcome::Cancelled);
        one.becomes_last();
        one.close(AttemptOutcome::Answered);
        let three = tab.open(asked("three"));
        one.becomes_last();
        three.written(3);
        let attempts = tab.settle();
        let took: Vec<_> = attempts
            .iter()
            .map(|a| (&*a.upstream, a.outcome, a.usage.output_tokens))
            .collect();
        assert_eq!(
            took,
            [
                ("two", AttemptOutcome::Cancelled, 0),
                ("three", AttemptOutcome::Cancelled, 1),
                ("one", AttemptOutcome::Answered, 3),
            ]
        );
    }
}
