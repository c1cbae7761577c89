//! `overload`: many times as many chats as the models can serve, for minutes.
//!
//! What is served must stay what it was at its peak, memory must stay what it was after the first quarter, and
//! once the load is gone answers must begin as before within seconds.

use std::time::Duration;

use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::chats::{self, Chats};
use super::process;
use super::report::Report;
use super::rig::{Hubbub, Programs, Upstream};
use super::stats::{median, ratio};
use super::target::say;

/// What has to be left of the peak.
const GOODPUT: f64 = 0.8;
/// How much memory may grow from the second quarter of the overload to its last.
const GROWTH: f64 = 0.10;
/// Within how many seconds answers begin as before.
const RECOVERED_SECONDS: f64 = 5.0;
/// An answer is late when it takes so many times as long to begin as without load.
const LATE: f64 = 2.0;
/// Seconds of what comes before and after.
const REFERENCE_SECONDS: u64 = 15;

/// What answers are compared by.
const P95: &str = "time to first token p95";

/// Parameters of the scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct Overload {
    /// What is run.
    #[command(flatten)]
    pub programs: Programs,
    /// Answers the upstream writes at once.
    #[arg(long, default_value_t = 100)]
    pub slots: u32,
    /// Chats, in times the slots.
    #[arg(long, default_value_t = 10)]
    pub times: u32,
    /// Seconds of overload.
    #[arg(long, default_value_t = 60)]
    pub duration: u64,
    /// Most replies that wait.
    #[arg(long, default_value_t = 300)]
    pub queue_len: u32,
}

/// What was found before, at the peak, beyond it, and after.
struct Phases {
    calm: Report,
    peak: Report,
    crowded: Report,
    memory: Memory,
    after: Report,
}

/// Runs the scenario.
///
/// # Errors
/// When a server does not start or a phase cannot begin.
pub async fn run(options: &Overload, stop: &CancellationToken) -> anyhow::Result<Report> {
    let arguments = [
        "--ttft-ms=200",
        "--token-interval-ms=10",
        "--tokens=40",
        "--jitter=0.3",
    ]
    .map(str::to_owned);
    let upstream = Upstream::start(&options.programs, "sim", options.slots, &arguments).await?;
    let settings = format!(
        "limits.connections_per_tenant = 100000\nllm.queue_len = {}",
        options.queue_len
    );
    let hubbub = Hubbub::start(&options.programs.hubbub()?, [&upstream], &settings).await?;
    let mut report = Report::new(
        format!(
            "overload, {} times for {} s",
            options.times, options.duration
        ),
        "hubbub",
    );
    let phases = phases(options, &hubbub, &upstream, stop).await;
    hubbub.end().await;
    judge(options, &phases?, &mut report);
    Ok(report)
}

async fn phases(
    options: &Overload,
    hubbub: &Hubbub,
    upstream: &Upstream,
    stop: &CancellationToken,
) -> anyhow::Result<Phases> {
    let target = hubbub.demo(500)?;
    let chats = |concurrency, duration| Chats {
        fresh: true,
        ..Chats::new(Some(upstream), concurrency, duration)
    };
    say("overload: half of the slots");
    let half = chats(options.slots / 2, REFERENCE_SECONDS);
    let calm = chats::run(&target, &half, stop).await?;
    say("overload: at the peak");
    let full = chats(options.slots + options.slots / 5, REFERENCE_SECONDS);
    let peak = chats::run(&target, &full, stop).await?;

    say("overload: beyond it");
    let crowd = Chats {
        ramp: 5.0,
        ..chats(options.slots * options.times, options.duration)
    };
    let alone = calm.value(P95).unwrap_or_default();
    let after = Chats {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "some milliseconds"
        )]
        late_ms: (alone * LATE) as u64,
        ..half
    };
    let overload = Duration::from_secs(options.duration);
    let after = async {
        let memory = sampled(hubbub.server.pid, overload).await;
        // What the crowd has asked is still to be answered.
        say("overload: nobody of the crowd asks any more");
        (memory, chats::run(&target, &after, stop).await)
    };
    let (crowded, (memory, after)) = tokio::join!(chats::run(&target, &crowd, stop), after);
    let (crowded, after) = (crowded?, after?);
    Ok(Phases {
        calm,
        peak,
        crowded,
        memory,
        after,
    })
}

/// Compares the phases.
fn judge(options: &Overload, phases: &Phases, report: &mut Report) {
    let Phases {
        calm,
        peak,
        crowded,
        memory,
        after,
    } = phases;
    let per_second = |of: &Report, seconds: u64| {
        let answers = of.value("answered in time").unwrap_or_default();
        ratio(answers, Duration::from_secs(seconds).as_secs_f64())
    };
    let peak = per_second(peak, REFERENCE_SECONDS);
    let goodput = per_second(crowded, options.duration);
    report.push("answers a second at the peak", peak, "1/s");
    report.push("answers a second under overload", goodput, "1/s");
    report.push("of the peak", ratio(goodput, peak) * 100.0, "%");
    for entry in &crowded.entries {
        if entry.name.starts_with("error ") || entry.name == "told when to try again" {
            report.push(entry.name.clone(), entry.value, "");
        }
    }
    for measure in ["waits told", "told wait off by, median"] {
        if let Some(value) = crowded.value(measure) {
            let unit = if measure == "waits told" { "" } else { "%" };
            report.push(measure, value, unit);
        }
    }
    let growth = ratio(memory.late, memory.early) - 1.0;
    report.push(
        "memory in the second quarter",
        memory.early / 1_048_576.0,
        "MiB",
    );
    report.push(
        "memory in the last quarter",
        memory.late / 1_048_576.0,
        "MiB",
    );
    let alone = calm.value(P95).unwrap_or_default();
    report.push(format!("without load: {P95}"), alone, "ms");
    report.push(
        format!("under overload: {P95}"),
        crowded.value(P95).unwrap_or_default(),
        "ms",
    );
    report.push(
        format!("after it: {P95}"),
        after.value(P95).unwrap_or_default(),
        "ms",
    );
    let recovered = after
        .value("last late answer began after")
        .unwrap_or_default();
    report.push("last late answer after it began after", recovered, "s");

    for of in [calm, crowded, after] {
        report.violations.merge(&of.violations);
    }
    let broken = &mut report.violations;
    broken.check(goodput >= peak * GOODPUT, || {
        format!("{goodput:.1} of {peak:.1} a second")
    });
    broken.check(growth <= GROWTH, || {
        format!("memory grew by {:.0} %", growth * 100.0)
    });
    broken.check(recovered <= RECOVERED_SECONDS, || {
        format!("late after {recovered:.1} s")
    });
}

/// Median memory in the second and in the last quarter of a while, in bytes.
struct Memory {
    early: f64,
    late: f64,
}

async fn sampled(pid: u32, over: Duration) -> Memory {
    let mut pace = interval(process::SAMPLE_EVERY);
    let mut samples = Vec::new();
    let until = Instant::now() + over;
    while Instant::now() < until {
        pace.tick().await;
        samples.push(process::sample(pid).rss_bytes);
    }
    let quarter = samples.len() / 4;
    let of = |from: usize| {
        let part = samples.iter().skip(from).take(quarter.max(1));
        median(&part.copied().collect::<Vec<_>>())
    };
    Memory {
        early: of(quarter),
        late: of(quarter * 3),
    }
}
