//! What comes in from the client: bytes to frames, frames to what they ask for.

use actix::prelude::*;
use actix_web_actors::ws::{self, ProtocolError};
use governor::clock::{Clock, DefaultClock};
use hubbub_actors::{Handling, Rejection};
use hubbub_protocol::reply::ErrorBody;
use hubbub_protocol::server::ErrorFrame;
use hubbub_protocol::{ClientFrame, CloseCode, FrameError, ServerFrame, client};
use tokio::time::Instant;

use super::{Connection, MAX_ASKING, say};
use crate::realtime::guard::Fault;

impl StreamHandler<Result<ws::Message, ProtocolError>> for Connection {
    fn handle(
        &mut self,
        message: Result<ws::Message, ProtocolError>,
        ctx: &mut ws::WebsocketContext<Self>,
    ) {
        self.last_heard = Instant::now();
        match message {
            Ok(ws::Message::Text(text)) => self.text(&text, ctx),
            Ok(ws::Message::Continuation(item)) => self.fragment(item, ctx),
            Ok(ws::Message::Ping(payload)) => ctx.pong(&payload),
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Binary(_)) => self.close(CloseCode::Unsupported, ctx),
            Ok(ws::Message::Close(_)) => self.close(CloseCode::Done, ctx),
            Err(_) if self.verdict.fault() == Fault::Broken => ctx.stop(),
            Err(error) => {
                let code = self.close_code(&error);
                self.close(code, ctx);
            }
        }
    }

    fn finished(&mut self, ctx: &mut ws::WebsocketContext<Self>) {
        ctx.stop();
    }
}

impl Connection {
    /// The codec reports three different faults as `Io`.
    fn close_code(&self, error: &ProtocolError) -> CloseCode {
        match error {
            _ if self.verdict.fault() == Fault::TooBig => CloseCode::TooBig,
            _ if self.verdict.fault() == Fault::TooFast => CloseCode::Policy,
            ProtocolError::Overflow => CloseCode::TooBig,
            ProtocolError::Io(error) if error.kind() == std::io::ErrorKind::Other => {
                CloseCode::NotUtf8
            }
            _ => CloseCode::Protocol,
        }
    }

    /// A frame in pieces may be as large as one in one piece, and no larger.
    fn fragment(&mut self, item: actix_http::ws::Item, ctx: &mut ws::WebsocketContext<Self>) {
        use actix_http::ws::Item;
        let (bytes, is_last) = match item {
            Item::FirstBinary(_) => return self.close(CloseCode::Unsupported, ctx),
            Item::FirstText(bytes) | Item::Continue(bytes) => (bytes, false),
            Item::Last(bytes) => (bytes, true),
        };
        if self.fragments.len() + bytes.len() > self.config.limits.frame_bytes {
            return self.close(CloseCode::TooBig, ctx);
        }
        // Every piece counts against the rate: empty ones would otherwise cost nothing.
        if self.frames.check().is_err() {
            return self.close(CloseCode::Policy, ctx);
        }
        self.fragments.extend_from_slice(&bytes);
        if is_last {
            let fragments = std::mem::take(&mut self.fragments);
            match String::from_utf8(fragments) {
                Ok(text) => self.text(&text, ctx),
                Err(_) => self.close(CloseCode::NotUtf8, ctx),
            }
        }
    }

    fn text(&mut self, text: &str, ctx: &mut ws::WebsocketContext<Self>) {
        metrics::counter!("hubbub_frames_received_total").increment(1);
        let frame = match ClientFrame::decode(text, self.config.limits.text_chars) {
            Ok(frame) => frame,
            Err(error) => return self.refuse_frame(error, ctx),
        };
        if let Some(rejection) = self.over_limit() {
            // Who is told again and again and does not slow down is not told any more.
            if self.refusals.check().is_err() {
                return self.close(CloseCode::Policy, ctx);
            }
            let reference = frame.reference().map(str::to_owned);
            return self.refuse(reference, frame.session(), &rejection, ctx);
        }
        match frame {
            ClientFrame::Join(join) => self.join(join, ctx),
            ClientFrame::Send(send) => self.send(send, ctx),
            ClientFrame::Stop(stop) => self.stop_reply(stop, ctx),
            ClientFrame::Takeover(client::Takeover {
                reference,
                session,
                from,
            }) => self.handle_session(session, reference, Handling::TakeOver { from }, ctx),
            ClientFrame::Release(client::Release {
                reference,
                session,
                summary,
            }) => {
                self.handle_session(session, reference, Handling::Release { summary }, ctx);
            }
            ClientFrame::Transfer(client::Transfer {
                reference,
                session,
                to,
            }) => self.handle_session(session, reference, Handling::Transfer { to }, ctx),
            ClientFrame::Escalate(client::Escalate {
                reference,
                session,
                reason,
            }) => self.handle_session(session, reference, Handling::Escalate { reason }, ctx),
            ClientFrame::Note(note) => self.note(note, ctx),
            ClientFrame::Leave(leave) => self.leave(leave, ctx),
            ClientFrame::Typing(typing) => self.typing(&typing, ctx),
            ClientFrame::Read(read) => self.read(&read, ctx),
        }
    }

    fn over_limit(&self) -> Option<Rejection> {
        if let Err(not_until) = self.frames.check() {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            return Some(Rejection::too_fast("this connection sends too fast", wait));
        }
        // A visitor is one, however many connections it has.
        if let Err(rejection) = self.hub.admit(&self.caller) {
            return Some(rejection);
        }
        (self.asking >= MAX_ASKING).then(Rejection::overloaded)
    }

    fn refuse_frame(&mut self, error: FrameError, ctx: &mut ws::WebsocketContext<Self>) {
        metrics::counter!("hubbub_frames_refused_total", "code" => error.code.as_str())
            .increment(1);
        // Nonsense counts against the rate too, and is answered only while it is within it.
        if self.frames.check().is_err() {
            return self.close(CloseCode::Policy, ctx);
        }
        let FrameError {
            code,
            message,
            reference,
            session,
        } = error;
        let error = ErrorBody::new(code, message);
        say(
            &ServerFrame::Error(ErrorFrame {
                reference,
                session,
                error,
            }),
            ctx,
        );
    }
}
