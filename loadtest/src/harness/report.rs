//! What a scenario found: numbers with units, and the promises that were broken.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::stats::{Latencies, median};

/// Violations told in words; more are only counted.
const TOLD_VIOLATIONS: usize = 20;

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit; empty for a count.
    pub unit: &'static str,
    /// The lowest and the highest, when `value` is the median of several runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
}

/// Promises that were broken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// How many.
    pub count: u64,
    /// The first ones, in words.
    pub told: Vec<String>,
}

impl Violations {
    /// Adds one.
    pub fn add(&mut self, what: impl Into<String>) {
        self.count += 1;
        if self.told.len() < TOLD_VIOLATIONS {
            self.told.push(what.into());
        }
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        let room = TOLD_VIOLATIONS.saturating_sub(self.told.len());
        self.told.extend(other.told.iter().take(room).cloned());
    }

    /// Adds one unless `holds`.
    pub fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.add(what());
        }
    }
}

/// The outcome of one scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Which scenario, with its parameters.
    pub scenario: String,
    /// Against what.
    pub target: String,
    /// In the order they are shown.
    pub entries: Vec<Entry>,
    /// What was promised and not kept.
    pub violations: Violations,
}

impl Report {
    /// A report with nothing in it yet.
    pub fn new(scenario: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            scenario: scenario.into(),
            target: target.into(),
            ..Self::default()
        }
    }

    /// Adds a number.
    pub fn push(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.entries.push(Entry {
            name: name.into(),
            value,
            unit,
            range: None,
        });
    }

    /// Adds the percentiles of a distribution, in milliseconds.
    pub fn push_latencies(&mut self, name: &str, latencies: &Latencies) {
        for (label, share) in [
            ("p50", 0.5),
            ("p90", 0.9),
            ("p95", 0.95),
            ("p99", 0.99),
            ("max", 1.0),
        ] {
            self.push(
                format!("{name} {label}"),
                latencies.quantile_ms(share),
                "ms",
            );
        }
    }

    /// The value of a number by its name.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.entries
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| entry.value)
    }

    /// One report for the runs of each scenario against each target, with the median of every number;
    /// what was violated in any run is violated.
    pub fn medians(runs: &[Self]) -> Vec<Self> {
        let mut merged: Vec<Self> = Vec::new();
        for run in runs {
            let is_same =
                |other: &Self| other.scenario == run.scenario && other.target == run.target;
            if merged.iter().any(is_same) {
                continue;
            }
            let same: Vec<&Self> = runs.iter().filter(|other| is_same(other)).collect();
            merged.push(Self::median(&same));
        }
        merged
    }

    fn median(runs: &[&Self]) -> Self {
        let Some(first) = runs.first() else {
            return Self::default();
        };
        let mut report = (*first).clone();
        for entry in &mut report.entries {
            let values: Vec<f64> = runs
                .iter()
                .filter_map(|run| run.value(&entry.name))
                .collect();
            entry.value = median(&values);
            let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            entry.range = (values.len() > 1).then_some([lowest, highest]);
        }
        for run in runs.iter().skip(1) {
            report.violations.merge(&run.violations);
        }
        report
    }

    /// The report as a Markdown table.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "### {} · {}\n\n| measure | value | unit | of several runs |\n| --- | ---: | --- | --- |\n",
            self.scenario, self.target
        );
        for entry in &self.entries {
            // Writing to a string cannot fail.
            writeln!(
                text,
                "| {} | {} | {} | {} |",
                entry.name,
                figure(entry.value),
                entry.unit,
                entry
                    .range
                    .map_or(String::new(), |[lowest, highest]| format!(
                        "{} to {}",
                        figure(lowest),
                        figure(highest)
                    ))
            )
            .unwrap_or_default();
        }
        writeln!(text, "| violated checks | {} | | |", self.violations.count).unwrap_or_default();
        for told in &self.violations.told {
            writeln!(text, "\nviolated: {told}").unwrap_or_default();
        }
        text
    }
}

/// Three decimals for small numbers, none for whole ones.
fn figure(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else if value.abs() >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

/// Writes reports as one JSON array.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(path: &Path, reports: &[Report]) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(reports).context("a report is not JSON")?;
    std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_its_numbers_and_violations() {
        let mut report = Report::new("chats", "bare");
        report.push("acks", 3.0, "");
        report.push("latency", 0.12345, "ms");
        report.violations.check(true, || "never".to_owned());
        report.violations.check(false, || "a gap".to_owned());
        let text = report.markdown();
        assert!(text.contains("| acks | 3 |  |  |"), "{text}");
        assert!(text.contains("| latency | 0.123 | ms |  |"), "{text}");
        assert!(text.contains("| violated checks | 1 | | |"), "{text}");
        assert!(text.contains("violated: a gap"), "{text}");
        assert_eq!(report.value("acks"), Some(3.0));
    }

    #[test]
    fn runs_of_one_scenario_become_their_medians() {
        let run = |target: &str, latency| {
            let mut report = Report::new("chats", target);
            report.push("latency", latency, "ms");
            report.violations.check(latency < 9.0, || "slow".to_owned());
            report
        };
        let runs = [run("a", 1.0), run("b", 5.0), run("a", 9.0), run("a", 2.0)];
        let medians = Report::medians(&runs);
        let [a, b] = &medians[..] else {
            panic!("{medians:?}")
        };
        assert_eq!(
            (a.value("latency"), a.entries[0].range),
            (Some(2.0), Some([1.0, 9.0]))
        );
        assert_eq!((a.violations.count, b.violations.count), (1, 0));
        assert_eq!((b.value("latency"), b.entries[0].range), (Some(5.0), None));
    }

    #[test]
    fn violations_beyond_the_first_are_counted_only() {
        let mut violations = Violations::default();
        for n in 0..100 {
            violations.add(format!("{n}"));
        }
        assert_eq!(
            (violations.count, violations.told.len()),
            (100, TOLD_VIOLATIONS)
        );
    }
}
