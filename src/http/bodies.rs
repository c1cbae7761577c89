//! Bodies of requests: for how long they are read, and that none is unpacked.
//!
//! A body that is announced and never sent holds a socket, its buffers and an extractor; whoever sends it may
//! be anybody. Its time starts with the request and grows with what has come.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpMessage as _;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::middleware::Next;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hubbub_protocol::ErrorCode;
use tokio::time::{Instant, Sleep};

use super::problem::ApiError;
use crate::realtime::sockets::Socket;

/// How long any body has,
const PATIENCE: Duration = Duration::from_secs(5);

/// and for each so many bytes of it that have come a second more: a poor mobile network carries twice that.
const BYTES_PER_SECOND: u64 = 1_024;

/// How long after its beginning a body is given up of which so many bytes have come.
fn patience(received: u64) -> Duration {
    PATIENCE + Duration::from_secs(received / BYTES_PER_SECOND)
}

/// How long the rest of a body is waited for that nobody wants any more: closed upon at once, a client that
/// is still sending may never read why it was refused.
const LINGER: Duration = Duration::from_secs(1);

/// How much of such a rest is read.
const REST_BYTES: u64 = 256 * 1024;

const LATE: ApiError = ApiError::new(
    ErrorCode::Timeout,
    "the rest of the request did not come in time",
);

const ENCODED: ApiError = ApiError::new(
    ErrorCode::UnsupportedMedia,
    "bodies are read as they are: send no Content-Encoding",
);

/// Middleware: gives a request's body its time.
///
/// # Errors
/// None of its own: a refusal is a response.
pub async fn limit_time(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let payload = request.take_payload();
    if matches!(payload, Payload::None) {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let socket = request.conn_data::<Socket>().cloned();
    let body = Body::new(payload, socket);
    request.set_payload(Payload::Stream {
        payload: Box::pin(body.clone()),
    });
    let response = next.call(request).await?.map_into_boxed_body();
    let is_late = body.progress() == Progress::Late;
    body.let_rest_come().await;
    if is_late {
        let (request, _) = response.into_parts();
        return Ok(ServiceResponse::from_err(LATE, request));
    }
    Ok(response)
}

/// Middleware: refuses what would have to be unpacked. A few bytes can unpack to any size, and the library
/// counts them only afterwards; no message is long enough for it to matter.
///
/// # Errors
/// None of its own: a refusal is a response.
pub async fn refuse_encoded(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let mut encodings = request.headers().get_all(header::CONTENT_ENCODING);
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        Ok(next.call(request).await?.map_into_boxed_body())
    } else {
        Ok(request.error_response(ENCODED))
    }
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Coming,
    /// Nothing more will come: it is whole, or the client is gone.
    Ended,
    /// Its time is over.
    Late,
}

/// A body on its way. Clones read the same one.
#[derive(Clone)]
struct Body(Rc<RefCell<Incoming>>);

struct Incoming {
    payload: Payload,
    socket: Option<Socket>,
    began: Instant,
    received: u64,
    progress: Progress,
    timer: Pin<Box<Sleep>>,
}

impl Body {
    fn new(payload: Payload, socket: Option<Socket>) -> Self {
        if let Some(socket) = &socket {
            socket.await_body();
        }
        Self(Rc::new(RefCell::new(Incoming {
            payload,
            socket,
            began: Instant::now(),
            received: 0,
            progress: Progress::Coming,
            timer: Box::pin(tokio::time::sleep(patience(0))),
        })))
    }

    fn progress(&self) -> Progress {
        self.0.borrow().progress
    }

    async fn let_rest_come(mut self) {
        let reading = async {
            while self.0.borrow().received <= REST_BYTES {
                if self.next().await.is_none_or(|read| read.is_err()) {
                    return;
                }
            }
        };
        // Whether it came or not, the client is answered now.
        let _whole = tokio::time::timeout(LINGER, reading).await;
        let body = self.0.borrow();
        if body.progress != Progress::Ended
            && let Some(socket) = &body.socket
        {
            socket.give_up();
        }
    }
}

impl Incoming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        if self.progress != Progress::Coming {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.payload).poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.received += bytes.len() as u64;
                let deadline = self.began + patience(self.received);
                self.timer.as_mut().reset(deadline);
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(ended) => {
                self.progress = Progress::Ended;
                if let Some(socket) = &self.socket {
                    socket.hold();
                }
                Poll::Ready(ended)
            }
            Poll::Pending if self.timer.as_mut().poll(cx).is_ready() => {
                self.progress = Progress::Late;
                let late = io::Error::from(io::ErrorKind::TimedOut);
                Poll::Ready(Some(Err(PayloadError::Io(late))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second in which a body is given up that comes at a steady rate; `None`: it has come by then.
    fn given_up(bytes_per_second: u64, size: u64) -> Option<u64> {
        (0..).find_map(|second| {
            let received = second * bytes_per_second;
            let is_whole = received >= size;
            let is_late = patience(received) <= Duration::from_secs(second);
            (is_whole || is_late).then_some((!is_whole).then_some(second))
        })?
    }

    // X9
    #[test]
    fn silence_and_drops_have_little_more_than_five_seconds_and_a_slow_network_what_it_needs() {
        assert_eq!(given_up(0, 10_000), Some(5));
        assert_eq!(given_up(1, 10_000), Some(5));
        assert!(given_up(200, 10_000).is_some_and(|second| second < 8));
        assert!(given_up(900, REST_BYTES).is_some_and(|second| second < 60));
        // The largest body over the poorest network: two minutes.
        assert_eq!(given_up(2_048, REST_BYTES), None);
    }

    fn body(stream: impl Stream<Item = Result<Bytes, PayloadError>> + 'static) -> Body {
        let stream: Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>> = Box::pin(stream);
        Body::new(Payload::Stream { payload: stream }, None)
    }

    #[tokio::test]
    async fn the_rest_of_a_body_that_nobody_wants_is_read_but_not_for_ever() {
        let piece = || Ok(Bytes::from_static(&[b'x'; 1_024]));
        let whole = body(futures_util::stream::iter([piece(), piece()]));
        whole.clone().let_rest_come().await;
        assert_eq!(whole.progress(), Progress::Ended);
        let endless = body(futures_util::stream::repeat_with(piece));
        endless.clone().let_rest_come().await;
        assert_eq!(endless.progress(), Progress::Coming);
        assert!(endless.0.borrow().received <= REST_BYTES + 1_024);
        // Nothing comes: a second.
        body(futures_util::stream::pending()).let_rest_come().await;
    }
}
