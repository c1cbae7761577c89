//! A posted message's answer as server-sent events: the same frames that a WebSocket gets, from `ack`
//! to the end of the reply.

use std::time::Duration;

use actix_web::HttpResponse;
use bytes::Bytes;
use futures_util::stream;
use hubbub_actors::EncodedFrame;
use tokio::time::timeout;

use super::follow::FollowedReply;

/// A comment this often keeps proxies from closing a stream that waits for its slot.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The response that streams a followed reply. The client that loses it posts the same id again.
pub(super) fn respond(followed: FollowedReply) -> HttpResponse {
    let events = stream::unfold(followed, async |mut followed| {
        let event = match timeout(KEEP_ALIVE, followed.next()).await {
            Ok(frame) => event(&frame?),
            Err(_) => Bytes::from_static(b": waiting\n\n"),
        };
        Some((Ok::<_, actix_web::Error>(event), followed))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("cache-control", "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(events)
}

fn event(frame: &EncodedFrame) -> Bytes {
    // A line break would end the field. Within JSON it is only a blank.
    let json = frame.json().replace(['\n', '\r'], " ");
    Bytes::from(format!("event: {}\ndata: {json}\n\n", frame.frame().kind()))
}
