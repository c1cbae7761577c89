//! SIGTERM and SIGINT. The first begins a drain, the next cuts it short.
//!
//! Made before anything is started, so that no signal finds the server without somebody who heeds it.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that tell the server to stop.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them over from the system, which would end the process.
    ///
    /// # Errors
    /// The system does not allow it.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Completes at the next of them, and says so in the log.
    pub(super) async fn told(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "told to stop");
    }

    /// What `work` comes to; `None` if a signal came first, which drops the work.
    pub(super) async fn unless_told<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.told() => None,
        }
    }
}
