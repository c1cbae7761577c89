//! One run of the embedded model's program.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::ModelConfig;
use crate::telemetry::logs::truncated;

/// The program, beside the server's own.
const PROGRAM: &str = "hubbub-model";

/// Longest time from its start to its first line: it reads and checks its weights.
const START_WAIT: Duration = Duration::from_mins(2);

/// Longest time from being asked to end to its end.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Longest wait for its last output after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Longest line of its output that is read, and the part of it that is logged, in bytes.
const LINE_BYTES: u64 = 8 * 1_024;
const LOGGED_BYTES: usize = 512;

/// How a run ended.
pub(super) enum Ended {
    /// As it was told.
    Stopped,
    /// By itself; the text is for the log.
    Died(String),
}

/// What is run.
#[derive(Debug)]
pub(super) struct Program {
    executable: PathBuf,
    file: PathBuf,
    workers: u32,
}

impl Program {
    /// Looks for the program and its weights. The error says in a sentence what is missing, and where
    /// it was looked for.
    pub(super) fn find(config: &ModelConfig) -> Result<Self, String> {
        let program = match &config.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .map_err(|error| format!("the server's own program is unknown: {error}"))?
                .with_file_name(PROGRAM),
        };
        if !program.is_file() {
            return Err(format!(
                "the embedded model's program is missing: {}",
                program.display()
            ));
        }
        let file = match (&config.file, &config.cache_dir) {
            (Some(file), _) => Some(file.clone()).filter(|file| file.is_file()),
            (None, Some(folder)) => first_model(folder),
            (None, None) => None,
        };
        let place = config.file.as_ref().or(config.cache_dir.as_ref());
        let place = place.map_or(
            "nowhere: neither HOME nor model.file is set".to_owned(),
            |path| path.display().to_string(),
        );
        let file = file.ok_or_else(|| {
            format!("the embedded model's weights (.gguf) are missing: looked for in {place}")
        })?;
        Ok(Self {
            executable: program,
            file,
            workers: config.workers,
        })
    }

    /// Runs it until it dies or `stop`. The process is gone when this returns.
    pub(super) async fn run(
        &self,
        socket: &Path,
        ready: &watch::Sender<bool>,
        stop: &CancellationToken,
    ) -> Ended {
        if let Some(folder) = socket.parent()
            && let Err(error) = tokio::fs::create_dir_all(folder).await
        {
            return Ended::Died(format!("its socket's folder cannot be made: {error}"));
        }
        super::remove(socket).await;
        let mut child = match self.spawn(socket) {
            Ok(child) => child,
            Err(error) => return Ended::Died(format!("it cannot be started: {error}")),
        };
        metrics::counter!("hubbub_model_starts_total").increment(1);
        // Taken, so that `wait` does not close it: its end tells the program to end.
        let stdin = child.stdin.take();
        let output = child.stdout.take();
        let errors = child.stderr.take();
        let watched = async {
            tokio::join!(read_output(output, ready), read_errors(errors));
        };
        // It may end before the program does, and is asked again after that.
        let mut watched = std::pin::pin!(futures_util::future::maybe_done(watched));
        let started = async {
            let mut ready = ready.subscribe();
            let wait = tokio::time::timeout(START_WAIT, ready.wait_for(|ready| *ready));
            let in_time = wait.await.is_ok();
            if in_time {
                std::future::pending::<()>().await;
            }
        };
        let how = tokio::select! {
            status = child.wait() => {
                // Its last words are in the pipes; who else holds them open is not waited for.
                drop(tokio::time::timeout(LAST_WORDS, &mut watched).await);
                return Ended::Died(describe(status));
            }
            () = async { (&mut watched).await; std::future::pending().await } => None,
            () = started => Some(format!("it was not ready within {START_WAIT:?}")),
            () = stop.cancelled() => None,
        };
        drop(stdin);
        end(&mut child).await;
        how.map_or(Ended::Stopped, Ended::Died)
    }

    fn spawn(&self, socket: &Path) -> std::io::Result<Child> {
        Command::new(&self.executable)
            .arg("serve")
            .arg("--model")
            .arg(&self.file)
            .arg("--socket")
            .arg(socket)
            .arg("--workers")
            .arg(self.workers.to_string())
            .arg("--exit-with-parent")
            // Ours holds keys and passwords, and it needs none of it.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// The first file with weights, by name.
fn first_model(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|kind| kind == "gguf"))
        .min()
}

/// Waits for a program that was asked to end, then kills it.
async fn end(child: &mut Child) {
    if tokio::time::timeout(STOP_WAIT, child.wait()).await.is_err() {
        tracing::warn!("the embedded model did not end in time and is killed");
        if let Err(error) = child.kill().await {
            tracing::error!(%error, "the embedded model cannot be killed");
        }
    }
}

async fn read_output(output: Option<impl AsyncRead + Unpin>, ready: &watch::Sender<bool>) {
    read_lines(output, |line| {
        if line.split_whitespace().next() == Some("ready") {
            tracing::info!("the embedded model is ready");
            ready.send_replace(true);
        }
    })
    .await;
}

async fn read_errors(errors: Option<impl AsyncRead + Unpin>) {
    read_lines(errors, |line| {
        tracing::info!(said = truncated(line, LOGGED_BYTES), "the embedded model");
    })
    .await;
}

/// Hands out each line; one that is too long comes in parts. Ends with the pipe.
async fn read_lines(pipe: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&str)) {
    let Some(pipe) = pipe else { return };
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader)
            .take(LINE_BYTES)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) | Err(_) => return,
            Ok(_) => take(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("it cannot be waited for: {error}"),
    }
}
