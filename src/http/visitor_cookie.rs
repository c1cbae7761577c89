//! The visitor's token as a browser keeps it: in a cookie that no script can read and that is sent to
//! nothing but the route that hands out the bot's tickets. Programs, which send no `Origin`, keep
//! their token themselves.

use actix_web::HttpRequest;
use actix_web::http::header;
use hubbub_protocol::BotId;

use super::{AppState, origin};
use crate::identity::digest;

const NAME: &str = "hubbub_visitor";

/// 400 days: browsers keep none for longer.
const LIFETIME_S: u32 = 34_560_000;

/// The cookie of one bot's visitor, for pages of one origin.
pub(super) struct VisitorCookie {
    name: String,
    bot: BotId,
    /// The path below which browsers see the server.
    base: String,
    is_secure: bool,
}

impl VisitorCookie {
    /// For a page whose origin was checked before.
    pub(super) fn of(page: &str, request: &HttpRequest, state: &AppState, bot: BotId) -> Self {
        // Pages that are allowed to fetch tickets must not become the visitor of the widget's own frame.
        let name = if is_own(page, request, state) {
            NAME.to_owned()
        } else {
            let [a, b, c, d, ..] = digest(page);
            format!("{NAME}_{a:02x}{b:02x}{c:02x}{d:02x}")
        };
        Self {
            name,
            bot,
            base: state.base_path.clone(),
            is_secure: is_secure(page, request, state),
        }
    }

    /// The token that a request brings along.
    pub(super) fn token(&self, request: &HttpRequest) -> Option<String> {
        request
            .headers()
            .get_all(header::COOKIE)
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == self.name)
            .map(|(_, token)| token.to_owned())
    }

    /// What has the browser keep a token.
    pub(super) fn keep(&self, token: &str) -> String {
        let Self {
            name, bot, base, ..
        } = self;
        // In a frame on another site the cookie is a third party's: it is kept for that site alone.
        let reach = if self.is_secure {
            "Secure; SameSite=None; Partitioned"
        } else {
            "SameSite=Lax"
        };
        format!(
            "{name}={token}; Path={base}/v1/widget/{bot}/tickets; Max-Age={LIFETIME_S}; HttpOnly; {reach}"
        )
    }
}

/// Whether the page and this server are of one origin, as the browser says if it does.
fn is_own(page: &str, request: &HttpRequest, state: &AppState) -> bool {
    match request.headers().get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => origin::is_own(page, state),
    }
}

/// Whether the browser keeps a cookie that is for safe connections only: over TLS, and on this machine.
/// A page of a safe origin cannot have sent its request over anything else.
fn is_secure(page: &str, request: &HttpRequest, state: &AppState) -> bool {
    let is_tls = |origin: &str| origin.starts_with("https://");
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    is_tls(page)
        || state.own_origins.iter().any(|own| is_tls(own))
        || matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}
