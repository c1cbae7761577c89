//! The time before the database has the program's schema, when somebody else migrates it.
//!
//! The port is open and says so: a balancer and a person see what is missing. Nothing else is started,
//! since nothing else could work. Ends when the schema is there, or when the server is told to stop.

use std::net::TcpListener;
use std::time::Duration;

use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use anyhow::Context as _;

use super::signals::Signals;
use crate::http::path::path;
use crate::http::{health, problem};
use hubbub_storage::{Readiness, Storage};

/// How often to check the schema.
const POLL: Duration = Duration::from_secs(1);

/// Connections at most: only probes have any use for one.
const MAX_CONNECTIONS: usize = 256;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// The schema was there.
    NotAtAll,
    /// The schema has come.
    Ready,
    /// The server is to stop.
    Stopped,
}

/// Waits until the database has the program's schema. If it has to, it `announce`s the server first, and
/// answers on the listener's port meanwhile.
pub(super) async fn for_schema(
    storage: &Storage,
    listener: &TcpListener,
    announce: impl FnOnce(),
    signals: &mut Signals,
) -> anyhow::Result<Waited> {
    let found = storage.ready().await;
    let found = found.context("the database cannot be used")?;
    if found.is_ready() {
        return Ok(Waited::NotAtAll);
    }
    tell(found);
    let shared = web::Data::new(storage.clone());
    let server = HttpServer::new(move || {
        App::new()
            .wrap(from_fn(problem::problems))
            .app_data(shared.clone())
            .service(path("/livez").get(health::live))
            .service(path("/readyz").get(health::waiting))
            .service(path("/version").get(health::version))
            .default_service(web::to(problem::no_schema))
    })
    .workers(1)
    .max_connections(MAX_CONNECTIONS)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(listener.try_clone()?)?
    .run();
    let handle = server.handle();
    let server = actix_rt::spawn(server);
    announce();
    let waited = tokio::select! {
        () = schema(storage) => Waited::Ready,
        () = signals.told() => Waited::Stopped,
    };
    handle.stop(true).await;
    server.await.context("the server's task failed")??;
    if waited == Waited::Ready {
        tracing::info!("the database has its schema; starting");
    }
    Ok(waited)
}

async fn schema(storage: &Storage) {
    loop {
        tokio::time::sleep(POLL).await;
        // A database that is away meanwhile is waited for, too.
        if storage.ready().await.is_ok_and(|found| found.is_ready()) {
            return;
        }
    }
}

/// Once, with what to do.
fn tell(found: Readiness) {
    let (schema, expected) = (found.schema_version, found.expected_version);
    if schema > expected {
        tracing::error!(
            schema,
            expected,
            "the database's schema is newer than this version of hubbub: start the newer version"
        );
    } else {
        tracing::error!(
            schema,
            expected,
            "the database's schema is missing or old: run hubbub migrate up"
        );
    }
}
