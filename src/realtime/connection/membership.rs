//! The sessions a connection follows: joining, leaving, and joining again when one died.

use std::rc::Rc;
use std::time::Duration;

use actix::prelude::*;
use actix_web_actors::ws;
use hubbub_actors::{JoinRequest, Rejection, SessionHandle};
use hubbub_protocol::server::Left;
use hubbub_protocol::{BotId, CloseCode, ErrorCode, Seq, ServerFrame, SessionId, client, limits};

use super::{Connection, say};
use crate::realtime::outlet::MailboxOutlet;

/// Times a session that died is joined again before the client is told.
const MAX_REJOINS: u32 = 5;

/// One session, as its connection follows it.
pub(super) struct Membership {
    pub(super) handle: Rc<SessionHandle>,
    /// The newest seq handed to the client.
    pub(super) held: Seq,
    /// Times in a row that it was joined again because it died.
    pub(super) rejoins: u32,
}

impl Connection {
    pub(super) fn join(&mut self, join: client::Join, ctx: &mut ws::WebsocketContext<Self>) {
        let named = join.session;
        let is_joined = named.is_some_and(|session| self.joined.contains_key(&session));
        if self.joined.len() + self.opening >= self.config.max_sessions && !is_joined {
            let full = Rejection::new(ErrorCode::Forbidden, "too many sessions on this connection");
            return self.refuse(join.reference, named, &full, ctx);
        }
        let request = JoinRequest {
            device: self.id,
            reference: join.reference,
            after: join.after,
            epoch: join.epoch,
            limit: join.limit.unwrap_or(limits::JOIN_MESSAGES_DEFAULT),
        };
        match (named, join.bot) {
            (Some(session), _) => self.enter(session, request, false, ctx),
            (None, Some(bot)) => self.open(bot, request, ctx),
            (None, None) => {
                let neither = Rejection::new(ErrorCode::Invalid, "join needs a session or a bot");
                self.refuse(request.reference, None, &neither, ctx);
            }
        }
    }

    /// Opens a session of a bot, and joins it.
    fn open(&mut self, bot: BotId, request: JoinRequest, ctx: &mut ws::WebsocketContext<Self>) {
        if let Err(rejection) = self.admission.admit_session(&self.caller) {
            return self.refuse(request.reference, None, &rejection, ctx);
        }
        let (hub, caller) = (self.hub.clone(), self.caller.clone());
        let opening = async move { hub.open_session(&caller, bot).await };
        self.opening += 1;
        self.ask(opening, ctx, move |opened, connection, ctx| {
            connection.opening -= 1;
            match opened {
                Ok(session) => connection.enter(session, request, true, ctx),
                Err(rejection) => connection.refuse(request.reference, None, &rejection, ctx),
            }
        });
    }

    /// Joins a session that exists. It counts as joined from here on: its `joined` comes by the mailbox,
    /// maybe before the answer, and whoever has read that may send at once. That gives no right to anything:
    /// the session itself asks who may, of each thing it is told, in the order it is told them.
    fn enter(
        &mut self,
        session: SessionId,
        request: JoinRequest,
        is_new: bool,
        ctx: &mut ws::WebsocketContext<Self>,
    ) {
        let named = Some(session).filter(|_| !is_new);
        let handle = match self.hub.session(self.caller.tenant, session) {
            Ok(handle) => Rc::new(handle),
            Err(rejection) => return self.refuse(request.reference, named, &rejection, ctx),
        };
        let (reference, held) = (request.reference.clone(), request.after.unwrap_or_default());
        self.joined.insert(
            session,
            Membership {
                handle: handle.clone(),
                held,
                rejoins: 0,
            },
        );
        let (caller, outlet) = (self.caller.clone(), Box::new(self.outlet(ctx)));
        let joining = async move { (handle.join(caller, request, outlet).await, handle) };
        self.ask(
            joining,
            ctx,
            move |(result, handle), connection, ctx| match result {
                // It left meanwhile, and the session may have read that before the join.
                Ok(()) if !connection.joined.contains_key(&session) => handle.leave(connection.id),
                Ok(()) => {}
                Err(rejection) => {
                    // Unless it was joined once more meanwhile.
                    let is_this = |member: &Membership| Rc::ptr_eq(&member.handle, &handle);
                    if connection.joined.get(&session).is_some_and(is_this) {
                        connection.joined.remove(&session);
                    }
                    connection.refuse(reference, named, &rejection, ctx);
                }
            },
        );
    }

    /// Joins a session again after it died under us. `joined` and what follows come by the mailbox.
    fn join_again(
        &self,
        session: SessionId,
        request: JoinRequest,
        ctx: &mut ws::WebsocketContext<Self>,
    ) -> impl Future<Output = Result<Rc<SessionHandle>, Rejection>> + use<> {
        let (hub, caller, outlet) = (
            self.hub.clone(),
            self.caller.clone(),
            Box::new(self.outlet(ctx)),
        );
        async move {
            let handle = Rc::new(hub.session(caller.tenant, session)?);
            handle.join(caller, request, outlet).await?;
            Ok(handle)
        }
    }

    fn outlet(&self, ctx: &mut ws::WebsocketContext<Self>) -> MailboxOutlet {
        MailboxOutlet {
            deliver: ctx.address().recipient(),
            lost: ctx.address().recipient(),
            waiting: self.waiting.clone(),
            cut: self.cut.clone(),
        }
    }

    pub(super) fn leave(&mut self, leave: client::Leave, ctx: &mut ws::WebsocketContext<Self>) {
        let client::Leave { reference, session } = leave;
        if let Some(member) = self.joined.remove(&session) {
            member.handle.leave(self.id);
            say(&ServerFrame::Left(Left { reference, session }), ctx);
        } else {
            self.refuse(reference, Some(session), &Rejection::not_joined(), ctx);
        }
    }

    pub(super) fn member(
        &self,
        session: SessionId,
        reference: Option<String>,
        ctx: &mut ws::WebsocketContext<Self>,
    ) -> Option<Rc<SessionHandle>> {
        let handle = self
            .joined
            .get(&session)
            .map(|member| member.handle.clone());
        if handle.is_none() {
            self.refuse(reference, Some(session), &Rejection::not_joined(), ctx);
        }
        handle
    }

    pub(super) fn rejoin(&mut self, session: SessionId, ctx: &mut ws::WebsocketContext<Self>) {
        let Some(member) = self.joined.get_mut(&session) else {
            return;
        };
        member.rejoins += 1;
        let (held, rejoins) = (member.held, member.rejoins);
        if rejoins > MAX_REJOINS {
            self.joined.remove(&session);
            self.refuse(None, Some(session), &Rejection::unavailable(), ctx);
            // Nothing is left for it to follow. Coming back later, it resumes by itself; other sessions
            // would be disturbed by that for nothing.
            if self.joined.is_empty() {
                self.close(CloseCode::TryLater, ctx);
            }
            return;
        }
        let request = JoinRequest {
            device: self.id,
            reference: None,
            after: Some(held).filter(|held| *held > Seq::ZERO),
            epoch: None,
            limit: limits::JOIN_MESSAGES,
        };
        let joining = self.join_again(session, request, ctx);
        // All devices of the session come back at once; a little apart is kinder.
        let pause = Duration::from_millis(100 * u64::from(rejoins)).mul_f64(rand::random());
        let joining = async move {
            tokio::time::sleep(pause).await;
            joining.await
        };
        self.ask(joining, ctx, move |result, connection, ctx| match result {
            Ok(handle) => {
                if let Some(member) = connection.joined.get_mut(&session) {
                    member.handle = handle;
                }
            }
            Err(_) => connection.rejoin(session, ctx),
        });
    }
}
