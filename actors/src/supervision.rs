//! Supervision that survives panics.
//!
//! actix's own `Supervisor` restarts an actor that stopped, but not one that panicked: the panic ends
//! the task it lives in. So an actor's task is spawned by hand and its `JoinHandle` awaited; whoever
//! does that knows how the actor ended and can build another. What was queued in the mailbox is lost,
//! and its senders learn it at once, because the answers' channels close.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Starts an actor on the current arbiter and returns its address with the task it lives in.
/// The task ends with an error only if the actor panicked.
pub fn spawn_watched<A>(
    mailbox: usize,
    build: impl FnOnce(&mut Context<A>) -> A,
) -> (Addr<A>, JoinHandle<()>)
where
    A: Actor<Context = Context<A>>,
{
    let mut context = Context::new();
    context.set_mailbox_capacity(mailbox);
    let address = context.address();
    let actor = build(&mut context);
    let task = actix_rt::spawn(context.into_future(actor));
    (address, task)
}

/// Panics in a row after which a permanent actor is given up and the process should end.
const RESTART_BUDGET: u32 = 10;

/// An actor that lived this long has recovered: its panics are counted afresh.
const RESTART_FORGIVEN_AFTER: Duration = Duration::from_mins(1);

const RESTART_BACKOFF: Duration = Duration::from_millis(50);
const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Tells the process that a permanent actor could not be kept alive.
#[derive(Clone, Default)]
pub struct Fatal(Arc<Notify>);

impl Fatal {
    /// Completes when a permanent actor was given up. The process should then exit non-zero.
    pub async fn raised(&self) {
        self.0.notified().await;
    }

    fn raise(&self) {
        self.0.notify_one();
    }
}

/// The address of a permanent actor, valid across its restarts.
pub struct Permanent<A: Actor>(RwLock<Addr<A>>);

impl<A: Actor<Context = Context<A>>> Permanent<A> {
    /// Starts the actor on the current arbiter, and again whenever it panics, with growing pauses.
    pub fn start(
        name: &'static str,
        mailbox: usize,
        fatal: Fatal,
        build: impl Fn() -> A + 'static,
    ) -> Arc<Self> {
        let (address, mut task) = spawn_watched(mailbox, |_| build());
        let current = Arc::new(Self(RwLock::new(address)));
        // Weak: when the last handle is gone the actor stops by itself and so does this watch.
        let handle = Arc::downgrade(&current);
        actix_rt::spawn(async move {
            let mut panics = 0;
            loop {
                let started = Instant::now();
                if task.await.is_ok() {
                    tracing::debug!(actor = name, "actor stopped");
                    return;
                }
                metrics::counter!("hubbub_actor_panics_total", "actor" => name).increment(1);
                if started.elapsed() > RESTART_FORGIVEN_AFTER {
                    panics = 0;
                }
                panics += 1;
                if panics > RESTART_BUDGET {
                    tracing::error!(actor = name, panics, "actor keeps panicking; giving up");
                    fatal.raise();
                    return;
                }
                let pause = (RESTART_BACKOFF * 2_u32.pow(panics - 1)).min(RESTART_BACKOFF_MAX);
                tracing::error!(actor = name, panics, ?pause, "actor panicked; restarting");
                tokio::time::sleep(pause).await;
                let Some(current) = handle.upgrade() else {
                    return;
                };
                let (address, next) = spawn_watched(mailbox, |_| build());
                *current.0.write().unwrap_or_else(PoisonError::into_inner) = address;
                task = next;
            }
        });
        current
    }

    /// Sends without waiting. The address is never cloned to send, which would bring a slot of its
    /// own and defeat the mailbox's bound.
    pub fn try_send<M>(&self, message: M) -> Result<(), SendError<M>>
    where
        M: Message<Result: Send> + Send + 'static,
        A: Handler<M>,
        A::Context: dev::ToEnvelope<A, M>,
    {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .try_send(message)
    }

    /// Sends a lifecycle message past the mailbox's bound. Only for what is sent at most once per
    /// event that was itself bounded, and whose loss would leak: the release of a slot.
    #[expect(
        clippy::disallowed_methods,
        reason = "lifecycle messages, at most once per event"
    )]
    pub fn send_lifecycle<M>(&self, message: M)
    where
        M: Message<Result: Send> + Send + 'static,
        A: Handler<M>,
        A::Context: dev::ToEnvelope<A, M>,
    {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .do_send(message);
    }
}
