//! For machines that watch machines: `/livez`, `/readyz`, `/metrics`, `/version`.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::AppState;
use hubbub_storage::{Outage, Storage};

/// `/readyz`.
#[derive(Debug, Serialize)]
struct ReadyResponse {
    ready: bool,
    /// `ok`, `unavailable`, `read_only`, `disk_full` or `wrong_schema`.
    database: &'static str,
    draining: bool,
}

/// `/version`.
#[derive(Debug, Serialize)]
struct VersionResponse {
    name: &'static str,
    version: &'static str,
    protocol: &'static str,
}

/// The process answers.
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "live": true }))
}

/// The server can do its work: the database takes writes and has the right schema, and the server is not
/// about to stop.
/// Answers within 2 s either way.
pub async fn ready(state: web::Data<AppState>) -> HttpResponse {
    let database = database(&state.storage).await;
    let draining = state.connections.is_draining();
    let ready = database == "ok" && !draining;
    let body = ReadyResponse {
        ready,
        database,
        draining,
    };
    if ready {
        HttpResponse::Ok().json(body)
    } else {
        HttpResponse::ServiceUnavailable().json(body)
    }
}

/// `/readyz` before the database has the program's schema.
pub async fn waiting(storage: web::Data<Storage>) -> HttpResponse {
    let database = match storage.ready().await {
        Ok(_) => "wrong_schema",
        Err(_) => "unavailable",
    };
    HttpResponse::ServiceUnavailable().json(ReadyResponse {
        ready: false,
        database,
        draining: false,
    })
}

async fn database(storage: &Storage) -> &'static str {
    // Known already: whoever asks need not wait for it to be found again.
    if let Some(outage) = storage.outage() {
        return outage.as_str();
    }
    match storage.ready().await {
        Ok(readiness) if readiness.is_ready() => "ok",
        Ok(_) => "wrong_schema",
        Err(_) => Outage::Unreachable.as_str(),
    }
}

/// Prometheus' text format.
pub async fn metrics(state: web::Data<AppState>) -> HttpResponse {
    record_pools(&state);
    match &state.metrics {
        Some(metrics) => HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .body(metrics.render()),
        None => HttpResponse::NotFound().finish(),
    }
}

/// What runs here.
pub async fn version() -> HttpResponse {
    HttpResponse::Ok().json(VersionResponse {
        name: "hubbub",
        version: env!("CARGO_PKG_VERSION"),
        protocol: hubbub_protocol::SUBPROTOCOL,
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floats; pools are small"
)]
fn record_pools(state: &AppState) {
    let status = state.storage.status();
    for (pool, status) in [("app", status.app), ("writer", status.writer)] {
        metrics::gauge!("hubbub_db_connections_in_use", "pool" => pool).set(status.in_use as f64);
        metrics::gauge!("hubbub_db_connections_idle", "pool" => pool).set(status.idle as f64);
        metrics::gauge!("hubbub_db_connections_waiting", "pool" => pool).set(status.waiting as f64);
    }
}
