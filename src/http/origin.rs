//! Which pages may talk to a bot: those of its own exact origins, the server's, and the trusted ones.
//!
//! The server's own origins come from its configuration, never from a request: with `Host` and `Origin` both
//! naming a site whose name was made to point here (DNS rebinding), a page would vouch for itself.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header;
use hubbub_actors::Caller;
use hubbub_protocol::ErrorCode;

use super::AppState;
use super::problem::ApiError;
use hubbub_storage::bots;

/// What a page is told that may not, for whoever builds it.
pub(super) const REFUSED: ApiError = ApiError::new(
    ErrorCode::Forbidden,
    "this page may not use the chat: its origin is not among the bot's allowed_origins, and is not the \
     server's own (see server.public_url)",
);

/// The origins that pages of this server itself have: where the outside reaches it, if that is
/// configured; else where it listens, by the names this machine has for itself.
pub fn own(public: Option<&str>, listens: SocketAddr) -> Vec<String> {
    if let Some(public) = public {
        return vec![public.to_owned()];
    }
    let ip = listens.ip();
    let mut hosts = Vec::new();
    if ip.is_loopback() || ip.is_unspecified() {
        hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
    }
    if !ip.is_unspecified() {
        hosts.push(match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
    }
    hosts.sort_unstable();
    hosts.dedup();
    let with_port = |host: String| match listens.port() {
        // As browsers write it.
        80 => format!("http://{host}"),
        port => format!("http://{host}:{port}"),
    };
    hosts.into_iter().map(with_port).collect()
}

/// The page a request comes from; `None`: from a program, which sends no `Origin`.
///
/// # Errors
/// `forbidden` for more than one, or one that is no text: browsers send neither, and taken for none it
/// would pass for a program's.
pub(super) fn of(request: &HttpRequest) -> Result<Option<&str>, ApiError> {
    let mut all = request.headers().get_all(header::ORIGIN);
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => one.to_str().map(Some).map_err(|_| REFUSED),
        (Some(_), Some(_)) => Err(REFUSED),
    }
}

/// Whether a page's origin is among these, or the server's own, or trusted.
pub(super) fn allows(page: &str, state: &AppState, allowed: &[String]) -> bool {
    is_own(page, state) || allowed.iter().any(|allowed| allowed == page)
}

/// Lets a page pass whose origin is among these, or the server's own, or trusted.
///
/// # Errors
/// `forbidden`.
pub(super) fn check(page: &str, state: &AppState, allowed: &[String]) -> Result<(), ApiError> {
    if allows(page, state, allowed) {
        return Ok(());
    }
    tracing::debug!(origin = page, "a page was refused");
    Err(REFUSED)
}

/// Lets a caller's page pass as the list of their bot says now; of a caller who may talk to every bot of the
/// tenant, as any bot's list says. Programs pass.
///
/// # Errors
/// `forbidden`, or storage could not tell.
pub(super) async fn check_caller(
    page: Option<&str>,
    state: &AppState,
    caller: &Caller,
) -> Result<(), ApiError> {
    let Some(page) = page.filter(|page| !is_own(page, state)) else {
        return Ok(());
    };
    let scope = state.storage.scope(caller.tenant).await?;
    if bots::allows(&scope, caller.bot(), page).await? {
        return Ok(());
    }
    tracing::debug!(origin = page, "a page was refused");
    Err(REFUSED)
}

/// Whether a page is of this server, or trusted like one.
pub(super) fn is_own(page: &str, state: &AppState) -> bool {
    let mut own = state.own_origins.iter().chain(&state.trusted_origins);
    own.any(|own| own == page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_url(listens: &str) -> Vec<String> {
        own(None, listens.parse().unwrap())
    }

    // X7
    #[test]
    fn own_origins_are_configured_or_this_machines_names_for_itself() {
        let local = [
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "http://localhost:8080",
        ];
        assert_eq!(without_url("127.0.0.1:8080"), local);
        assert_eq!(without_url("[::1]:8080"), local);
        assert_eq!(without_url("0.0.0.0:8080"), local);
        assert_eq!(without_url("[::]:8080"), local);
        assert_eq!(without_url("192.0.2.7:8080"), ["http://192.0.2.7:8080"]);
        assert_eq!(without_url("[2001:db8::7]:80"), ["http://[2001:db8::7]"]);
        assert!(without_url("127.0.0.1:80").contains(&"http://localhost".to_owned()));
        let listens = "127.0.0.1:8080".parse().unwrap();
        let public = "https://chat.example.com";
        assert_eq!(own(Some(public), listens), [public]);
    }
}
