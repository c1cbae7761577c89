//! Behind a proxy that offers the server below a path, such as `/chat/`: requests are understood with that
//! path and without it, so that the proxy may take it off or leave it on.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Uri;
use actix_web::http::uri::PathAndQuery;
use actix_web::middleware::Next;
use actix_web::web;

use super::AppState;

/// Middleware: takes the configured path off, before the route is matched.
///
/// # Errors
/// None of its own.
pub async fn take_off<B: MessageBody>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let state = request.app_data::<web::Data<AppState>>();
    let base = state.map_or("", |state| &state.base_path);
    if let Some(uri) = without(base, request.uri()) {
        request.match_info_mut().get_mut().update(&uri);
        request.head_mut().uri = uri;
    }
    next.call(request).await
}

/// The URI without the base path; `None` if it does not begin with it.
fn without(base: &str, uri: &Uri) -> Option<Uri> {
    if base.is_empty() {
        return None;
    }
    let rest = uri.path().strip_prefix(base)?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let path = if rest.is_empty() { "/" } else { rest };
    let query = uri.query().map(|query| format!("?{query}"));
    let shortened = format!("{path}{}", query.unwrap_or_default());
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(shortened).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortened(uri: &str) -> Option<String> {
        let uri = uri.parse().unwrap();
        without("/chat", &uri).map(|uri| uri.to_string())
    }

    // H10
    #[test]
    fn the_path_is_taken_off_whole_or_not_at_all() {
        assert_eq!(
            shortened("/chat/v1/bots?a=1").as_deref(),
            Some("/v1/bots?a=1")
        );
        assert_eq!(shortened("/chat/").as_deref(), Some("/"));
        assert_eq!(shortened("/chat").as_deref(), Some("/"));
        assert_eq!(shortened("/chat/chat/").as_deref(), Some("/chat/"));
        for other in ["/", "/chatter", "/v1/chat", "/Chat/"] {
            assert_eq!(shortened(other), None, "{other}");
        }
        assert_eq!(without("", &"/v1".parse().unwrap()), None);
    }
}
