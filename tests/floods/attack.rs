//! A flood, on a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hubbub_protocol::BotId;

/// Whom it meets, and as whom.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub bot: BotId,
    /// An anonymous visitor's.
    pub token: String,
}

/// What the flooding visitor was told.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was taken.
    pub taken: u64,
    /// Refusals: in a frame, a problem, or of a handshake.
    pub told: u64,
    /// Connections that were closed, by code, or cut.
    pub closed: u64,
}

/// When to stop.
#[derive(Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Completes when told.
    pub async fn told(&self) {
        while !self.is_told() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A running flood.
pub struct Attack {
    stop: Stop,
    thread: JoinHandle<Outcome>,
}

/// Starts a flood.
///
/// Its thread gives way to everybody else's: what it costs the server is to be measured, and not that an
/// attacker and its victims are on one machine with two cores.
pub fn launch<F>(target: Target, flood: impl FnOnce(Target, Stop) -> F + Send + 'static) -> Attack
where
    F: Future<Output = Outcome>,
{
    let stop = Stop(Arc::default());
    let told = stop.clone();
    let thread = std::thread::spawn(move || {
        // On Linux this is the thread's own.
        rustix::process::nice(19).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(flood(target, told))
    });
    Attack { stop, thread }
}

impl Attack {
    /// Ends it.
    pub fn stop(self) -> Outcome {
        self.stop.0.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.taken += other.taken;
        self.told += other.told;
        self.closed += other.closed;
    }
}
