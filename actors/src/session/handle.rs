//! The only way to a session. Every method has a deadline, and a full mailbox is told, never waited for.

use std::sync::Arc;

use actix::prelude::*;
use hubbub_protocol::{ClientMessageId, ConnectionId, ErrorCode, NoteFrame, Seq, SessionId};
use tokio::sync::oneshot;

use super::Session;
use super::catching_up::Reconcile;
use super::handling::{HandleSession, Handling};
use super::joining::{JoinRequest, JoinSession, LeaveSession};
use super::noting::AddNote;
use super::posting::{Post, PostMessage, Posted};
use super::signals::{Signal, SignalKind};
use super::stopping::{EndReplies, StopReply};
use crate::caller::Caller;
use crate::capacity;
use crate::device::Outlet;
use crate::quarantine::Quarantine;
use crate::rejection::Rejection;

/// A live session. Holding one keeps it live; it is not to be cloned to send (a clone has a slot of
/// its own in the mailbox), so it is not `Clone`.
pub struct SessionHandle {
    address: Addr<Session>,
    session: SessionId,
    quarantine: Arc<Quarantine>,
}

impl SessionHandle {
    pub(crate) fn new(
        address: Addr<Session>,
        session: SessionId,
        quarantine: Arc<Quarantine>,
    ) -> Self {
        Self {
            address,
            session,
            quarantine,
        }
    }

    /// Which session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether the actor behind this handle is still alive.
    pub fn is_live(&self) -> bool {
        self.address.connected()
    }

    /// Adds a device: `joined` and everything after it arrives through its outlet.
    pub async fn join(
        &self,
        caller: Caller,
        join: JoinRequest,
        outlet: Box<dyn Outlet>,
    ) -> Result<(), Rejection> {
        self.ask(|answer| JoinSession {
            caller,
            join,
            outlet,
            answer,
        })
        .await
    }

    /// Removes a device. If the mailbox is full the session notices by itself that it is gone.
    pub fn leave(&self, device: ConnectionId) {
        if self.address.try_send(LeaveSession { device }).is_err() {
            tracing::debug!(session = %self.session, "session is busy or gone; not told of a leave");
        }
    }

    /// Stores a message; answers after its commit.
    pub async fn post_message(&self, caller: Caller, post: Post) -> Result<Posted, Rejection> {
        let id = post.id;
        self.quarantine.check(id)?;
        let span = tracing::Span::current();
        let posted = self
            .ask(|answer| PostMessage {
                caller,
                post,
                span,
                answer,
            })
            .await;
        if !self.is_live()
            && posted
                .as_ref()
                .is_err_and(|r| *r == Rejection::unavailable())
        {
            self.quarantine.note(id);
        }
        posted
    }

    /// Stops the running reply. Its end is committed and then told to every device, this one too.
    pub async fn stop_reply(&self, caller: Caller) -> Result<(), Rejection> {
        self.ask(|answer| StopReply { caller, answer }).await
    }

    /// Has somebody else handle the session. Answered once that is committed; every device is told.
    ///
    /// # Errors
    /// `forbidden`, `conflict`: another handles it than the caller expects, or than may be left alone.
    pub async fn handle(&self, caller: Caller, what: Handling) -> Result<(), Rejection> {
        self.ask(|answer| HandleSession {
            caller,
            what,
            answer,
        })
        .await
    }

    /// Stores a note and tells it to operators' devices. Returns it, and whether it had been stored before.
    ///
    /// # Errors
    /// `forbidden`; `conflict`: another note has the id.
    pub async fn note(
        &self,
        caller: Caller,
        id: ClientMessageId,
        text: String,
    ) -> Result<(NoteFrame, bool), Rejection> {
        self.ask(|answer| AddNote {
            caller,
            id,
            text,
            answer,
        })
        .await
    }

    /// Tells the other devices that somebody types. May be dropped under load.
    ///
    /// # Errors
    /// `not_found`: the caller may not know of the session, or the device has not joined it.
    pub async fn typing(
        &self,
        caller: Caller,
        device: ConnectionId,
        on: bool,
    ) -> Result<(), Rejection> {
        self.signal(caller, device, SignalKind::Typing(on)).await
    }

    /// Tells the other devices how far somebody has read. May be dropped under load.
    ///
    /// # Errors
    /// As [`SessionHandle::typing`].
    pub async fn read(
        &self,
        caller: Caller,
        device: ConnectionId,
        seq: Seq,
    ) -> Result<(), Rejection> {
        self.signal(caller, device, SignalKind::Read(seq)).await
    }

    /// Has it look for what its predecessor left behind. Losing this is noticed when it is next loaded.
    pub(crate) fn reconcile(&self) {
        if self.address.try_send(Reconcile).is_err() {
            tracing::warn!(session = %self.session, "the session is too busy to look for lost messages");
        }
    }

    /// Ends whatever is being answered; `false` if the session is too busy to be told now.
    pub(crate) fn end_replies(&self) -> bool {
        self.address.try_send(EndReplies).is_ok()
    }

    async fn signal(
        &self,
        caller: Caller,
        device: ConnectionId,
        what: SignalKind,
    ) -> Result<(), Rejection> {
        let told = self.ask(|answer| Signal {
            caller,
            device,
            what,
            answer,
        });
        match told.await {
            // Too late by the time it could be told.
            Err(r) if matches!(r.code, ErrorCode::Overloaded | ErrorCode::Unavailable) => {
                metrics::counter!("hubbub_signals_dropped_total").increment(1);
                Ok(())
            }
            told => told,
        }
    }

    async fn ask<M, T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, Rejection>>) -> M,
    ) -> Result<T, Rejection>
    where
        M: Message<Result = ()> + Send + 'static,
        Session: Handler<M>,
    {
        let (answer, answered) = oneshot::channel();
        match self.address.try_send(message(answer)) {
            Ok(()) => {}
            Err(SendError::Full(_)) => {
                metrics::counter!("hubbub_mailbox_full_total", "actor" => "session").increment(1);
                return Err(Rejection::overloaded());
            }
            Err(SendError::Closed(_)) => return Err(Rejection::unavailable()),
        }
        match tokio::time::timeout(capacity::SESSION_DEADLINE, answered).await {
            Ok(Ok(result)) => result,
            // The session died, or storage did not answer in time.
            Ok(Err(_)) | Err(_) => Err(Rejection::unavailable()),
        }
    }
}
