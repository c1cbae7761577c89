//! `MessageWriter`: group commit.
//!
//! One, started by the node. It collects entries while a batch is being committed, and for a moment longer
//! where more are about to come ([`Arrivals`]), then writes the next batch in one transaction and answers each
//! sender after COMMIT. A panic in storage fails only the entry that causes it. If the writer dies all the same,
//! its senders learn at once that their entry's fate is unknown; repeating it is safe, because every entry is
//! idempotent.

mod activity;
mod arrivals;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use activity::{Activity, SessionKey};
use arrivals::Arrivals;

use crate::capacity;
use crate::ports::{Append, AppendRefusal, Appended, MessageStore, StoreError};
use crate::supervision::{Fatal, Permanent};

/// Pause before a failed batch is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What became of an entry.
pub(crate) type AppendResult = Result<Result<Appended, AppendRefusal>, AppendError>;

/// Why nothing is known to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// The queue is full: nothing was stored.
    Overloaded,
    /// Storage did not commit it before its deadline; it may yet turn out to be stored.
    Unavailable,
    /// Storage cannot store this entry, now or later.
    Failed,
}

#[derive(Message)]
#[rtype(result = "()")]
struct AppendEntry(QueuedAppend);

struct QueuedAppend {
    append: Append,
    deadline: Instant,
    answer: oneshot::Sender<AppendResult>,
}

/// The way to the writer.
#[derive(Clone)]
pub(crate) struct WriterHandle(Arc<Permanent<MessageWriter>>);

impl WriterHandle {
    /// Starts the writer on the current arbiter.
    pub(crate) fn start(store: &Arc<dyn MessageStore>, fatal: &Fatal) -> Self {
        let store = store.clone();
        Self(Permanent::start(
            "message_writer",
            capacity::WRITER_MAILBOX,
            fatal.clone(),
            move || MessageWriter::new(store.clone()),
        ))
    }

    /// Commits one entry. The future can be awaited anywhere, or dropped: the entry is written anyway.
    pub(crate) fn append(&self, append: Append) -> impl Future<Output = AppendResult> + 'static {
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + capacity::APPEND_DEADLINE;
        let entry = AppendEntry(QueuedAppend {
            append,
            deadline,
            answer,
        });
        let sent = self.0.try_send(entry).is_ok();
        async move {
            if !sent {
                return Err(AppendError::Overloaded);
            }
            // Closed without an answer: the writer died with the entry.
            answered.await.unwrap_or(Err(AppendError::Unavailable))
        }
    }
}

/// The actor.
pub(crate) struct MessageWriter {
    store: Arc<dyn MessageStore>,
    queue: Vec<QueuedAppend>,
    committing: bool,
    gathering: bool,
    arrivals: Arrivals,
    activity: Activity,
}

impl MessageWriter {
    fn new(store: Arc<dyn MessageStore>) -> Self {
        Self {
            store,
            queue: Vec::new(),
            committing: false,
            gathering: false,
            arrivals: Arrivals::new(Instant::now()),
            activity: Activity::default(),
        }
    }

    fn commit_next(&mut self, ctx: &mut Context<Self>) {
        if self.committing || self.gathering || self.queue.is_empty() {
            return;
        }
        let gather = self.arrivals.gather(Instant::now());
        if !gather.is_zero() && self.queue.len() < capacity::WRITER_BATCH {
            self.gathering = true;
            ctx.run_later(gather, |writer, ctx| {
                writer.gathering = false;
                writer.commit_now(ctx);
            });
            return;
        }
        self.commit_now(ctx);
    }

    fn commit_now(&mut self, ctx: &mut Context<Self>) {
        self.arrivals.began(Instant::now());
        let size = self.queue.len().min(capacity::WRITER_BATCH);
        let batch: Vec<QueuedAppend> = self.queue.drain(..size).collect();
        self.committing = true;
        let store = self.store.clone();
        let commit = commit(store, batch)
            .into_actor(self)
            .map(|active, writer, ctx| {
                writer.committing = false;
                writer.note_activity(active, ctx);
                writer.commit_next(ctx);
            });
        ctx.spawn(commit);
    }

    fn note_activity(&mut self, sessions: Vec<SessionKey>, ctx: &mut Context<Self>) {
        self.activity.note(sessions);
        if !self.activity.begin() {
            return;
        }
        ctx.run_later(activity::GATHER, |writer, ctx| {
            let round = activity::write(writer.store.clone(), writer.activity.take());
            let round = round.into_actor(writer).map(|(), writer, ctx| {
                writer.activity.end();
                writer.note_activity(Vec::new(), ctx);
            });
            ctx.spawn(round);
        });
    }
}

impl Actor for MessageWriter {
    type Context = Context<Self>;
}

impl Handler<AppendEntry> for MessageWriter {
    type Result = ();

    fn handle(&mut self, AppendEntry(entry): AppendEntry, ctx: &mut Self::Context) {
        if self.queue.len() >= capacity::WRITER_QUEUE {
            answer(entry, Err(AppendError::Overloaded));
            return;
        }
        self.queue.push(entry);
        self.arrivals.note(Instant::now());
        self.commit_next(ctx);
    }
}

/// Commits a batch, retrying while storage may come back at any moment, and answers its senders. Returns the sessions
/// that got something.
async fn commit(store: Arc<dyn MessageStore>, batch: Vec<QueuedAppend>) -> Vec<SessionKey> {
    let mut batch = batch;
    loop {
        batch = drop_expired(batch);
        if batch.is_empty() {
            return Vec::new();
        }
        let appends = batch.iter().map(|entry| entry.append.clone()).collect();
        let started = Instant::now();
        match append_caught(&*store, appends).await {
            Ok(results) => {
                metrics::histogram!("hubbub_commit_seconds").record(started.elapsed());
                metrics::counter!("hubbub_committed_entries_total").increment(batch.len() as u64);
                let touched = batch
                    .iter()
                    .map(|e| (e.append.tenant(), e.append.session()))
                    .collect();
                for (entry, result) in batch.into_iter().zip(results) {
                    answer(entry, Ok(result));
                }
                return touched;
            }
            Err(StoreError::Unavailable) => tokio::time::sleep(RETRY_PAUSE).await,
            Err(StoreError::Down) => {
                for entry in batch {
                    answer(entry, Err(AppendError::Unavailable));
                }
                return Vec::new();
            }
            Err(StoreError::Internal | StoreError::NoBot) => {
                batch = commit_one_by_one(&*store, batch).await;
            }
        }
    }
}

/// Appends a batch; a panic counts as a failure of storage, so that the entry behind it is found and the
/// writer, on whom everybody depends, lives.
async fn append_caught(
    store: &dyn MessageStore,
    batch: Vec<Append>,
) -> Result<Vec<Result<Appended, AppendRefusal>>, StoreError> {
    let appended = async { store.append(batch).await };
    AssertUnwindSafe(appended)
        .catch_unwind()
        .await
        .unwrap_or_else(|_panic| {
            metrics::counter!("hubbub_actor_panics_total", "actor" => "message_writer")
                .increment(1);
            tracing::error!("storage panicked; the batch is written entry by entry");
            Err(StoreError::Internal)
        })
}

/// A batch that storage refuses as a whole is written entry by entry, so that one bad entry is only
/// its sender's problem. Returns what is left to retry.
async fn commit_one_by_one(
    store: &dyn MessageStore,
    batch: Vec<QueuedAppend>,
) -> Vec<QueuedAppend> {
    let mut left = Vec::new();
    for entry in batch {
        match append_caught(store, vec![entry.append.clone()])
            .await
            .map(|results| results.into_iter().next())
        {
            Ok(Some(result)) => answer(entry, Ok(result)),
            Ok(None) | Err(StoreError::Internal | StoreError::NoBot) => {
                answer(entry, Err(AppendError::Failed));
            }
            Err(StoreError::Unavailable | StoreError::Down) => left.push(entry),
        }
    }
    left
}

fn drop_expired(batch: Vec<QueuedAppend>) -> Vec<QueuedAppend> {
    let now = Instant::now();
    let (live, expired): (Vec<_>, Vec<_>) = batch.into_iter().partition(|e| e.deadline > now);
    for entry in expired {
        answer(entry, Err(AppendError::Unavailable));
    }
    live
}

fn answer(entry: QueuedAppend, result: AppendResult) {
    // Nobody waits any more: the entry was still worth writing.
    if entry.answer.send(result).is_err() {
        tracing::debug!("the sender of an entry is gone");
    }
}
