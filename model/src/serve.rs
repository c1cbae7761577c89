//! The running program: loads the model, listens, says `ready`, and ends on SIGTERM, SIGINT or
//! with its parent. Nothing is drained: an answer cut short is a failed reply of the server, which
//! knows how to tell its visitor.

use crate::cli::ServeArgs;
use crate::engine::Engine;
use crate::http::{HttpState, routes};
use crate::smollm::SmolLm;
use crate::workers::Workers;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use anyhow::{Context as _, bail, ensure};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Open connections at most. The server keeps a few pooled ones; the rest is room for curl.
const MAX_CONNECTIONS: usize = 256;

/// Workers when the command line does not say: more than four small chats at once are better
/// queued than slowed.
const MAX_DEFAULT_WORKERS: usize = 4;

/// Runs until told to end.
///
/// # Errors
/// When the model does not load or an address cannot be listened on.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    if args.candle_threads.is_none() || args.rayon_threads.is_none() {
        return run_again_with_single_threaded_products(args);
    }
    // Listening comes first, so that a taken address is told at once and not after the loading.
    let listeners = Listeners::bind(args)?;
    if args.exit_with_parent {
        exit_when_standard_input_closes(args.socket.clone())?;
    }
    let engine: Arc<dyn Engine> = Arc::new(SmolLm::load(&args.model)?);
    let count = args.workers.map_or_else(default_workers, usize::from);
    let workers = Workers::start(&engine, count, usize::from(args.queue))
        .context("cannot start the worker threads")?;
    tracing::info!(workers = count, ?engine, "the model is loaded");
    let queue_timeout = Duration::from_secs(args.queue_timeout_secs);
    let state = Data::new(HttpState {
        engine,
        workers,
        queue_timeout,
    });
    let outcome = actix_web::rt::System::new().block_on(listeners.serve(state));
    if let Some(socket) = &args.socket {
        // Another start replaces a stale socket anyway.
        drop(std::fs::remove_file(socket));
    }
    outcome
}

/// Starts this program again, in this very process, with the environment from which the numeric
/// library takes its number of threads. Its pool is one for the whole process and spins while it
/// waits, so with several chats at once the only good number is 1; and a running program cannot
/// change its own environment safely.
fn run_again_with_single_threaded_products(args: &ServeArgs) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = std::process::Command::new(program);
    command.args(std::env::args_os().skip(1));
    if args.candle_threads.is_none() {
        command.env("CANDLE_NUM_THREADS", "1");
    }
    if args.rayon_threads.is_none() {
        command.env("RAYON_NUM_THREADS", "1");
    }
    // It returns only when it failed.
    Err(command.exec()).context("cannot start this program again")
}

fn default_workers() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_DEFAULT_WORKERS)
}

/// The addresses of one run, bound.
struct Listeners {
    unix: Option<(UnixListener, PathBuf)>,
    tcp: Option<TcpListener>,
}

impl Listeners {
    fn bind(args: &ServeArgs) -> anyhow::Result<Self> {
        let unix = match &args.socket {
            Some(path) => Some((bind_unix(path)?, path.clone())),
            None => None,
        };
        let tcp = match args.listen {
            Some(address) => {
                // There are no keys here: whoever reaches the port may use it.
                ensure!(
                    address.ip().is_loopback(),
                    "{address} is not a loopback address"
                );
                let bound = TcpListener::bind(address);
                Some(bound.with_context(|| format!("cannot listen on {address}"))?)
            }
            None => None,
        };
        Ok(Self { unix, tcp })
    }

    /// Accepts until a signal comes.
    async fn serve(self, state: Data<HttpState>) -> anyhow::Result<()> {
        let mut addresses = Vec::new();
        let mut server =
            HttpServer::new(move || App::new().app_data(state.clone()).configure(routes))
                // Handlers only wait; the computing threads are elsewhere.
                .workers(1)
                .max_connections(MAX_CONNECTIONS)
                .shutdown_timeout(0)
                .disable_signals();
        if let Some((listener, path)) = self.unix {
            addresses.push(format!("unix:{}", path.display()));
            server = server.listen_uds(listener)?;
        }
        if let Some(listener) = self.tcp {
            addresses.push(format!("http://{}", listener.local_addr()?));
            server = server.listen(listener)?;
        }
        let server = server.run();
        let handle = server.handle();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // The sockets listen since `bind`, so a client that connects now is only early.
        writeln!(std::io::stdout(), "ready {}", addresses.join(" "))?;
        tokio::select! {
            ended = server => return ended.context("the listener failed"),
            _ = terminate.recv() => tracing::info!("terminated"),
            _ = interrupt.recv() => tracing::info!("interrupted"),
        }
        handle.stop(false).await;
        Ok(())
    }
}

/// Listens on a socket file only this user may open; replaces one nobody listens on.
fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        bail!("{} is in use by another process", path.display());
    }
    if path.exists() {
        std::fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))?;
    Ok(listener)
}

/// Ends the process at once when the other end of standard input is gone, also while the model
/// loads and whatever else hangs. The system closes it however the parent ends.
fn exit_when_standard_input_closes(socket: Option<PathBuf>) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name("parent-watch".to_owned())
        .spawn(move || {
            // An unreadable input counts as closed.
            drop(std::io::copy(
                &mut std::io::stdin().lock(),
                &mut std::io::sink(),
            ));
            // Not a word before the end: nobody reads it any more, and a failed write would panic here.
            if let Some(socket) = socket {
                drop(std::fs::remove_file(socket));
            }
            std::process::exit(0);
        })
        .context("cannot watch the parent")?;
    Ok(())
}
