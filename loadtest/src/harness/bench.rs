//! `bench`: what is compared with a bare server of the same run, as one table with its goals.
//!
//! The servers have CPUs of their own, and so has the load: they are started while the harness itself is
//! pinned to theirs. Each run begins with new servers and an empty database.

use std::fmt::Write as _;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio_util::sync::CancellationToken;

use super::chats::{self, Chats};
use super::fanout::{self, Fanout};
use super::process;
use super::report::Report;
use super::rig::{self, Hubbub, Programs, Server, Upstream};
use super::stats::{number, ratio};
use super::target::{Target, say};

/// Connections opened a second: no more than the server's own limit for one network.
const CONNECT_RATE: u32 = 500;
/// A rate is held if 99 of 100 deliveries take no longer than this, in milliseconds.
const HELD_MS: f64 = 100.0;
/// Seconds at each rate while the highest one is looked for.
const STEP_SECONDS: u64 = 4;
/// Steps between the last rate that was held and the first that was not.
const REFINEMENTS: u32 = 3;
/// Connections whose memory and joining is measured, ten in each session.
const IDLE: u32 = 3_000;

/// Parameters of the scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct Bench {
    #[command(flatten)]
    programs: Programs,
    /// Runs, of which the medians are told.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// CPUs of the server and its database, such as `0` or `0,1`.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    server_cpus: Vec<usize>,
    /// CPUs of the load and the upstream.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    load_cpus: Vec<usize>,
    /// Numbers of chats at once.
    #[arg(long, value_delimiter = ',', default_value = "50,200,500,1000")]
    chats: Vec<u32>,
    /// Seconds of each number of chats, and of the steady fan-out.
    #[arg(long, default_value_t = 12)]
    duration: u64,
    /// Leave out all but the chats.
    #[arg(long)]
    only_chats: bool,
}

/// What Hubbub is to reach.
#[derive(Clone, Copy)]
enum Goal {
    /// At most so many times the bare server's.
    Times(f64),
    /// At least this share of the bare server's.
    Share(f64),
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, bare: f64, hubbub: f64) -> bool {
        match self {
            Self::Times(times) => hubbub <= bare * times,
            Self::Share(share) => hubbub >= bare * share,
            Self::AtMost(most) => hubbub <= most,
            Self::AtLeast(least) => hubbub >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Times(times) => format!("at most {times} × bare"),
            Self::Share(share) => format!("at least {share} × bare"),
            Self::AtMost(most) => format!("at most {most}"),
            Self::AtLeast(least) => format!("at least {least}"),
        }
    }
}

const ROOM: &str = "1 session of 1,000 devices, deliveries/s held";
const ROOMS_COST: &str = "100 sessions of 10, 1,000 messages/s: CPU s per 100,000 deliveries";
const ROOMS: &str = "100 sessions of 10, messages/s held";
const MEMORY: &str = "a connection in a session of ten, KiB";
const JOINS: &str = "connect and join, per second of CPU";

/// The goals of a table; chats have theirs by their number.
fn goal_of(measure: &str) -> Option<Goal> {
    Some(match measure {
        ROOM => Goal::Share(0.5),
        ROOMS_COST => Goal::Times(2.5),
        ROOMS => Goal::AtLeast(15_000.0),
        MEMORY => Goal::AtMost(9.0),
        JOINS => Goal::AtLeast(5_000.0),
        other if other.ends_with("ms") && !other.starts_with("50 ") => Goal::Times(2.0),
        other if other.starts_with("1000 chats: CPU") => Goal::Times(1.4),
        other if other.starts_with("50 chats: CPU") => Goal::Times(2.0),
        _ => return None,
    })
}

/// Runs the benchmark. Returns what bare and Hubbub took, each as medians.
///
/// # Errors
/// When a server cannot be started or a scenario cannot begin.
pub async fn run(options: &Bench, stop: &CancellationToken) -> anyhow::Result<Vec<Report>> {
    let own = sched_getaffinity(None).context("cannot read on which CPUs this runs")?;
    pin(&options.load_cpus)?;
    let arguments = ["--ttft-ms=200", "--token-interval-ms=20", "--tokens=60"].map(str::to_owned);
    let upstream = Upstream::start(&options.programs, "sim", 2_000, &arguments).await?;
    let mut reports = Vec::new();
    for number in 1..=options.runs {
        say(&format!("run {number} of {}", options.runs));
        for bare in [true, false] {
            if !stop.is_cancelled() {
                reports.push(one_run(options, bare, &upstream, stop).await?);
            }
        }
    }
    sched_setaffinity(None, &own)?;
    Ok(Report::medians(&reports))
}

fn pin(cpus: &[usize]) -> anyhow::Result<()> {
    let most = CpuSet::MAX_CPU;
    anyhow::ensure!(
        cpus.iter().all(|cpu| *cpu < most),
        "there are no CPUs {cpus:?}"
    );
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu);
    }
    sched_setaffinity(None, &set).with_context(|| format!("there are no CPUs {cpus:?}"))
}

async fn one_run(
    options: &Bench,
    bare: bool,
    upstream: &Upstream,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    pin(&options.server_cpus)?;
    if bare {
        let server = Server::bare(&options.programs, upstream).await?;
        pin(&options.load_cpus)?;
        let target = rig::target(&server, None, CONNECT_RATE)?;
        return measure(options, &target, upstream, stop).await;
    }
    let program = options.programs.hubbub()?;
    let hubbub = Hubbub::start(&program, [upstream], "llm.queue_len = 20000").await?;
    pin(&options.load_cpus)?;
    let measured = match hubbub.demo(CONNECT_RATE) {
        Ok(target) => measure(options, &target, upstream, stop).await,
        Err(error) => Err(error),
    };
    hubbub.end().await;
    measured
}

async fn measure(
    options: &Bench,
    target: &Target,
    upstream: &Upstream,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let mut report = Report::new("bench", target.name());
    if !options.only_chats {
        idle(target, &mut report, stop).await?;
        let steady = fanout(100, 10, 1_000.0, options.duration);
        let steady = fanout::run(target, &steady, stop).await?;
        let cost = |who: &str| steady.value(&format!("{who} CPU per 100,000 deliveries"));
        let cpu = cost("server").unwrap_or_default() + cost("database").unwrap_or_default();
        report.push(ROOMS_COST, cpu, "");
        report.violations.merge(&steady.violations);
        let rooms = highest_rate(target, 100, 10, 1_000.0, stop).await?;
        report.push(ROOMS, rooms, "");
        let room = highest_rate(target, 1, 1_000, 50.0, stop).await?;
        report.push(ROOM, room * 1_000.0, "");
    }
    for count in &options.chats {
        let options = Chats {
            ramp: 4.0,
            patient: false,
            ..Chats::new(Some(upstream), *count, options.duration)
        };
        let found = chats::run(target, &options, stop).await?;
        let value = |name: &str| found.value(name).unwrap_or_default();
        for quantile in ["p50", "p99"] {
            let added = value(&format!("added time to first token {quantile}"));
            let name = format!("{count} chats: added time to first token {quantile}, ms");
            report.push(name, added, "");
        }
        let cores = found.value("server CPU with its children");
        let cores = cores.unwrap_or_else(|| value("server CPU"));
        let name = format!("{count} chats: CPU s per 1,000 tokens");
        report.push(name, ratio(cores * 1e3, value("tokens a second")), "");
        report.violations.merge(&found.violations);
    }
    Ok(report)
}

/// Memory and CPU of connections that join sessions of ten and do nothing.
async fn idle(
    target: &Target,
    report: &mut Report,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let sample = || target.server_pid.map(process::sample).unwrap_or_default();
    let before = sample();
    let devices = fanout::open(target, IDLE / 10, 10, stop).await?;
    let after = sample();
    let count = number(IDLE.into());
    let memory = ratio(after.pss_bytes - before.pss_bytes, count) / 1_024.0;
    report.push(MEMORY, memory, "");
    let cpu = after.tree_cpu_seconds - before.tree_cpu_seconds;
    report.push(JOINS, ratio(count, cpu), "");
    for device in devices.into_iter().flatten() {
        device.wire.close().await;
    }
    Ok(())
}

fn fanout(sessions: u32, devices: u32, rate: f64, duration: u64) -> Fanout {
    Fanout {
        sessions,
        devices,
        rate,
        duration,
        chars: 100,
    }
}

/// The highest rate of messages that is held: doubled until it is not, then approached from both sides.
async fn highest_rate(
    target: &Target,
    sessions: u32,
    devices: u32,
    first: f64,
    stop: &CancellationToken,
) -> anyhow::Result<f64> {
    let (mut held, mut failed, mut refinements) = (0.0_f64, f64::INFINITY, 0);
    while refinements < REFINEMENTS && !stop.is_cancelled() {
        let rate = if failed.is_infinite() {
            (held * 2.0).max(first)
        } else {
            refinements += 1;
            f64::midpoint(held, failed)
        };
        let options = fanout(sessions, devices, rate, STEP_SECONDS);
        let found = fanout::run(target, &options, stop).await?;
        let is_held = found.violations.count == 0
            && found.value("messages refused") == Some(0.0)
            && found
                .value("delivery p99")
                .is_some_and(|p99| p99 <= HELD_MS);
        if is_held {
            held = rate;
        } else {
            failed = rate;
        }
    }
    Ok(held)
}

/// Both servers' medians beside each other, with the goals.
pub fn table(reports: &[Report]) -> String {
    let of = |name: &str| reports.iter().find(|report| report.target == name);
    let (Some(bare), Some(hubbub)) = (of("bare"), of("hubbub")) else {
        return String::new();
    };
    let mut text = String::from(
        "| measure | bare | hubbub | hubbub ÷ bare | goal | |\n| --- | ---: | ---: | ---: | --- | --- |\n",
    );
    for entry in &hubbub.entries {
        let by = bare.value(&entry.name).unwrap_or_default();
        let goal = goal_of(&entry.name);
        let met = match goal.map(|goal| goal.is_met(by, entry.value)) {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        // Writing to a string cannot fail.
        writeln!(
            text,
            "| {} | {by:.3} | {:.3} | {:.2} | {} | {met} |",
            entry.name,
            entry.value,
            ratio(entry.value, by),
            goal.map(Goal::text).unwrap_or_default(),
        )
        .unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_which_goals_are_met() {
        let report = |target: &str, cost: f64, memory: f64| {
            let mut report = Report::new("bench", target);
            report.push(ROOMS_COST, cost, "");
            report.push(MEMORY, memory, "");
            report.push("200 chats: added time to first token p99, ms", 2.0, "");
            report
        };
        let text = table(&[report("bare", 2.0, 1.0), report("hubbub", 5.2, 8.0)]);
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert!(
            rows[0].ends_with("| 2.60 | at most 2.5 × bare | **missed** |"),
            "{text}"
        );
        assert!(rows[1].ends_with("| at most 9 | met |"), "{text}");
        assert!(
            rows[2].ends_with("| 1.00 | at most 2 × bare | met |"),
            "{text}"
        );
    }
}
