//! The sockets: accepting, guarding and closing them, and the connection actor.
//!
//! Nothing about a connection's health depends on the connection itself, which does nothing while its
//! socket is blocked: the kernel cuts dead peers, sessions notice stalled devices, and the cut comes
//! from outside, through [`cut::Cut`].

mod connection;
pub mod cut;
mod guard;
mod last_words;
mod outlet;
pub mod registry;
pub mod sockets;
pub mod wire;

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use hubbub_actors::{Caller, ConnectionPermit, Hub};
use hubbub_protocol::SUBPROTOCOL;
use hubbub_protocol::server::Limits;

pub use guard::InboundRate;
pub use registry::{Admission, Connections, Refused};

use connection::Connection;
use guard::Guard;
use last_words::LastWords;

/// Settings of every connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionConfig {
    /// What is accepted, told in `welcome`.
    pub limits: Limits,
    /// Time between pings; a client silent for two of them is gone.
    pub heartbeat: Duration,
    /// Most sessions joined at once.
    pub max_sessions: usize,
    /// What may come in, whatever it is.
    pub inbound: InboundRate,
    /// Text frames a second.
    pub messages_per_second: u32,
    /// Text frames at once after a pause.
    pub messages_burst: u32,
}

/// Turns an authenticated request into a connection. Consumes its place among the tenant's and the
/// server's connections, which are given back when it ends.
///
/// # Errors
/// The request is no WebSocket handshake.
pub fn upgrade(
    request: &HttpRequest,
    payload: web::Payload,
    hub: Hub,
    caller: Caller,
    config: ConnectionConfig,
    permit: ConnectionPermit,
    admission: Admission,
) -> Result<HttpResponse, actix_web::Error> {
    let mut response = ws::handshake_with_protocols(request, &[SUBPROTOCOL])?;
    let cut = request.conn_data::<cut::Cut>().cloned().unwrap_or_default();
    cut.becomes_device();
    let (guard, verdict) = Guard::new(payload, config.inbound);
    let connection = Connection::new(hub, caller, config, verdict, cut, permit, admission);
    // The codec's own limit comes after buffering; the guard has refused a larger frame by then.
    let codec = actix_http::ws::Codec::new().max_size(config.limits.frame_bytes);
    let frames = ws::WebsocketContext::with_codec(connection, guard, codec);
    Ok(response.streaming(LastWords::new(frames)))
}
