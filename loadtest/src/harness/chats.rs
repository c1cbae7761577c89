//! `chats`: many people talk to the bot at once, and every word of every answer is checked.

mod options;
mod question;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use hubbub_protocol::SessionId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::api::{self, Api};
use super::process::{self, Usage};
use super::report::{Report, Violations};
use super::stats::{Latencies, median, number, ratio};
use super::target::{Progress, Target, say};
use super::transcript::{Held, Transcript};
use super::wire::{self, Wire};
pub use options::Chats;
use question::ask;

/// Silence listened to after the last answer, for what must not come.
const AFTERMATH: Duration = Duration::from_millis(300);
/// How often the terminal is told how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How often a new session is asked for again after a refusal, and after which pause.
const JOIN_TRIES: u32 = 10;
const JOIN_PAUSE: Duration = Duration::from_secs(1);
/// Sessions read back at once.
const READ_BACK_AT_ONCE: usize = 16;

#[derive(Default)]
struct Found {
    ack: Latencies,
    first_delta: Latencies,
    added: Latencies,
    gap: Latencies,
    total: Latencies,
    asked: u64,
    answered: u64,
    /// Of those, before no more was asked.
    in_time: u64,
    /// When the last answer began that did so late, from the start.
    late_until: Duration,
    tails: u64,
    frames: u64,
    text_units: u64,
    errors: BTreeMap<String, u64>,
    /// Of those, replies that failed before their first text.
    unshown: u64,
    /// Refusals that said when to try again.
    told: u64,
    /// The first wait told, against the real one: how far it was off, as a part of the latter.
    wait_errors: Vec<f64>,
    violations: Violations,
    sessions: Vec<(SessionId, Vec<Held>)>,
}

#[derive(Clone)]
struct Run {
    target: Target,
    options: Chats,
    upstream_ttft: Duration,
    /// Tokens of every answer, where the simulated upstream told them.
    tokens: Option<u32>,
    found: Arc<Mutex<Found>>,
    stop: CancellationToken,
    began: Instant,
    ends_at: Instant,
}

impl Run {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the scenario.
///
/// # Errors
/// When it cannot begin. What goes wrong later is in the report.
pub async fn run(
    target: &Target,
    options: &Chats,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let behaviour = match &options.simllm {
        Some(base) => Some(api::control(base).await?.behaviour),
        None => None,
    };
    let upstream_ms = behaviour
        .as_ref()
        .map_or(options.upstream_ttft_ms, |b| b.ttft_ms);
    let begin = Instant::now();
    let run = Run {
        target: target.clone(),
        options: options.clone(),
        upstream_ttft: Duration::from_millis(upstream_ms),
        tokens: behaviour.map(|behaviour| behaviour.tokens),
        found: Arc::default(),
        stop: stop.clone(),
        began: begin,
        ends_at: begin + Duration::from_secs(options.duration),
    };
    let usage_before = target.server_pid.map(process::sample);
    let own_before = process::sample_self();
    let ((), peak) = process::peak_rss_while(target.server_pid, drive(&run)).await;
    let seconds = begin.elapsed().as_secs_f64();
    let usage_after = target.server_pid.map(process::sample);
    let own_after = process::sample_self();
    if !target.bare && !options.no_read_back {
        read_back(&run).await?;
    }
    let mut report = Report::new(format!("chats -c {}", options.concurrency), target.name());
    fill(&mut report, &run, seconds);
    let tokens = report.value("tokens").unwrap_or_default();
    if let (Some(before), Some(after)) = (usage_before, usage_after) {
        push_usage(&mut report, "server", before, after, tokens, seconds);
        report.push("server memory peak", peak / 1_048_576.0, "MiB");
    }
    push_usage(
        &mut report,
        "harness",
        own_before,
        own_after,
        tokens,
        seconds,
    );
    Ok(report)
}

/// Runs all chats to their end.
async fn drive(run: &Run) {
    let mut chats = JoinSet::new();
    let begin = Instant::now();
    let step = run.options.ramp / f64::from(run.options.concurrency.max(1));
    for index in 0..run.options.concurrency {
        let starts_at = begin + Duration::from_secs_f64(step * f64::from(index));
        chats.spawn(chat(run.clone(), index, starts_at));
    }
    let mut progress = tokio::time::interval(PROGRESS_EVERY);
    loop {
        tokio::select! {
            ended = chats.join_next() => match ended {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => run.found().violations.add(format!("a chat died: {error}")),
            },
            _ = progress.tick() => {
                let found = run.found();
                say(&format!("chats: {} asked, {} answered, {} violations", found.asked,
                    found.answered, found.violations.count));
            }
        }
    }
}

/// One chat: a connection, a session, question after question.
async fn chat(run: Run, index: u32, starts_at: Instant) {
    tokio::select! {
        () = sleep_until(starts_at) => {}
        () = run.stop.cancelled() => return,
    }
    let mut transcript = Transcript::default();
    let opened = async {
        let mut wire = Wire::connect(&run.target).await?;
        let joined = wire.join(wire::open_session(run.target.bot)).await?;
        anyhow::Ok((wire, joined.session))
    };
    let (mut wire, mut session) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            return run
                .found()
                .violations
                .add(format!("chat {index}: {error:#}"));
        }
    };
    let mut round = 0;
    while (run.options.rounds == 0 || round < run.options.rounds)
        && Instant::now() < run.ends_at
        && !run.stop.is_cancelled()
    {
        let question = format!("chat {index} round {round}");
        match ask(&run, &mut wire, session, question, &mut transcript).await {
            Err(error) => {
                run.found()
                    .violations
                    .add(format!("chat {index}, round {round}: {error:#}"));
                break;
            }
            Ok(Some(pause)) if run.options.patient => {
                let until = run.ends_at.min(Instant::now() + pause);
                tokio::select! {
                    () = sleep_until(until) => {}
                    () = run.stop.cancelled() => {}
                }
            }
            Ok(_) => {}
        }
        round += 1;
        if run.options.fresh {
            let left = std::mem::take(&mut transcript);
            match anew(&run, &mut wire, session, left).await {
                Ok(opened) => session = opened,
                Err(error) => {
                    run.found()
                        .violations
                        .add(format!("chat {index}, round {round}: {error:#}"));
                    break;
                }
            }
        }
    }
    let deadline = Instant::now() + AFTERMATH;
    while let Ok(text) = wire.text_by(deadline).await {
        if matches!(wire::decode(&text).kind, "delta" | "message") {
            run.found()
                .violations
                .add(format!("chat {index}: a frame after the end: {text}"));
        }
    }
    wire.close().await;
    let mut found = run.found();
    found.violations.merge(&transcript.violations);
    found.sessions.push((session, transcript.held));
}

/// Leaves a session for a new one.
async fn anew(
    run: &Run,
    wire: &mut Wire,
    session: SessionId,
    left: Transcript,
) -> anyhow::Result<SessionId> {
    {
        let mut found = run.found();
        found.violations.merge(&left.violations);
        found.sessions.push((session, left.held));
    }
    wire.say(&wire::leave(session)).await?;
    let mut tries = 0;
    loop {
        match wire.join(wire::open_session(run.target.bot)).await {
            Ok(joined) => return Ok(joined.session),
            Err(error) if tries == JOIN_TRIES => return Err(error),
            Err(error) => {
                tries += 1;
                *run.found().errors.entry(error.to_string()).or_default() += 1;
                tokio::time::sleep(JOIN_PAUSE).await;
            }
        }
    }
}

/// Reads every session back over HTTP and compares.
async fn read_back(run: &Run) -> anyhow::Result<()> {
    let api = Api::new(&run.target)?;
    let sessions = std::mem::take(&mut run.found().sessions);
    let total = sessions.len();
    let mut reading = futures_util::stream::iter(sessions)
        .map(|(session, held)| {
            let api = api.clone();
            async move { (session, held, api.messages(session).await) }
        })
        .buffer_unordered(READ_BACK_AT_ONCE);
    let mut read = 0;
    let mut progress = Progress::default();
    while let Some((session, held, stored)) = reading.next().await {
        let mut found = run.found();
        match stored {
            Ok(stored) => api::compare(session, &stored, &held, &mut found.violations),
            Err(error) => found.violations.add(format!("{session}: {error:#}")),
        }
        read += 1;
        progress.tell(|| format!("chats: {read} of {total} sessions read back"));
    }
    Ok(())
}

fn fill(report: &mut Report, run: &Run, seconds: f64) {
    let found = run.found();
    report.push("asked", number(found.asked), "");
    report.push("answered", number(found.answered), "");
    report.push("answered in time", number(found.in_time), "");
    if run.options.late_ms > 0 {
        let seconds = found.late_until.as_secs_f64();
        report.push("last late answer began after", seconds, "s");
    }
    report.push("refused or failed", number(found.errors.values().sum()), "");
    for (code, count) in &found.errors {
        report.push(format!("error {code}"), number(*count), "");
    }
    report.push("failed before the first text", number(found.unshown), "");
    report.push("told when to try again", number(found.told), "");
    if !found.wait_errors.is_empty() {
        report.push("waits told", number(found.wait_errors.len() as u64), "");
        report.push(
            "told wait off by, median",
            median(&found.wait_errors) * 100.0,
            "%",
        );
    }
    report.push_latencies("ack", &found.ack);
    report.push_latencies("time to first token", &found.first_delta);
    report.push_latencies("added time to first token", &found.added);
    report.push_latencies("gap between deltas", &found.gap);
    report.push_latencies("whole answer", &found.total);
    // Where the upstream's tokens are not known, four characters pass for one, as is customary.
    let tokens = run.tokens.map_or_else(
        || number(found.text_units) / 4.0,
        |tokens| number(found.answered) * f64::from(tokens),
    );
    report.push("tokens", tokens, "");
    report.push("tokens a second", ratio(tokens, seconds), "1/s");
    report.push("frames received", number(found.frames), "");
    report.push(
        "answers whose last text came with the message",
        number(found.tails),
        "",
    );
    report.push("seconds", seconds, "s");
    report.violations = found.violations.clone();
}

/// CPU and memory of a process over the scenario.
fn push_usage(
    report: &mut Report,
    who: &str,
    before: Usage,
    after: Usage,
    tokens: f64,
    seconds: f64,
) {
    let cpu = after.cpu_seconds - before.cpu_seconds;
    let tree = after.tree_cpu_seconds - before.tree_cpu_seconds;
    report.push(format!("{who} CPU"), ratio(cpu, seconds), "cores");
    report.push(
        format!("{who} CPU per 1,000 tokens"),
        ratio(cpu * 1e6, tokens),
        "ms",
    );
    if tree > cpu {
        report.push(
            format!("{who} CPU with its children"),
            ratio(tree, seconds),
            "cores",
        );
    }
    report.push(
        format!("{who} memory after"),
        after.rss_bytes / 1_048_576.0,
        "MiB",
    );
}
