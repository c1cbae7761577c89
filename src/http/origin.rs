//! Which pages may talk to a bot: its own exact origins, the server's, and the trusted ones.

use actix_web::HttpRequest;
use actix_web::http::header;
use hubbub_protocol::ErrorCode;

use super::AppState;
use super::problem::ApiError;

/// The `Origin` of a request, if a browser sent one.
pub(super) fn of(request: &HttpRequest) -> Option<&str> {
    request
        .headers()
        .get(header::ORIGIN)
        .and_then(|value| value.to_str().ok())
}

/// Lets a request pass if its page may talk to a bot with these origins. Requests without an `Origin`
/// are no browser's: nothing a list could protect is in them.
///
/// # Errors
/// `forbidden`.
pub(super) fn check(
    request: &HttpRequest,
    state: &AppState,
    allowed: &[String],
) -> Result<(), ApiError> {
    let Some(origin) = of(request) else {
        return Ok(());
    };
    let is_own = state
        .public_origin
        .as_deref()
        .map_or_else(|| is_same_host(origin, request), |own| own == origin);
    let is_listed = |list: &[String]| list.iter().any(|allowed| allowed == origin);
    if is_own || is_listed(allowed) || is_listed(&state.trusted_origins) {
        Ok(())
    } else {
        Err(ApiError::new(
            ErrorCode::Forbidden,
            "this page may not use the chat",
        ))
    }
}

/// Without a configured public address, the server is whatever host the browser asked for.
fn is_same_host(origin: &str, request: &HttpRequest) -> bool {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    let of_origin = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    of_origin.is_some() && of_origin == host
}
