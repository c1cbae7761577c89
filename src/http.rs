//! The HTTP API, version 1, and the pages. The routes are in one table, [`routes`].
//!
//! Handlers read through a tenant's scope of storage, and change a live session only through its handle.

pub mod assets;
pub mod auth;
pub mod base_path;
pub mod bodies;
pub mod bots;
pub mod connect;
pub mod events;
mod follow;
mod handshake;
mod head;
pub mod health;
mod input;
pub mod messages;
pub mod origin;
pub mod pages;
pub mod path;
pub mod problem;
pub mod requests;
pub mod sessions;
pub mod tickets;
pub mod too_fast;
pub mod usage;
mod visitor_cookie;

use std::sync::Arc;

use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use hubbub_actors::Hub;
use hubbub_protocol::BotId;

use crate::admission::Rates;
use crate::admission::address::Proxies;
use crate::realtime::{ConnectionConfig, Connections};
use crate::telemetry::MetricsHandle;
use hubbub_storage::Storage;
use path::path;
use requests::Requests;
use too_fast::TooFast;

/// What handlers work with. Shared by every worker.
pub struct AppState {
    /// The actors.
    pub hub: Hub,
    /// The database.
    pub storage: Storage,
    /// Open connections.
    pub connections: Connections,
    /// Requests being answered.
    pub requests: Requests,
    /// Visitors' tokens that were used too fast just now.
    pub too_fast: TooFast,
    /// Settings of each connection.
    pub connection: ConnectionConfig,
    /// Rendered at `/metrics`.
    pub metrics: Option<MetricsHandle>,
    /// Who may speak for others.
    pub proxies: Proxies,
    /// What strangers may ask for.
    pub rates: Arc<Rates>,
    /// Origins of this server's own pages.
    pub own_origins: Vec<String>,
    /// The path below which a proxy offers this server; empty, or with a slash at its beginning alone.
    pub base_path: String,
    /// Origins whose pages may use the API beside a bot's own.
    pub trusted_origins: Vec<String>,
    /// The demo page's bot, when it is served.
    pub demo_bot: Option<BotId>,
    /// Names of the configured upstreams; a bot's route may name these.
    pub upstreams: Vec<String>,
}

/// Largest JSON body, in bytes: a message of the longest text in the widest encoding, and its metadata.
const BODY_BYTES: usize = 256 * 1024;

/// The pattern of every route, as metrics name them.
pub const ROUTES: [&str; 24] = [
    "/livez",
    "/readyz",
    "/metrics",
    "/version",
    "/v1/connect",
    "/v1/widget/{bot}/tickets",
    "/v1/tickets",
    "/v1/bots",
    "/v1/bots/{bot}",
    "/v1/sessions",
    "/v1/sessions/{session}",
    "/v1/sessions/{session}/messages",
    "/v1/sessions/{session}/notes",
    "/v1/usage",
    "/",
    "/demo/demo.css",
    "/widget.js",
    "/widget/frame-{hash}.js",
    "/widget/frame-{hash}.css",
    "/widget/setup.js",
    "/widget/{bot}/setup",
    "/widget/{bot}",
    "/v1",
    NO_ROUTE,
];

/// Stands for whatever has no route.
const NO_ROUTE: &str = "none";

/// Every route. Those of `/v1` in the inner scope begin with who is asking: nothing else of a request is
/// looked at before that is known. The two before it prove it in ways of their own.
pub fn routes(state: Arc<AppState>) -> impl FnOnce(&mut ServiceConfig) {
    move |app| {
        // The last of these is the first that a request meets.
        let authenticated = web::scope("")
            .wrap(from_fn(bodies::refuse_encoded))
            .wrap(from_fn(auth::authenticate_first))
            .wrap(from_fn(bodies::limit_time))
            .service(path("/tickets").post(tickets::issue))
            .service(path("/bots").get(bots::list).post(bots::create))
            .service(path("/bots/{bot}").get(bots::show).patch(bots::change))
            .service(path("/sessions").get(sessions::list).post(sessions::open))
            .service(path("/sessions/{session}").get(sessions::show))
            .service(
                path("/sessions/{session}/messages")
                    .get(messages::page)
                    .post(messages::post),
            )
            .service(path("/sessions/{session}/notes").get(sessions::notes))
            .service(path("/usage").get(usage::show))
            .default_service(web::to(problem::no_such_route));
        let widget_tickets = web::resource("/widget/{bot}/tickets")
            .wrap(from_fn(bodies::refuse_encoded))
            .wrap(from_fn(pages::admit))
            .wrap(from_fn(bodies::limit_time))
            .route(web::post().to(tickets::issue_to_widget))
            .default_service(web::to(path::post_only));
        let v1 = web::scope("/v1")
            .service(path("/connect").upgrade(connect::connect))
            .service(widget_tickets)
            .service(authenticated);
        app.app_data(web::Data::from(state))
            .app_data(web::PayloadConfig::new(BODY_BYTES))
            .app_data(web::PathConfig::default().error_handler(input::unreadable_path))
            .service(path("/livez").get(health::live))
            .service(path("/readyz").get(health::ready))
            .service(path("/metrics").get(health::metrics))
            .service(path("/version").get(health::version))
            .service(v1)
            .service(path("/").get(assets::demo))
            .service(path("/demo/demo.css").get(assets::demo_css))
            .service(path("/widget.js").get(assets::loader))
            .service(path("/widget/frame-{hash}.js").get(assets::frame_js))
            .service(path("/widget/frame-{hash}.css").get(assets::frame_css))
            .service(path("/widget/setup.js").get(assets::setup_js))
            .service(path("/widget/{bot}/setup").get(assets::setup))
            .service(path("/widget/{bot}").get(assets::frame))
            .default_service(web::to(problem::no_such_route));
    }
}
