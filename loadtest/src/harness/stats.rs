//! Latencies and what they sum up to.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency told apart, in microseconds; longer ones count as this.
const LONGEST_MICROS: u64 = 600_000_000;

/// A distribution of latencies, to 3 significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(Option<Histogram<u64>>);

impl Default for Latencies {
    fn default() -> Self {
        // These bounds are valid, so the histogram is always there.
        Self(Histogram::new_with_bounds(1, LONGEST_MICROS, 3).ok())
    }
}

impl Latencies {
    /// Adds one latency.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_MICROS);
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(micros.max(1));
        }
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// The latency, in milliseconds, that a share (0 to 1) of all do not exceed; 0 of none.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let micros = self.0.as_ref().map_or(0, |h| h.value_at_quantile(share));
        #[expect(clippy::cast_precision_loss, reason = "at most 600,000,000")]
        let ms = micros as f64 / 1_000.0;
        ms
    }

    /// The longest, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.quantile_ms(1.0)
    }
}

/// The median of some values; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or_default();
    if sorted.len().is_multiple_of(2) {
        let lower = middle
            .checked_sub(1)
            .and_then(|i| sorted.get(i))
            .copied()
            .unwrap_or_default();
        f64::midpoint(lower, upper)
    } else {
        upper
    }
}

/// A count as a number to calculate with.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts here stay far below 2^52"
)]
pub fn number(count: u64) -> f64 {
    count as f64
}

/// One number by another; 0 when there is nothing to divide by.
pub fn ratio(value: f64, by: f64) -> f64 {
    if by > 0.0 { value / by } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::default();
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms));
        }
        assert_eq!(latencies.count(), 100);
        assert!((latencies.quantile_ms(0.5) - 50.0).abs() < 0.1);
        assert!((latencies.quantile_ms(0.99) - 99.0).abs() < 0.2);
        assert!((latencies.max_ms() - 100.0).abs() < 0.2);
    }

    #[test]
    fn latencies_out_of_range_are_kept_at_its_edge() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(10_000));
        assert_eq!(latencies.count(), 2);
        assert!(latencies.max_ms() >= 599_000.0);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < f64::EPSILON);
        assert!((median(&[9.0, 1.0, 3.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
