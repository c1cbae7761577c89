//! What a connection whose actor panicked still says: a close frame 1011, so that its client knows whose
//! fault it was and comes back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use hubbub_protocol::CloseCode;

/// The first byte of a close frame that is whole.
const CLOSE_FRAME: u8 = 0x88;

/// The frames of a connection, and the last one if its actor panics. The socket belongs to the server's
/// task, which would otherwise drop it without a word.
pub(super) struct LastWords<S>(Option<Pin<Box<S>>>);

impl<S> LastWords<S> {
    pub(super) fn new(frames: S) -> Self {
        Self(Some(Box::pin(frames)))
    }
}

impl<S, E> Stream for LastWords<S>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(frames) = &mut self.0 else {
            return Poll::Ready(None);
        };
        // Nothing reads the actor again: it is only dropped.
        if let Ok(polled) = catch_unwind(AssertUnwindSafe(|| frames.as_mut().poll_next(cx))) {
            return polled;
        }
        metrics::counter!("hubbub_actor_panics_total", "actor" => "connection").increment(1);
        tracing::error!("a connection's actor died");
        let dead = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(dead))).is_err() {
            tracing::error!("a connection's actor died once more as it was taken apart");
        }
        Poll::Ready(Some(Ok(close_frame(CloseCode::Internal))))
    }
}

/// A server's frames are not masked, and a reason is far shorter than the 125 bytes that fit.
fn close_frame(code: CloseCode) -> Bytes {
    let reason = code.reason().as_bytes();
    let mut frame = BytesMut::with_capacity(4 + reason.len());
    frame.put_u8(CLOSE_FRAME);
    frame.put_u8(u8::try_from(2 + reason.len()).unwrap_or(125));
    frame.put_u16(code.number());
    frame.put_slice(reason);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use actix::prelude::*;
    use actix_web_actors::ws::{self, ProtocolError};
    use futures_util::StreamExt as _;
    use futures_util::stream;

    use super::*;

    /// Says hello, and panics at the first frame it is sent; a second time as it ends, if it is told to.
    struct Fragile {
        ends_badly: bool,
    }

    impl Actor for Fragile {
        type Context = ws::WebsocketContext<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.text("hello");
        }

        fn stopped(&mut self, _: &mut Self::Context) {
            assert!(!self.ends_badly, "on purpose, once more");
        }
    }

    impl StreamHandler<Result<ws::Message, ProtocolError>> for Fragile {
        fn handle(&mut self, _: Result<ws::Message, ProtocolError>, _: &mut Self::Context) {
            panic!("on purpose");
        }
    }

    fn said(ends_badly: bool) -> Vec<u8> {
        actix_rt::System::new().block_on(async move {
            // An empty text frame, masked with zeros.
            let frame = Bytes::from_static(&[0x81, 0x80, 0, 0, 0, 0]);
            // Later than the first frame out: what was not on its way yet is lost with the actor.
            let sent = stream::once(async {
                tokio::task::yield_now().await;
                Ok(frame)
            });
            let sent = Box::pin(sent).chain(stream::pending());
            let codec = actix_http::ws::Codec::new();
            let fragile = Fragile { ends_badly };
            let frames = ws::WebsocketContext::with_codec(fragile, sent, codec);
            let said: Vec<_> = LastWords::new(frames).collect().await;
            said.into_iter()
                .flat_map(|part| part.unwrap().to_vec())
                .collect()
        })
    }

    #[test]
    fn a_connection_that_panics_says_1011_and_ends() {
        for ends_badly in [false, true] {
            let mut expected = b"\x81\x05hello\x88\x10".to_vec();
            expected.extend(1011_u16.to_be_bytes());
            expected.extend(b"internal error");
            assert_eq!(said(ends_badly), expected);
        }
    }
}
