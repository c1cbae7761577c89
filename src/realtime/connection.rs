//! Connection: one WebSocket.
//!
//! Started by the upgrade, on the worker that accepted the socket; ends with it. It decodes frames,
//! checks its limits, asks sessions through their handles, and writes what they hand it. If it dies
//! the client reconnects and resumes by `after`; nothing durable is here.

mod inbound;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use actix::prelude::*;
use actix_web_actors::ws;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hubbub_actors::{
    Caller, ConnectionPermit, Hub, JoinRequest, Rejection, SessionHandle, capacity,
};
use hubbub_protocol::server::{Ack, Bye, ErrorFrame, Left, Welcome};
use hubbub_protocol::{
    BotId, CloseCode, ConnectionId, ErrorCode, PrincipalKind, Seq, ServerFrame, SessionId, client,
    limits,
};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::ConnectionConfig;
use super::guard::Verdict;
use super::outlet::{Deliver, MailboxOutlet, SessionLost, Waiting};
use super::registry::{Admission, Close, Entry};
use super::wire::Cut;

/// Answers a connection waits for at once: more are refused with `overloaded`.
const MAX_ASKING: usize = 64;

/// Times a session that died is joined again before the client is told.
const MAX_REJOINS: u32 = 5;

/// The actor.
pub(super) struct Connection {
    id: ConnectionId,
    hub: Hub,
    caller: Caller,
    config: ConnectionConfig,
    frames: DefaultDirectRateLimiter,
    verdict: Verdict,
    cut: Cut,
    waiting: Waiting,
    joined: HashMap<SessionId, Membership>,
    asking: usize,
    last_heard: Instant,
    /// Pieces of a fragmented frame.
    fragments: Vec<u8>,
    admission: Admission,
    /// Its place among the node's connections, from its start on.
    entry: Option<Entry>,
    _permit: ConnectionPermit,
}

struct Membership {
    handle: Rc<SessionHandle>,
    /// The newest seq handed to the client.
    held: Seq,
    rejoins: u32,
}

impl Connection {
    pub(super) fn new(
        hub: Hub,
        caller: Caller,
        config: ConnectionConfig,
        verdict: Verdict,
        cut: Cut,
        permit: ConnectionPermit,
        admission: Admission,
    ) -> Self {
        let id = ConnectionId::generate();
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(config.frames_per_second))
            .allow_burst(at_least_one(config.frames_burst));
        Self {
            id,
            hub,
            caller,
            config,
            frames: RateLimiter::direct(quota),
            verdict,
            cut,
            waiting: Waiting::default(),
            joined: HashMap::new(),
            asking: 0,
            last_heard: Instant::now(),
            fragments: Vec::new(),
            admission,
            entry: None,
            _permit: permit,
        }
    }

    fn join(&mut self, join: client::Join, ctx: &mut ws::WebsocketContext<Self>) {
        let named = join.session;
        let is_joined = named.is_some_and(|session| self.joined.contains_key(&session));
        if self.joined.len() >= self.config.max_sessions && !is_joined {
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
        let (hub, caller) = (self.hub.clone(), self.caller.clone());
        let opening = async move { hub.open_session(&caller, bot).await };
        self.ask(opening, ctx, move |opened, connection, ctx| match opened {
            Ok(session) => connection.enter(session, request, true, ctx),
            Err(rejection) => connection.refuse(request.reference, None, &rejection, ctx),
        });
    }

    /// Joins a session that exists. It counts as joined from here on: its `joined` comes by the mailbox,
    /// maybe before the answer, and whoever has read that may send at once.
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
                    connection.joined.remove(&session);
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

    fn send(&mut self, send: client::Send, ctx: &mut ws::WebsocketContext<Self>) {
        let client::Send {
            reference,
            session,
            id,
            text,
            metadata,
        } = send;
        let Some(handle) = self.member(session, reference.clone(), ctx) else {
            return;
        };
        let caller = self.caller.clone();
        let role = hubbub_protocol::Role::Visitor;
        let post = hubbub_actors::Post {
            id,
            role,
            text,
            metadata,
        };
        let posting = async move { handle.post_message(caller, post).await };
        self.ask(posting, ctx, move |posted, connection, ctx| match posted {
            Ok(posted) => {
                let (seq, at, duplicate) = (posted.seq, posted.at, posted.duplicate);
                let ack = Ack {
                    reference,
                    session,
                    id,
                    seq,
                    at,
                    duplicate,
                };
                say(&ServerFrame::Ack(ack), ctx);
            }
            Err(rejection) => connection.refuse(reference, Some(session), &rejection, ctx),
        });
    }

    fn stop_reply(&mut self, stop: client::Stop, ctx: &mut ws::WebsocketContext<Self>) {
        let client::Stop { reference, session } = stop;
        let Some(handle) = self.member(session, reference.clone(), ctx) else {
            return;
        };
        let caller = self.caller.clone();
        let stopping = async move { handle.stop_reply(caller).await };
        self.ask(stopping, ctx, move |stopped, connection, ctx| {
            if let Err(rejection) = stopped {
                connection.refuse(reference, Some(session), &rejection, ctx);
            }
        });
    }

    fn leave(&mut self, leave: client::Leave, ctx: &mut ws::WebsocketContext<Self>) {
        let client::Leave { reference, session } = leave;
        if let Some(member) = self.joined.remove(&session) {
            member.handle.leave(self.id);
            say(&ServerFrame::Left(Left { reference, session }), ctx);
        } else {
            self.refuse(reference, Some(session), &not_joined(), ctx);
        }
    }

    fn signal(&mut self, session: SessionId, tell: impl FnOnce(&SessionHandle, Caller)) {
        if let Some(member) = self.joined.get(&session) {
            tell(&member.handle, self.caller.clone());
        }
    }

    fn member(
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
            self.refuse(reference, Some(session), &not_joined(), ctx);
        }
        handle
    }

    /// Awaits an answer beside everything else. How many at once was checked when the frame came.
    fn ask<T: 'static>(
        &mut self,
        question: impl Future<Output = T> + 'static,
        ctx: &mut ws::WebsocketContext<Self>,
        answered: impl FnOnce(T, &mut Self, &mut ws::WebsocketContext<Self>) + 'static,
    ) {
        self.asking += 1;
        let question = question.instrument(self.span()).into_actor(self);
        ctx.spawn(question.map(|answer, connection, ctx| {
            connection.asking -= 1;
            answered(answer, connection, ctx);
        }));
    }

    fn refuse(
        &self,
        reference: Option<String>,
        session: Option<SessionId>,
        rejection: &Rejection,
        ctx: &mut ws::WebsocketContext<Self>,
    ) {
        metrics::counter!("hubbub_frames_refused_total", "code" => rejection.code.as_str())
            .increment(1);
        tracing::debug!(parent: &self.span(), code = %rejection.code, "frame refused");
        say(
            &ServerFrame::Error(ErrorFrame {
                reference,
                session,
                error: rejection.body(),
            }),
            ctx,
        );
    }

    /// Made when something happens: a span kept for every idle connection would cost more than the
    /// connection's own state.
    fn span(&self) -> Span {
        let Caller { tenant, .. } = self.caller;
        tracing::info_span!(parent: None, "ws.connection", connection = %self.id, %tenant)
    }

    /// Says why, closes, and ends.
    fn close(&mut self, code: CloseCode, ctx: &mut ws::WebsocketContext<Self>) {
        tracing::info!(parent: &self.span(), code = code.number(), "closing");
        ctx.close(Some(ws::CloseReason {
            code: code.number().into(),
            description: Some(code.reason().to_owned()),
        }));
        ctx.stop();
    }

    fn heartbeat(&mut self, ctx: &mut ws::WebsocketContext<Self>) {
        if self.last_heard.elapsed() > self.config.heartbeat * 2 + Duration::from_secs(5) {
            tracing::info!(parent: &self.span(), "the client is silent");
            ctx.stop();
        } else {
            ctx.ping(b"");
        }
    }

    fn rejoin(&mut self, session: SessionId, ctx: &mut ws::WebsocketContext<Self>) {
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

fn not_joined() -> Rejection {
    Rejection::new(
        ErrorCode::NotFound,
        "this connection has not joined that session",
    )
}

fn say(frame: &ServerFrame, ctx: &mut ws::WebsocketContext<Connection>) {
    ctx.text(frame.encode());
}

impl Actor for Connection {
    type Context = ws::WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(capacity::CONNECTION_MAILBOX);
        let close = ctx.address().recipient::<Close>().downgrade();
        let connections = self.admission.connections();
        let principal = &self.caller.principal;
        let key = (principal.kind == PrincipalKind::ApiKey).then(|| principal.id.as_str().into());
        self.entry = Some(connections.enter(self.id, close, self.cut.clone(), key));
        tracing::debug!(parent: &self.span(), principal = %self.caller.principal.id, "connected");
        let welcome = Welcome {
            connection: self.id,
            tenant: self.caller.tenant,
            principal: self.caller.principal.clone(),
            heartbeat_ms: u64::try_from(self.config.heartbeat.as_millis()).unwrap_or(u64::MAX),
            limits: self.config.limits,
        };
        say(&ServerFrame::Welcome(welcome), ctx);
        // A connection is not on-demand: its socket ends it, so an interval cannot keep it alive.
        ctx.run_interval(self.config.heartbeat, Self::heartbeat);
        // It may have begun to drain between the admission and now.
        if self.admission.connections().is_draining() {
            self.close(CloseCode::Draining, ctx);
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        for (_, member) in self.joined.drain() {
            member.handle.leave(self.id);
        }
        tracing::debug!(parent: &self.span(), "disconnected");
    }
}

impl Handler<Deliver> for Connection {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Self::Context) {
        let delivery = deliver.delivery;
        if let Some(member) = self.joined.get_mut(&delivery.session) {
            member.held = member.held.max(delivery.through);
            member.rejoins = 0;
        }
        for frame in delivery.frames {
            ctx.text(frame);
        }
    }
}

impl Handler<SessionLost> for Connection {
    type Result = ();

    fn handle(&mut self, SessionLost(session): SessionLost, ctx: &mut Self::Context) {
        self.rejoin(session, ctx);
    }
}

impl Handler<Close> for Connection {
    type Result = ();

    fn handle(&mut self, close: Close, ctx: &mut Self::Context) {
        if let Some(reconnect_after) = close.reconnect_after {
            let bye = Bye {
                reason: close.code.reason().to_owned(),
                reconnect_after_ms: u64::try_from(reconnect_after.as_millis()).unwrap_or(0),
            };
            say(&ServerFrame::Bye(bye), ctx);
        }
        self.close(close.code, ctx);
    }
}
