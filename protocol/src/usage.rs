//! What answers took and cost: the body of `GET /v1/usage`.

use std::fmt::{self, Write as _};
use std::ops::Add;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Micro-cents, a millionth of a US cent, in a dollar.
pub const MICRO_CENTS: u64 = 100_000_000;

/// What was used in a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// Attempts that ended then or later …
    pub from: Timestamp,
    /// … and before that.
    pub to: Timestamp,
    /// What the items are.
    pub by: UsageBy,
    /// Of all items, also of those that are left out.
    pub total: UsageTotals,
    /// Days in their order, anything else by cost, the dearest first.
    pub items: Vec<UsageItem>,
    /// Whether items are left out.
    pub more: bool,
}

impl UsageReport {
    /// Its items as CSV (RFC 4180), with a line of headings.
    pub fn csv(&self) -> String {
        let mut csv = String::from(
            "key,attempts,estimated,input_tokens,cached_input_tokens,output_tokens,cost_microcents,cost_usd\r\n",
        );
        for UsageItem { key, totals } in &self.items {
            let UsageTotals {
                attempts,
                estimated,
                input_tokens,
                cached_input_tokens,
                output_tokens,
                cost_microcents,
            } = totals;
            let key = key.replace('"', "\"\"");
            let cost_usd = Dollars(*cost_microcents);
            // Writing to a string never fails.
            let _infallible = write!(
                csv,
                "\"{key}\",{attempts},{estimated},{input_tokens},{cached_input_tokens},{output_tokens},\
                 {cost_microcents},{cost_usd}\r\n"
            );
        }
        csv
    }
}

/// What usage is summed up by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// The tenant: one item.
    #[default]
    Tenant,
    /// Bots, by id.
    Bot,
    /// Visitors, by id; empty for what was asked with an API key.
    Visitor,
    /// Sessions, by id.
    Session,
    /// Models, by `upstream/model`.
    Model,
    /// Days in UTC, as `2026-11-26`.
    Day,
}

impl UsageBy {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Tenant,
        Self::Bot,
        Self::Visitor,
        Self::Session,
        Self::Model,
        Self::Day,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Bot => "bot",
            Self::Visitor => "visitor",
            Self::Session => "session",
            Self::Model => "model",
            Self::Day => "day",
        }
    }
}

impl FromStr for UsageBy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|by| by.as_str() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|by| by.as_str()).collect();
            format!("must be one of {}", names.join(", "))
        })
    }
}

/// One item of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageItem {
    /// Of which bot, visitor, session, model, day or tenant.
    pub key: String,
    /// What it took.
    #[serde(flatten)]
    pub totals: UsageTotals,
}

/// Sums over attempts: requests to a model, those that failed or were stopped too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageTotals {
    /// How many.
    pub attempts: u64,
    /// How many of them have estimated numbers, because the model did not tell.
    pub estimated: u64,
    /// Tokens of prompts.
    pub input_tokens: u64,
    /// Of these, read from the model's cache.
    pub cached_input_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// What they cost, in micro-cents: 100,000,000 are one dollar.
    pub cost_microcents: u64,
}

impl Add for UsageTotals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            attempts: self.attempts + other.attempts,
            estimated: self.estimated + other.estimated,
            input_tokens: self.input_tokens + other.input_tokens,
            cached_input_tokens: self.cached_input_tokens + other.cached_input_tokens,
            output_tokens: self.output_tokens + other.output_tokens,
            cost_microcents: self.cost_microcents + other.cost_microcents,
        }
    }
}

/// Micro-cents as dollars, exact: `0.00012500`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dollars(pub u64);

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08}", self.0 / MICRO_CENTS, self.0 % MICRO_CENTS)
    }
}

impl FromStr for Dollars {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const REFUSED: &str = "must be an amount of dollars such as 2.50, with at most 8 decimals";
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(part) || part.len() > 8 {
            return Err(REFUSED);
        }
        let whole: u64 = whole.parse().map_err(|_| REFUSED)?;
        let part: u64 = format!("{part:0<8}").parse().map_err(|_| REFUSED)?;
        let sum = whole.checked_mul(MICRO_CENTS);
        let sum = sum.and_then(|whole| whole.checked_add(part));
        sum.map(Self).ok_or(REFUSED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_exact_to_the_micro_cent() {
        for (text, micro_cents) in [
            ("0", 0),
            ("2.5", 250_000_000),
            ("0.00000001", 1),
            ("1000000", 100_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Dollars(micro_cents)), "{text}");
            let shown = Dollars(micro_cents).to_string();
            assert_eq!(shown.parse(), Ok(Dollars(micro_cents)), "{shown}");
        }
        assert_eq!(Dollars(12_500).to_string(), "0.00012500");
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "0.000000001",
            "1,5",
            "99999999999999",
        ] {
            assert!(text.parse::<Dollars>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_grouping_is_read_by_the_name_it_is_written_with() {
        for by in UsageBy::ALL {
            assert_eq!(by.as_str().parse(), Ok(by));
            assert_eq!(serde_json::to_value(by).unwrap(), by.as_str());
        }
        assert!("week".parse::<UsageBy>().unwrap_err().contains("tenant"));
    }
}
