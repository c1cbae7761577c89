//! The answer to HEAD.

use std::convert::Infallible;

use actix_web::body::{BodySize, BodyStream, BoxBody, MessageBody as _};
use actix_web::dev::ServiceResponse;
use actix_web::http::header;

/// The answer to HEAD, of what GET would be answered. The length is told, and nothing of the body left: the
/// connection would send it where another request came close behind.
pub(super) fn without_body(mut response: ServiceResponse) -> ServiceResponse {
    if let BodySize::Sized(length) = response.response().body().size() {
        let head = response.response_mut().head_mut();
        head.headers
            .insert(header::CONTENT_LENGTH, header::HeaderValue::from(length));
        // Keeps the length as it stands there.
        head.no_chunking(true);
    }
    response.map_body(|_, _| {
        let nothing = futures_util::stream::empty::<Result<bytes::Bytes, Infallible>>();
        BoxBody::new(BodyStream::new(nothing))
    })
}
