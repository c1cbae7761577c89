//! Metrics in Prometheus' text form. Their names, kinds and meanings stand in one [`table`].

mod table;

use std::time::Duration;

use metrics::Label;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::{TelemetryError, process};
use table::{BY_ROUTE, BY_UPSTREAM, Kind, METRICS, SERIES, STATUS_CLASSES};

/// Upper bounds of the buckets of histograms, in seconds: from a mailbox to a long answer.
const SECONDS: [f64; 16] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0,
];

/// As [`SECONDS`], fewer: there is one histogram for each route and class of status.
const REQUEST_SECONDS: [f64; 8] = [0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// How often samples of histograms are folded into their buckets, so that memory stays bounded when
/// nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's recorder.
#[derive(Debug)]
pub struct Metrics {
    handle: MetricsHandle,
}

impl Metrics {
    /// Installs the recorder that the `metrics` macros write to. Once a process.
    pub fn install() -> Result<Self, TelemetryError> {
        let handle = builder()?.install_recorder()?;
        describe();
        begin();
        Ok(Self {
            handle: MetricsHandle(handle),
        })
    }

    /// Begins the series of these upstreams.
    pub fn know_upstreams(&self, names: &[String]) {
        for name in names {
            for (metric, label) in BY_UPSTREAM {
                match label {
                    None => zero(metric, &[("upstream", name)]),
                    Some((label, values)) => {
                        for value in *values {
                            zero(metric, &[("upstream", name), (label, value)]);
                        }
                    }
                }
            }
        }
    }

    /// Begins the series of these routes.
    pub fn know_routes(&self, patterns: &[&str]) {
        for pattern in patterns {
            for class in STATUS_CLASSES {
                zero(BY_ROUTE, &[("route", pattern), ("status", class)]);
            }
        }
    }

    /// What `/metrics` answers from.
    pub fn handle(&self) -> MetricsHandle {
        self.handle.clone()
    }

    /// Upkeep, until `stop`. The caller owns the task.
    pub async fn run_upkeep(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.handle.0.run_upkeep();
        }
    }
}

/// Renders metrics; cheap to clone.
#[derive(Clone, Debug)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// All metrics in Prometheus' text form, the process's own included.
    pub fn render(&self) -> String {
        let mut text = self.0.render();
        process::render(&mut text);
        text
    }
}

fn builder() -> Result<PrometheusBuilder, TelemetryError> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let requests = Matcher::Full(BY_ROUTE.to_owned());
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &SECONDS)?
        .set_buckets_for_metric(requests, &REQUEST_SECONDS)?)
}

/// Begins every series whose labels are known, at zero.
fn begin() {
    for (name, label, values) in SERIES {
        for value in *values {
            zero(name, &[(label, value)]);
        }
    }
    let has_labels = |name: &str| {
        name == BY_ROUTE
            || name == "hubbub_build_info"
            || SERIES.iter().any(|(known, ..)| *known == name)
            || BY_UPSTREAM.iter().any(|(known, _)| *known == name)
    };
    for (name, ..) in METRICS.iter().filter(|(name, ..)| !has_labels(name)) {
        zero(name, &[]);
    }
    ::metrics::gauge!("hubbub_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// A series that nothing was recorded of.
fn zero(name: &'static str, labels: &[(&'static str, &str)]) {
    let kind = METRICS.iter().find(|(known, ..)| *known == name);
    let Some((_, kind, _)) = kind else { return };
    let labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    match kind {
        Kind::Counter => ::metrics::counter!(name, labels).increment(0),
        Kind::Gauge => ::metrics::gauge!(name, labels).increment(0.0),
        // To exist is all it takes.
        Kind::Histogram => drop(::metrics::histogram!(name, labels)),
    }
}

fn describe() {
    for (name, kind, text) in METRICS {
        match kind {
            Kind::Counter => ::metrics::describe_counter!(*name, *text),
            Kind::Gauge => ::metrics::describe_gauge!(*name, *text),
            Kind::Histogram => ::metrics::describe_histogram!(*name, *text),
        }
    }
}

#[cfg(test)]
mod tests;
