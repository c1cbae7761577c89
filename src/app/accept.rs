//! Accepting connections: the listener, the workers, and what each accepted stream goes through.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Protocol};
use actix_server::Server;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use anyhow::Context as _;
use socket2::{Domain, Socket, Type};

use crate::http::{AppState, base_path, problem, requests, routes};
use crate::realtime::sockets::Sockets;
use crate::realtime::wire::Wire;

/// Connections the kernel holds while they wait to be accepted: a herd that reconnects.
const BACKLOG: i32 = 4_096;

/// Sockets in all that are accepted beyond those that may be kept: for each, another one is on its way out.
const NEWCOMERS: usize = 32;

/// An HTTP connection that is silent for this long is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Longest wait for a request's head.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Listens, without accepting anything yet.
pub(super) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    listen().with_context(|| format!("cannot listen on {address}"))
}

/// Starts the workers. Signals are the caller's.
pub(super) fn start(
    listener: TcpListener,
    workers: usize,
    state: Arc<AppState>,
    sockets: &Sockets,
    most_sockets: usize,
) -> anyhow::Result<Server> {
    // Nothing is accepted while the workers have more than they may keep: the kernel holds it.
    let most = (most_sockets + NEWCOMERS).div_ceil(workers.max(1));
    let sockets = sockets.clone();
    let server = Server::build()
        .workers(workers)
        .max_concurrent_connections(most)
        .disable_signals()
        .shutdown_timeout(1)
        .listen("http", listener, move || {
            let app = actix_web::App::new()
                .wrap(from_fn(requests::count))
                .wrap(from_fn(problem::problems))
                .wrap(from_fn(base_path::take_off))
                .configure(routes(state.clone()))
                .into_factory()
                .map_err(|error: actix_web::Error| error.error_response());
            let http = HttpService::build()
                .keep_alive(KeepAlive::Timeout(KEEP_ALIVE))
                .client_request_timeout(REQUEST_TIMEOUT)
                // After a Close frame the socket is shut down at once, not a second later.
                .client_disconnect_timeout(Duration::ZERO)
                .on_connect_ext(|wire: &Wire, data| {
                    data.insert(wire.cut());
                    data.insert(wire.socket());
                })
                .finish(map_config(app, |()| AppConfig::default()));
            let (sockets, state) = (sockets.clone(), state.clone());
            fn_service(move |stream: TcpStream| {
                let peer = stream.peer_addr().ok();
                let wire = Wire::new(stream, &sockets, |peer| state.proxies.trusts(peer));
                let wire =
                    wire.ok_or_else(|| DispatchError::Io(io::ErrorKind::ConnectionRefused.into()));
                ready(wire.map(|wire| (wire, Protocol::Http1, peer)))
            })
            .and_then(http)
        })?
        .run();
    Ok(server)
}
