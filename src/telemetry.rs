//! Logs and metrics: set up once by `main`, before anything else runs.
//!
//! Losing a log line or a metric harms no chat, so nothing here ever fails a request.

pub mod logs;
pub mod metrics;
mod process;
mod stderr;

pub use logs::{LogFormat, init_logs, log_panics};
pub use metrics::{Metrics, MetricsHandle};

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not a filter.
    #[error("the log filter is not valid")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a subscriber already.
    #[error("logs are already set up")]
    Logs(#[from] tracing_subscriber::util::TryInitError),
    /// The process has a recorder already.
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}
