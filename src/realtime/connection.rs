//! Connection: one WebSocket.
//!
//! Started by the upgrade, on the worker that accepted the socket; ends with it. It decodes frames,
//! checks its limits, asks sessions through their handles, and writes what they hand it. If it dies
//! the client reconnects and resumes by `after`; nothing durable is here.

mod inbound;
mod membership;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use actix::prelude::*;
use actix_web_actors::ws;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hubbub_actors::{Caller, ConnectionPermit, Handling, Hub, Rejection, capacity};
use hubbub_protocol::note::Note;
use hubbub_protocol::server::{Ack, Bye, ErrorFrame, Welcome};
use hubbub_protocol::{CloseCode, ConnectionId, ReplyClass, Seq, ServerFrame, SessionId, client};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::ConnectionConfig;
use super::cut::Cut;
use super::guard::Verdict;
use super::outlet::{Deliver, SessionLost, Waiting};
use super::registry::{Admission, Close, RegistryEntry};
use membership::Membership;

/// Answers a connection waits for at once: more are refused with `overloaded`.
const MAX_ASKING: usize = 64;

/// Refusals that an honest client can earn at once and go on earning, at least: a page that joins all its
/// sessions again and has much to say. Who heeds none of them is closed.
const REFUSALS_BURST: u32 = 100;
const REFUSALS_PER_SECOND: u32 = 10;

/// The actor.
pub(super) struct Connection {
    id: ConnectionId,
    hub: Hub,
    caller: Caller,
    config: ConnectionConfig,
    frames: DefaultDirectRateLimiter,
    /// Warnings that it is too fast, before it is closed.
    refusals: DefaultDirectRateLimiter,
    verdict: Verdict,
    cut: Cut,
    waiting: Waiting,
    joined: HashMap<SessionId, Membership>,
    /// Sessions being opened, to be joined: they take their places among the joined from the start.
    opening: usize,
    asking: usize,
    last_heard: Instant,
    /// Pieces of a fragmented frame.
    fragments: Vec<u8>,
    admission: Admission,
    /// Its place among the node's connections, from its start on.
    entry: Option<RegistryEntry>,
    _permit: ConnectionPermit,
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
        Self {
            id,
            hub,
            caller,
            config,
            frames: limiter(config.messages_per_second, config.messages_burst),
            refusals: limiter(
                REFUSALS_PER_SECOND.max(config.messages_per_second / 2),
                REFUSALS_BURST.max(config.messages_burst.saturating_mul(2)),
            ),
            verdict,
            cut,
            waiting: Waiting::default(),
            joined: HashMap::new(),
            opening: 0,
            asking: 0,
            last_heard: Instant::now(),
            fragments: Vec::new(),
            admission,
            entry: None,
            _permit: permit,
        }
    }

    fn send(&mut self, send: client::Send, ctx: &mut ws::WebsocketContext<Self>) {
        let client::Send {
            reference,
            session,
            id,
            text,
            metadata,
            mode,
        } = send;
        let Some(handle) = self.member(session, reference.clone(), ctx) else {
            return;
        };
        let caller = self.caller.clone();
        let post = hubbub_actors::Post {
            id,
            text,
            metadata,
            mode,
            class: ReplyClass::Live,
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

    fn note(&mut self, note: Note, ctx: &mut ws::WebsocketContext<Self>) {
        let Note {
            reference,
            session,
            id,
            text,
        } = note;
        let Some(handle) = self.member(session, reference.clone(), ctx) else {
            return;
        };
        let caller = self.caller.clone();
        let noting = async move { handle.note(caller, id, text).await };
        self.ask(noting, ctx, move |noted, connection, ctx| match noted {
            Ok((note, duplicate)) => {
                let ack = Ack {
                    reference,
                    session,
                    id,
                    seq: Seq::ZERO,
                    at: note.at,
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

    /// Whoever handles it then, every device is told.
    fn handle_session(
        &mut self,
        session: SessionId,
        reference: Option<String>,
        what: Handling,
        ctx: &mut ws::WebsocketContext<Self>,
    ) {
        let Some(handle) = self.member(session, reference.clone(), ctx) else {
            return;
        };
        let caller = self.caller.clone();
        let handling = async move { handle.handle(caller, what).await };
        self.ask(handling, ctx, move |handled, connection, ctx| {
            if let Err(rejection) = handled {
                connection.refuse(reference, Some(session), &rejection, ctx);
            }
        });
    }

    fn typing(&mut self, typing: &client::Typing, ctx: &mut ws::WebsocketContext<Self>) {
        let client::Typing { session, on } = *typing;
        let Some(handle) = self.member(session, None, ctx) else {
            return;
        };
        let (caller, id) = (self.caller.clone(), self.id);
        let telling = async move { handle.typing(caller, id, on).await };
        self.signal(session, telling, ctx);
    }

    fn read(&mut self, read: &client::Read, ctx: &mut ws::WebsocketContext<Self>) {
        let client::Read { session, seq } = *read;
        let Some(handle) = self.member(session, None, ctx) else {
            return;
        };
        let (caller, id) = (self.caller.clone(), self.id);
        let telling = async move { handle.read(caller, id, seq).await };
        self.signal(session, telling, ctx);
    }

    /// Nothing is answered, unless it is refused.
    fn signal(
        &mut self,
        session: SessionId,
        telling: impl Future<Output = Result<(), Rejection>> + 'static,
        ctx: &mut ws::WebsocketContext<Self>,
    ) {
        self.ask(telling, ctx, move |told, connection, ctx| {
            if let Err(rejection) = told {
                connection.refuse(None, Some(session), &rejection, ctx);
            }
        });
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
        self.span()
            .in_scope(|| tracing::debug!(code = %rejection.code, "frame refused"));
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
        self.span()
            .in_scope(|| tracing::info!(code = code.number(), "closing"));
        ctx.close(Some(ws::CloseReason {
            code: code.number().into(),
            description: Some(code.reason().to_owned()),
        }));
        ctx.stop();
    }

    fn heartbeat(&mut self, ctx: &mut ws::WebsocketContext<Self>) {
        if self.last_heard.elapsed() > self.config.heartbeat * 2 + Duration::from_secs(5) {
            self.span()
                .in_scope(|| tracing::info!("the client is silent"));
            ctx.stop();
        } else {
            ctx.ping(b"");
        }
    }
}

fn limiter(per_second: u32, burst: u32) -> DefaultDirectRateLimiter {
    let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
    RateLimiter::direct(quota)
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
        let (principal, key) = (self.caller.principal(), self.caller.key().map(Into::into));
        self.entry = Some(connections.enter(self.id, close, self.cut.clone(), key));
        self.span()
            .in_scope(|| tracing::debug!(principal = %principal.id, "connected"));
        let welcome = Welcome {
            connection: self.id,
            tenant: self.caller.tenant,
            principal,
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
        self.span().in_scope(|| tracing::debug!("disconnected"));
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
            ctx.text(frame.json().clone());
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
