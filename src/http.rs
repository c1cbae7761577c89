//! The HTTP API, version 1, and the pages. The routes are in one table, [`routes`].
//!
//! Handlers read through a tenant's scope of storage, and change a live session only through its handle.

pub mod assets;
pub mod auth;
pub mod bodies;
pub mod bots;
pub mod connect;
pub mod events;
mod handshake;
pub mod health;
pub mod messages;
pub mod origin;
pub mod pages;
pub mod problem;
pub mod requests;
pub mod sessions;
pub mod tickets;
pub mod too_fast;
mod visitor_cookie;

use std::sync::Arc;

use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig, get, patch, post};
use hubbub_actors::Hub;
use hubbub_protocol::BotId;

use crate::admission::Rates;
use crate::admission::address::Proxies;
use crate::realtime::{ConnectionConfig, Connections};
use crate::storage::Storage;
use crate::telemetry::MetricsHandle;
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
    /// Origins whose pages may use the API beside a bot's own.
    pub trusted_origins: Vec<String>,
    /// The demo page's bot, when it is served.
    pub demo_bot: Option<BotId>,
    /// Names of the configured upstreams; a bot's route may name these.
    pub upstreams: Vec<String>,
}

/// Largest JSON body, in bytes: a message of the longest text in the widest encoding, and its metadata.
const BODY_BYTES: usize = 256 * 1024;

/// Every route. Those of `/v1` in the inner scope begin with who is asking: nothing else of a request is
/// looked at before that is known. The two before it prove it in ways of their own.
pub fn routes(state: Arc<AppState>) -> impl FnOnce(&mut ServiceConfig) {
    move |app| {
        // The last of these is the first that a request meets.
        let authenticated = web::scope("")
            .wrap(from_fn(bodies::refuse_encoded))
            .wrap(from_fn(auth::authenticate_first))
            .wrap(from_fn(bodies::limit_time))
            .route("/tickets", post().to(tickets::issue))
            .route("/bots", post().to(bots::create))
            .route("/bots", get().to(bots::list))
            .route("/bots/{bot}", get().to(bots::show))
            .route("/bots/{bot}", patch().to(bots::change))
            .route("/sessions", post().to(sessions::open))
            .route("/sessions", get().to(sessions::list))
            .route("/sessions/{session}", get().to(sessions::show))
            .route("/sessions/{session}/messages", get().to(messages::page))
            .route("/sessions/{session}/messages", post().to(messages::post))
            .default_service(web::to(problem::no_such_route));
        let widget_tickets = web::resource("/widget/{bot}/tickets")
            .wrap(from_fn(bodies::refuse_encoded))
            .wrap(from_fn(pages::admit))
            .wrap(from_fn(bodies::limit_time))
            .route(post().to(tickets::issue_to_widget))
            .default_service(web::to(problem::no_such_route));
        let v1 = web::scope("/v1")
            .route("/connect", get().to(connect::connect))
            .service(widget_tickets)
            .service(authenticated);
        app.app_data(web::Data::from(state))
            .app_data(web::JsonConfig::default().limit(BODY_BYTES))
            .route("/livez", get().to(health::live))
            .route("/readyz", get().to(health::ready))
            .route("/metrics", get().to(health::metrics))
            .route("/version", get().to(health::version))
            .service(v1)
            .route("/", get().to(assets::demo))
            .route("/demo/demo.css", get().to(assets::demo_css))
            .route("/widget.js", get().to(assets::loader))
            .route("/widget/frame-{hash}.js", get().to(assets::frame_js))
            .route("/widget/frame-{hash}.css", get().to(assets::frame_css))
            .route("/widget/setup.js", get().to(assets::setup_js))
            .route("/widget/{bot}/setup", get().to(assets::setup))
            .route("/widget/{bot}", get().to(assets::frame))
            .default_service(web::to(problem::no_such_route));
    }
}
