//! The threads that compute answers, and the bounded queue before them. Started by `serve`, ended
//! with the process; a job lost with a thread ends as a closed channel at its client.

use crate::engine::Engine;
use crate::generation::{self, Job};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Every worker is busy and the queue is full, or no worker is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// The way to the workers. They end when the last clone is dropped and the queue is empty.
#[derive(Debug, Clone)]
pub struct Workers {
    queue: SyncSender<Job>,
}

impl Workers {
    /// Starts `count` threads behind a queue of `queue` jobs.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(engine: &Arc<dyn Engine>, count: usize, queue: usize) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..count {
            let engine = Arc::clone(engine);
            let receiver = Arc::clone(&receiver);
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(engine.as_ref(), &receiver))?;
        }
        Ok(Self { queue: sender })
    }

    /// Queues a job, at once.
    ///
    /// # Errors
    /// [`Busy`] when the queue is full.
    pub fn submit(&self, job: Job) -> Result<(), Busy> {
        self.queue.try_send(job).map_err(|_| Busy)
    }
}

/// One thread's life. A job whose client has gone costs nothing, so a queue of abandoned jobs is
/// emptied at once.
fn work(engine: &dyn Engine, queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else {
            return;
        };
        // The engine is read only and the conversation is dropped, so nothing half-done survives.
        match catch_unwind(AssertUnwindSafe(|| generation::run(engine, &job))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "an answer failed"),
            Err(_) => tracing::error!("an answer panicked; its worker goes on"),
        }
    }
}
