//! Accepting connections: the listener, the workers, and what each accepted stream goes through.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Protocol};
use actix_server::Server;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use anyhow::Context as _;
use socket2::{Domain, Socket, Type};

use crate::http::{AppState, problem, requests, routes};
use crate::realtime::wire::Wire;

/// Connections the kernel holds while they wait to be accepted: a herd that reconnects.
const BACKLOG: i32 = 4_096;

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
) -> anyhow::Result<Server> {
    let server = Server::build()
        .workers(workers)
        .disable_signals()
        .shutdown_timeout(1)
        .listen("http", listener, move || {
            let app = actix_web::App::new()
                .wrap(from_fn(requests::count))
                .wrap(from_fn(problem::problems))
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
                })
                .finish(map_config(app, |()| AppConfig::default()));
            fn_service(|stream: TcpStream| async move {
                let peer = stream.peer_addr().ok();
                Ok((Wire::new(stream), Protocol::Http1, peer))
            })
            .and_then(http)
        })?
        .run();
    Ok(server)
}
