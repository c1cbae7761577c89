//! Requests being answered: counted, so that a drain waits for them, and looked at, because a server that
//! is about to stop begins nothing new. It answers whoever asks until then: balancers must hear it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::middleware::Next;
use actix_web::web;
use bytes::Bytes;
use hubbub_actors::Rejection;
use hubbub_protocol::ErrorCode;
use tokio::time::Instant;

use super::AppState;
use super::problem::ApiError;
use crate::realtime::sockets::{Held, Socket};

/// How often a drain looks whether the last answer is out.
const LOOK: Duration = Duration::from_millis(20);

/// The requests being answered. Clones count the same ones.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<AtomicUsize>);

/// One of them, until it is dropped.
struct InFlight {
    requests: Requests,
    socket: Option<Held>,
}

impl Requests {
    /// Waits until every answer has been written, or the deadline has passed; how many were left.
    pub async fn finished(&self, deadline: Instant) -> usize {
        loop {
            let left = self.0.load(Ordering::SeqCst);
            if left == 0 || Instant::now() >= deadline {
                return left;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn begin(&self, socket: Option<&Socket>) -> InFlight {
        self.0.fetch_add(1, Ordering::SeqCst);
        InFlight {
            requests: self.clone(),
            socket: socket.map(Socket::answer),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.requests.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Middleware: counts a request until its answer is written. While the server drains it refuses what would
/// change something, and lets every connection go after its answer.
///
/// # Errors
/// None of its own: a refusal is a response.
pub async fn count(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(state) = request.app_data::<web::Data<AppState>>().cloned() else {
        return Ok(request.error_response(ApiError::from(Rejection::internal())));
    };
    // Counted before it looks: a drain that began since then sees it.
    let mut in_flight = state.requests.begin(request.conn_data::<Socket>());
    let mut response = if state.connections.is_draining() && !request.method().is_safe() {
        request.error_response(ApiError::from(stopping()))
    } else {
        next.call(request).await?.map_into_boxed_body()
    };
    // From here on it is a connection, and counted as such.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if let Some(socket) = in_flight.socket.take() {
            socket.for_good();
        }
        return Ok(response);
    }
    if state.connections.is_draining() {
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response.map_body(|_, body| {
        BoxBody::new(Counted {
            body,
            _in_flight: in_flight,
        })
    }))
}

/// Why nothing new is begun.
pub(super) const fn stopping() -> Rejection {
    Rejection::later(
        ErrorCode::Unavailable,
        "this server is about to stop",
        1_000,
    )
}

/// An answer's body, which counts until it is written.
struct Counted {
    body: BoxBody,
    _in_flight: InFlight,
}

impl MessageBody for Counted {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}
