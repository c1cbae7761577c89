//! What a WebSocket handshake is, to the letter of RFC 6455: the library takes older versions, any key, and
//! the first of two.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderName};
use actix_web::http::{Method, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hubbub_protocol::ErrorCode;

use super::problem::{ApiError, WEBSOCKET_VERSION};

/// Length of the key that a client makes up.
const KEY_BYTES: usize = 16;

/// Whether a request is a handshake.
///
/// # Errors
/// `invalid`, with what is wrong, or `upgrade_required` for another version.
pub(super) fn check(request: &HttpRequest) -> Result<(), ApiError> {
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(ApiError::invalid(
            "a WebSocket handshake is a GET request of HTTP/1.1",
        ));
    }
    if !has_token(request, &header::CONNECTION, "upgrade")
        || !has_token(request, &header::UPGRADE, "websocket")
    {
        return Err(ApiError::invalid(
            "this is not a WebSocket handshake: it needs Connection: Upgrade and Upgrade: websocket",
        ));
    }
    let version = only(request, &header::SEC_WEBSOCKET_VERSION).ok_or(ApiError::invalid(
        "a WebSocket handshake has one Sec-WebSocket-Version",
    ))?;
    if version != WEBSOCKET_VERSION.as_bytes() {
        return Err(ApiError::new(
            ErrorCode::UpgradeRequired,
            "this server speaks version 13 of the WebSocket protocol",
        ));
    }
    let key = only(request, &header::SEC_WEBSOCKET_KEY).and_then(|key| STANDARD.decode(key).ok());
    if key.is_none_or(|key| key.len() != KEY_BYTES) {
        return Err(ApiError::invalid(
            "a WebSocket handshake has one Sec-WebSocket-Key: 16 bytes in base64",
        ));
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    if length.is_some_and(|length| length != "0")
        || request.headers().contains_key(header::TRANSFER_ENCODING)
    {
        return Err(ApiError::invalid("a WebSocket handshake has no body"));
    }
    Ok(())
}

/// The value of a header that is there once.
fn only<'a>(request: &'a HttpRequest, name: &HeaderName) -> Option<&'a [u8]> {
    let mut all = request.headers().get_all(name);
    let one = all.next()?;
    all.next().is_none().then(|| one.as_bytes())
}

fn has_token(request: &HttpRequest, name: &HeaderName, token: &str) -> bool {
    let fields = request.headers().get_all(name);
    let mut tokens = fields.flat_map(|field| field.to_str().unwrap_or_default().split(','));
    tokens.any(|named| named.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    /// The good handshake with one header given other values, or more than one, or none.
    fn with(name: &str, values: &[&str]) -> Result<(), ApiError> {
        let mut request = TestRequest::get();
        for (header, value) in GOOD.into_iter().filter(|(header, _)| *header != name) {
            request = request.append_header((header, value));
        }
        for value in values {
            request = request.append_header((name, *value));
        }
        check(&request.to_http_request())
    }

    fn status(checked: Result<(), ApiError>) -> u16 {
        use actix_web::ResponseError as _;
        checked.map_or_else(|refused| refused.status_code().as_u16(), |()| 101)
    }

    // X12
    #[test]
    fn a_handshake_is_taken_to_the_letter() {
        for (name, values, expected) in [
            ("x-nothing", &[][..], 101),
            ("connection", &["keep-alive, UPGRADE"], 101),
            ("connection", &["keep-alive", "Upgrade"], 101),
            ("upgrade", &["WebSocket"], 101),
            ("content-length", &["0"], 101),
            ("connection", &["close"], 400),
            ("connection", &["upgraded"], 400),
            ("connection", &[], 400),
            ("upgrade", &["h2c"], 400),
            ("upgrade", &["notwebsocket"], 400),
            ("upgrade", &[], 400),
            ("sec-websocket-version", &["8"], 426),
            ("sec-websocket-version", &["7"], 426),
            ("sec-websocket-version", &["14"], 426),
            ("sec-websocket-version", &["13, 8"], 426),
            ("sec-websocket-version", &["013"], 426),
            ("sec-websocket-version", &[""], 426),
            ("sec-websocket-version", &["13", "8"], 400),
            ("sec-websocket-version", &["13", "13"], 400),
            ("sec-websocket-version", &[], 400),
            ("sec-websocket-key", &[], 400),
            ("sec-websocket-key", &[""], 400),
            ("sec-websocket-key", &["c2hvcnQ="], 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ"], 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZSE="], 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ==="], 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZR=="], 400),
            ("sec-websocket-key", &["not base64 of 16 bytes!!"], 400),
            (
                "sec-websocket-key",
                &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="],
                400,
            ),
            ("content-length", &["5"], 400),
            ("transfer-encoding", &["chunked"], 400),
        ] {
            assert_eq!(status(with(name, values)), expected, "{name}: {values:?}");
        }
        let old = TestRequest::get()
            .version(Version::HTTP_10)
            .to_http_request();
        assert_eq!(status(check(&old)), 400);
    }
}
