//! The embedded model: a program of its own, so that a crash of it is only a failed reply.
//!
//! Started by `main`, watched until [`LocalModel::stop`]. It dies with the server, however that dies:
//! it watches its standard input, which the server holds open. When the program or its weights are
//! missing the server runs without: replies fail as unreachable, and the server keeps looking for both.

mod program;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{
    BaseUrl, EMBEDDED_UPSTREAM, ModelConfig, UpstreamConfig, UpstreamDialect, UpstreamTimeouts,
};

use program::{Ended, Program};

/// The name the embedded model goes by.
const MODEL: &str = "smollm2-135m-instruct";

/// Reading a prompt takes about 4 ms a token: more than this would keep people waiting for longer
/// than they do.
const CONTEXT_TOKENS: u32 = 2_048;

/// Pauses between starts: doubled each time, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// A program that ran so long was healthy: the next pause is the first again.
const HEALTHY: Duration = Duration::from_mins(1);

/// Longest path of a socket, in bytes: the kernel's 108 with its terminator, and some air.
const SOCKET_PATH_BYTES: usize = 100;

/// The embedded model's process and its watch.
#[derive(Debug)]
pub struct LocalModel {
    socket: PathBuf,
    slots: u32,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    watch: JoinHandle<()>,
}

impl LocalModel {
    /// Starts it in the background, on a socket in `data_dir`. Must be called within a runtime that
    /// lives until [`stop`](Self::stop).
    pub fn start(config: ModelConfig, data_dir: &Path) -> Self {
        let socket = socket_path(data_dir);
        let (slots, stop) = (config.workers, CancellationToken::new());
        let (ready_tx, ready) = watch::channel(false);
        let watch = tokio::spawn(keep_running(config, socket.clone(), ready_tx, stop.clone()));
        Self {
            socket,
            slots,
            ready,
            stop,
            watch,
        }
    }

    /// Where it will answer, ready or not.
    pub fn base_url(&self) -> BaseUrl {
        BaseUrl::Unix(self.socket.clone())
    }

    /// Whether it answers; changes with every crash and restart.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// What an [`RemoteUpstream`](super::RemoteUpstream) for it is made from.
    pub fn upstream_config(&self) -> UpstreamConfig {
        UpstreamConfig {
            name: EMBEDDED_UPSTREAM.to_owned(),
            base_url: self.base_url(),
            model: MODEL.to_owned(),
            api_key: None,
            group: None,
            slots: self.slots..=self.slots,
            context_tokens: CONTEXT_TOKENS,
            timeouts: UpstreamTimeouts {
                connect: Duration::from_secs(2),
                first_token: Duration::from_mins(1),
                token: Duration::from_secs(20),
                ..UpstreamTimeouts::default()
            },
            dialect: UpstreamDialect::default(),
        }
    }

    /// Ends it: asks first, kills after a few seconds. Returns when the process is gone.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.watch.await {
            tracing::error!(%error, "the embedded model's watch failed");
        }
    }
}

/// In the data folder; where its path is too long for a socket, in the system's temporary folder.
fn socket_path(data_dir: &Path) -> PathBuf {
    let folder = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let path = folder.join("model.sock");
    if path.as_os_str().len() <= SOCKET_PATH_BYTES {
        return path;
    }
    std::env::temp_dir().join(format!(
        "hubbub-model-{}.sock",
        uuid::Uuid::now_v7().simple()
    ))
}

/// Starts the program again whenever it ends, until told to stop.
async fn keep_running(
    config: ModelConfig,
    socket: PathBuf,
    ready: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    let mut missing = None;
    while !stop.is_cancelled() {
        match Program::find(&config) {
            Ok(program) => {
                missing = None;
                let begin = Instant::now();
                let ended = program.run(&socket, &ready, &stop).await;
                ready.send_replace(false);
                if begin.elapsed() >= HEALTHY {
                    pause = FIRST_PAUSE;
                }
                match ended {
                    Ended::Stopped => break,
                    Ended::Died(how) => {
                        tracing::error!(
                            how,
                            pause_ms = pause.as_millis(),
                            "the embedded model died"
                        );
                    }
                }
            }
            Err(what) => {
                // Said once, not every 30 seconds.
                if missing.as_ref() != Some(&what) {
                    tracing::error!("{what}; replies by the embedded model will fail");
                }
                missing = Some(what);
                pause = LAST_PAUSE;
            }
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            break;
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
    remove(&socket).await;
}

async fn remove(socket: &Path) {
    if let Err(error) = tokio::fs::remove_file(socket).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the embedded model's socket cannot be removed");
    }
}
