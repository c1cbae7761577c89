//! `idle`: what a connection, or a session, costs that does nothing.

use std::time::Duration;

use anyhow::Context as _;
use hubbub_protocol::{BotId, ClientFrame, client};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::process::{self, Usage};
use super::report::Report;
use super::stats::{number, ratio};
use super::target::{Progress, Target, say};
use super::wire::{self, Wire};

/// Sessions being opened and left at once by one connection; a server may allow no more than 32.
const PIPELINE: u32 = 16;
/// Longest wait for the answer to any of them.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Parameters of the scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct Idle {
    /// Idle connections.
    #[arg(short, long, default_value_t = 10_000)]
    pub connections: u32,
    /// Each connection also opens a session and stays in it.
    #[arg(long)]
    pub join: bool,
    /// Seconds to wait before memory is read.
    #[arg(long, default_value_t = 5)]
    pub settle: u64,
    /// Instead of idle connections: sessions to open and leave, over a few connections.
    #[arg(long, default_value_t = 0)]
    pub sessions: u32,
    /// Connections over which the sessions are opened.
    #[arg(long, default_value_t = 8)]
    pub over: u32,
    /// Seconds within which the sessions must have left the server's memory.
    #[arg(long, default_value_t = 120)]
    pub leave_deadline: u64,
}

/// Runs the scenario.
///
/// # Errors
/// When a connection cannot be opened or a session cannot be joined.
pub async fn run(
    target: &Target,
    options: &Idle,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    if options.sessions > 0 {
        sessions(target, options, stop).await
    } else {
        connections(target, options, stop).await
    }
}

fn server(target: &Target) -> Usage {
    target.server_pid.map(process::sample).unwrap_or_default()
}

async fn settle(options: &Idle, stop: &CancellationToken) {
    // Woken early only by Ctrl-C: there is no event that says that memory has come to rest.
    if timeout(Duration::from_secs(options.settle), stop.cancelled())
        .await
        .is_ok()
    {
        say("idle: stopped");
    }
}

async fn connections(
    target: &Target,
    options: &Idle,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let mut report = Report::new(format!("idle -c {}", options.connections), target.name());
    let bot = Api::new(target)?.silent_bot().await?;
    let before = server(target);
    let begin = Instant::now();
    let done = CancellationToken::new();
    let mut open = open_all(target, options, bot, &done, stop, &mut report).await?;
    let seconds = begin.elapsed().as_secs_f64();
    settle(options, stop).await;
    let held = server(target);
    let idle_begin = Instant::now();
    settle(options, stop).await;
    let idle_cpu = server(target).cpu_seconds - held.cpu_seconds;
    let idle_seconds = idle_begin.elapsed().as_secs_f64();
    let count = number(open.len() as u64);
    done.cancel();
    while let Some(ended) = open.join_next().await {
        let kept = ended.context("a connection died")?;
        report
            .violations
            .check(kept, || "an idle connection was cut".to_owned());
    }
    settle(options, stop).await;
    let after = server(target);
    report.push("connections", count, "");
    report.push("connections opened a second", ratio(count, seconds), "1/s");
    tell_memory(&mut report, [before, held, after], count);
    report.push(
        "server CPU while idle",
        ratio(idle_cpu, idle_seconds),
        "cores",
    );
    report.push("harness memory", mib(process::sample_self()), "MiB");
    Ok(report)
}

fn mib(usage: Usage) -> f64 {
    usage.rss_bytes / 1_048_576.0
}

/// What so many connections cost.
fn tell_memory(report: &mut Report, [before, held, after]: [Usage; 3], count: f64) {
    report.push("memory before", mib(before), "MiB");
    report.push("memory with all", mib(held), "MiB");
    report.push("memory after", mib(after), "MiB");
    report.push(
        "memory of a connection",
        ratio(held.rss_bytes - before.rss_bytes, count),
        "B",
    );
    report.push(
        "share of memory of a connection",
        ratio(held.pss_bytes - before.pss_bytes, count),
        "B",
    );
}

/// Opens the connections side by side, so that a slow handshake does not bend the rate.
async fn open_all(
    target: &Target,
    options: &Idle,
    bot: BotId,
    done: &CancellationToken,
    stop: &CancellationToken,
    report: &mut Report,
) -> anyhow::Result<JoinSet<bool>> {
    let mut pace = target.connect_ticks();
    let mut progress = Progress::default();
    let mut opening = JoinSet::new();
    let mut open = JoinSet::new();
    for index in 0..options.connections {
        tokio::select! {
            _ = pace.tick() => {}
            () = stop.cancelled() => break,
        }
        let (target, join) = (target.clone(), options.join);
        opening.spawn(async move {
            let mut wire = Wire::connect(&target).await?;
            if join {
                wire.join(wire::open_session(bot)).await?;
            }
            anyhow::Ok(wire)
        });
        while let Some(opened) = opening.try_join_next() {
            hold(opened.context("opening died")?, &mut open, done, report);
        }
        progress.tell(|| format!("idle: {index} connections"));
    }
    while let Some(opened) = opening.join_next().await {
        hold(opened.context("opening died")?, &mut open, done, report);
    }
    Ok(open)
}

/// Keeps a connection open, reading, so that pings are answered; the task tells whether it lasted.
fn hold(
    opened: anyhow::Result<Wire>,
    open: &mut JoinSet<bool>,
    done: &CancellationToken,
    report: &mut Report,
) {
    match opened {
        Ok(mut wire) => {
            let done = done.clone();
            open.spawn(async move {
                loop {
                    tokio::select! {
                        () = done.cancelled() => return true,
                        text = wire.text() => if text.is_err() { return false },
                    }
                }
            });
        }
        Err(error) => report.violations.add(format!("{error:#}")),
    }
}

async fn sessions(
    target: &Target,
    options: &Idle,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let mut report = Report::new(
        format!("idle --sessions {}", options.sessions),
        target.name(),
    );
    let api = Api::new(target)?;
    let bot = api.silent_bot().await?;
    let gauges = || async {
        if target.bare {
            Ok(Vec::new())
        } else {
            api.metrics(&["session", "actor"]).await
        }
    };
    let (before, gauges_before) = (server(target), gauges().await?);
    let begin = Instant::now();
    let mut peaks = (before, gauges_before.clone());
    let opened = open_and_leave_all(target, options, bot, &mut peaks, &gauges, stop).await?;
    let (peak, gauges_peak) = peaks;
    let seconds = begin.elapsed().as_secs_f64();
    say(&format!(
        "idle: {opened} sessions opened and left in {seconds:.1} s"
    ));
    let deadline = Instant::now() + Duration::from_secs(options.leave_deadline);
    let mut gauges_after = gauges().await?;
    while !gone(&gauges_before, &gauges_after) && Instant::now() < deadline && !stop.is_cancelled()
    {
        tokio::time::sleep(process::SAMPLE_EVERY).await;
        gauges_after = gauges().await?;
    }
    settle(options, stop).await;
    let after = server(target);
    report.push("sessions", number(opened), "");
    report.push(
        "sessions opened and left a second",
        ratio(number(opened), seconds),
        "1/s",
    );
    report.push("memory before", mib(before), "MiB");
    report.push("memory at the peak", mib(peak), "MiB");
    report.push("memory after", mib(after), "MiB");
    for (label, values) in [
        ("before", &gauges_before),
        ("at the peak", &gauges_peak),
        ("after", &gauges_after),
    ] {
        for (name, value) in values.iter().filter(|(name, _)| !name.ends_with("_total")) {
            report.push(format!("{name} {label}"), *value, "");
        }
    }
    report
        .violations
        .check(gone(&gauges_before, &gauges_after), || {
            "sessions are still in memory after the deadline".to_owned()
        });
    Ok(report)
}

/// Opens the sessions over a few connections, and samples the server meanwhile. Returns how many were opened.
async fn open_and_leave_all<F>(
    target: &Target,
    options: &Idle,
    bot: BotId,
    (peak, gauges_peak): &mut (Usage, Vec<(String, f64)>),
    gauges: impl Fn() -> F,
    stop: &CancellationToken,
) -> anyhow::Result<u64>
where
    F: Future<Output = anyhow::Result<Vec<(String, f64)>>>,
{
    let over = options.over.max(1);
    let mut openers = JoinSet::new();
    for index in 0..over {
        let share = options.sessions / over + u32::from(index < options.sessions % over);
        openers.spawn(open_and_leave(target.clone(), bot, share, stop.clone()));
    }
    let mut opened = 0;
    let mut sampling = tokio::time::interval(process::SAMPLE_EVERY);
    loop {
        tokio::select! {
            ended = openers.join_next() => match ended {
                None => return Ok(opened),
                Some(count) => opened += count.context("an opener died")??,
            },
            _ = sampling.tick() => {
                let now = server(target);
                if now.rss_bytes > peak.rss_bytes {
                    *peak = now;
                }
                for (name, value) in gauges().await? {
                    raise(gauges_peak, name, value);
                }
            }
        }
    }
}

fn raise(peak: &mut Vec<(String, f64)>, name: String, value: f64) {
    match peak.iter_mut().find(|(known, _)| *known == name) {
        Some((_, highest)) => *highest = highest.max(value),
        None => peak.push((name, value)),
    }
}

/// Whether every gauge is back where it was; counters only rise and do not matter.
fn gone(before: &[(String, f64)], after: &[(String, f64)]) -> bool {
    let counts = |name: &str| {
        ["_total", "_count", "_sum", "_bucket"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
    };
    after
        .iter()
        .filter(|(name, _)| !counts(name))
        .all(|(name, value)| {
            let was = before
                .iter()
                .find(|(known, _)| known == name)
                .map_or(0.0, |(_, was)| *was);
            *value <= was
        })
}

/// Opens sessions over one connection and leaves each at once; answers how many.
async fn open_and_leave(
    target: Target,
    bot: BotId,
    count: u32,
    stop: CancellationToken,
) -> anyhow::Result<u64> {
    let mut wire = Wire::connect(&target).await?;
    let (mut asked, mut left) = (0, 0_u32);
    while left < count && !stop.is_cancelled() {
        while asked < count && asked - left < PIPELINE {
            wire.say(&ClientFrame::Join(wire::open_session(bot)))
                .await?;
            asked += 1;
        }
        let text = wire.text_by(Instant::now() + ANSWER_DEADLINE).await?;
        let frame = wire::decode(&text);
        match (frame.kind, frame.session) {
            ("joined", Some(session)) => {
                wire.say(&ClientFrame::Leave(client::Leave {
                    reference: None,
                    session,
                }))
                .await?;
            }
            ("left", _) => left += 1,
            ("error", _) => {
                // Refused for its speed: the place in the pipeline is free again, the pace is slower.
                tokio::time::sleep(Duration::from_millis(50)).await;
                asked -= 1;
            }
            _ => {}
        }
    }
    wire.close().await;
    Ok(u64::from(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_must_return_and_counters_need_not() {
        let value = |name: &str, value| (name.to_owned(), value);
        let before = [value("a", 1.0)];
        assert!(gone(&before, &[value("a", 1.0), value("b_total", 9.0)]));
        assert!(!gone(&before, &[value("a", 2.0)]));
        assert!(!gone(&before, &[value("c", 1.0)]));
        assert!(gone(&before, &[]));
    }
}
