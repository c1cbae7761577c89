//! Metrics in Prometheus' text form. Their names, kinds and meanings stand in one table.

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::{TelemetryError, process};

/// Upper bounds of the buckets of histograms, in seconds: from a mailbox to a long answer.
const SECONDS: [f64; 16] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0,
];

/// How often samples of histograms are folded into their buckets, so that memory stays bounded when
/// nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric there is. Labels come from closed sets; see the place that records it.
const METRICS: &[(&str, Kind, &str)] = &[
    (
        "hubbub_panics_total",
        Kind::Counter,
        "Panics. Each is an ERROR in the log.",
    ),
    (
        "hubbub_actor_panics_total",
        Kind::Counter,
        "Panics that ended an actor or one of its tasks, by actor.",
    ),
    (
        "hubbub_http_requests_total",
        Kind::Counter,
        "Answered HTTP requests, by class of status.",
    ),
    (
        "hubbub_connections_open",
        Kind::Gauge,
        "WebSocket connections.",
    ),
    (
        "hubbub_sockets_cut_total",
        Kind::Counter,
        "Sockets closed for want of room or because their client was silent, by reason.",
    ),
    (
        "hubbub_frames_received_total",
        Kind::Counter,
        "Text frames from clients.",
    ),
    (
        "hubbub_frames_refused_total",
        Kind::Counter,
        "Frames answered with an error, by code.",
    ),
    (
        "hubbub_inbound_held_back_total",
        Kind::Counter,
        "Times a connection sent more than it may and was not read for a while.",
    ),
    (
        "hubbub_devices_cut_total",
        Kind::Counter,
        "Devices cut because they did not read.",
    ),
    (
        "hubbub_signals_dropped_total",
        Kind::Counter,
        "Typing and read signals dropped because a session was busy.",
    ),
    ("hubbub_sessions_live", Kind::Gauge, "Sessions in memory."),
    (
        "hubbub_mailbox_full_total",
        Kind::Counter,
        "Commands refused because a mailbox was full, by actor.",
    ),
    (
        "hubbub_commit_seconds",
        Kind::Histogram,
        "From handing a batch to storage to its commit.",
    ),
    (
        "hubbub_committed_entries_total",
        Kind::Counter,
        "Messages and ends of replies committed.",
    ),
    (
        "hubbub_replies_total",
        Kind::Counter,
        "Replies that got their end, by end.",
    ),
    (
        "hubbub_reply_seconds",
        Kind::Histogram,
        "From a question to the end of its reply.",
    ),
    (
        "hubbub_reply_first_token_seconds",
        Kind::Histogram,
        "From a question to the first text of its reply.",
    ),
    (
        "hubbub_stale_reply_steps_total",
        Kind::Counter,
        "Steps of replies that came too late and were dropped.",
    ),
    (
        "hubbub_llm_queue_length",
        Kind::Gauge,
        "Replies waiting for a slot.",
    ),
    (
        "hubbub_llm_slots_busy",
        Kind::Gauge,
        "Slots of upstreams in use.",
    ),
    (
        "hubbub_llm_breaker_open",
        Kind::Gauge,
        "Whether an upstream pauses after failures (1) or takes requests (0), by upstream.",
    ),
    (
        "hubbub_llm_set_aside",
        Kind::Gauge,
        "Whether others are asked before an upstream (1), because its set-up is wrong, by upstream.",
    ),
    (
        "hubbub_llm_refused_total",
        Kind::Counter,
        "Replies refused because the queue was full or no upstream exists.",
    ),
    (
        "hubbub_llm_attempts_total",
        Kind::Counter,
        "Ended attempts to get an answer, by upstream and outcome.",
    ),
    (
        "hubbub_llm_attempts_failed_total",
        Kind::Counter,
        "Attempts that failed, as the reply saw them.",
    ),
    (
        "hubbub_llm_first_token_seconds",
        Kind::Histogram,
        "From sending an attempt to its first text, by upstream.",
    ),
    (
        "hubbub_llm_attempt_seconds",
        Kind::Histogram,
        "From sending an attempt to its end, by upstream.",
    ),
    (
        "hubbub_model_starts_total",
        Kind::Counter,
        "Starts of the embedded model's program.",
    ),
    (
        "hubbub_db_connections_in_use",
        Kind::Gauge,
        "Database connections in use, by pool.",
    ),
    (
        "hubbub_db_connections_idle",
        Kind::Gauge,
        "Open database connections that nobody uses, by pool.",
    ),
    (
        "hubbub_db_connections_waiting",
        Kind::Gauge,
        "Tasks that wait for a database connection, by pool.",
    ),
];

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
        Ok(Self {
            handle: MetricsHandle(handle),
        })
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
    Ok(PrometheusBuilder::new().set_buckets_for_metric(seconds, &SECONDS)?)
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
mod tests {
    use super::*;

    fn rendered(record: impl FnOnce()) -> String {
        let recorder = builder().unwrap().build_recorder();
        let handle = MetricsHandle(recorder.handle());
        ::metrics::with_local_recorder(&recorder, || {
            describe();
            record();
        });
        handle.render()
    }

    #[test]
    fn histograms_have_buckets_in_seconds_and_a_description() {
        let text = rendered(|| {
            ::metrics::histogram!("hubbub_llm_attempt_seconds", "upstream" => "a").record(0.3);
        });
        assert!(
            text.contains("# HELP hubbub_llm_attempt_seconds From sending"),
            "{text}"
        );
        assert!(
            text.contains("# TYPE hubbub_llm_attempt_seconds histogram"),
            "{text}"
        );
        let bucket = "hubbub_llm_attempt_seconds_bucket{upstream=\"a\",le=\"0.5\"} 1";
        assert!(text.contains(bucket), "{text}");
    }

    #[test]
    fn names_follow_the_conventions() {
        for (name, kind, text) in METRICS {
            let unit = match kind {
                Kind::Counter => name.ends_with("_total"),
                Kind::Gauge => !name.ends_with("_total"),
                Kind::Histogram => name.ends_with("_seconds"),
            };
            assert!(
                name.starts_with("hubbub_") && unit && text.ends_with('.'),
                "{name}"
            );
        }
    }

    #[test]
    fn the_process_is_described() {
        let text = rendered(|| ());
        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{name} ")))
                .unwrap();
            line.split(' ').nth(1).unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }

    #[tokio::test]
    async fn upkeep_ends_when_told() {
        let recorder = builder().unwrap().build_recorder();
        let metrics = Metrics {
            handle: MetricsHandle(recorder.handle()),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(metrics.run_upkeep(stop.clone()));
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        stop.cancel();
        tokio::time::timeout(UPKEEP, task).await.unwrap().unwrap();
    }
}
