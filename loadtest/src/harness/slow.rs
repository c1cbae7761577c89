//! `slow-device`: devices that do not read must cost nobody but themselves.
//!
//! Four phases under the same traffic: without slow devices, with them, without, with. What the
//! others see is the median of the two phases of a kind, so that a drift of the machine is not taken
//! for an effect.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hubbub_protocol::SessionId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::fanout::{self, Deliveries, Plan};
use super::process;
use super::raw::{Drained, RawDevice};
use super::report::{Report, Violations};
use super::stats::{median, number, ratio};
use super::target::{Target, say};
use super::wire::{self, Wire};

/// How often the kernel is asked whether a device was cut.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for the rest of a stream once it was cut.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// Every so many slow devices one reads a byte a second; the others read nothing.
const SIPS_EVERY: u32 = 3;

/// Parameters of the scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct SlowDevice {
    /// Sessions, each with two devices that read.
    #[arg(short, long, default_value_t = 100)]
    pub connections: u32,
    /// Sessions that also get a device that does not read.
    #[arg(long, default_value_t = 10)]
    pub slow: u32,
    /// Seconds of each of the four phases.
    #[arg(long, default_value_t = 40)]
    pub seconds: u64,
    /// Messages a second in each session.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,
    /// Characters of a message; what fills a socket's buffers in a few seconds.
    #[arg(long, default_value_t = 4_000)]
    pub chars: usize,
    /// Seconds within which a slow device must be cut.
    #[arg(long, default_value_t = 30)]
    pub cut_within: u64,
}

/// What became of one slow device.
struct Fate {
    session: SessionId,
    cut_after: Option<Duration>,
    drained: Option<Drained>,
}

/// Runs the scenario.
///
/// # Errors
/// When it cannot begin. What goes wrong later is in the report.
pub async fn run(
    target: &Target,
    options: &SlowDevice,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let sessions = fanout::open(target, options.connections, 2, stop).await?;
    let ids: Vec<SessionId> = sessions
        .iter()
        .flatten()
        .map(|device| device.session)
        .collect();
    let victims: Vec<SessionId> = ids
        .iter()
        .copied()
        .step_by(2)
        .take(options.slow as usize)
        .collect();
    let deliveries = Arc::new(Deliveries::default());
    let plan = Plan {
        begin: Instant::now(),
        rate: None,
        chars: options.chars,
        quiet: CancellationToken::new(),
        done: CancellationToken::new(),
    };
    let mut devices = JoinSet::new();
    for members in sessions {
        for (index, device) in members.into_iter().enumerate() {
            let plan = Plan {
                rate: (index == 0).then_some(options.rate),
                ..plan.clone()
            };
            devices.spawn(fanout::participate(device, plan, Arc::clone(&deliveries)));
        }
    }
    let mut report = Report::new(
        format!(
            "slow-device -c {} --slow {}",
            options.connections, options.slow
        ),
        target.name(),
    );
    let mut rounds = Rounds::new(target, options, &deliveries, stop);
    // The first seconds warm caches and connections up and belong to no phase.
    phase(Duration::from_secs(2), stop).await;
    // Also without slow devices: looking costs the machine something.
    let (looking, seen) = watch::channel(None);
    let looking = tokio::spawn(look(target.port(), looking));
    for _ in 0..2 {
        rounds.run(&victims, &seen, &mut report).await?;
    }
    looking.abort();
    // Everybody who was cut comes back, before the traffic ends.
    for fate in &rounds.fates {
        resume(target, options, fate, &mut report.violations).await;
    }
    plan.quiet.cancel();
    phase(Duration::from_secs(1), stop).await;
    plan.done.cancel();
    while let Some(ended) = devices.join_next().await {
        ended.context("a device died")?;
    }
    fill(&mut report, &rounds);
    Ok(report)
}

/// Phases without slow devices and with them, in turn, and what was measured in them.
struct Rounds<'a> {
    target: &'a Target,
    options: &'a SlowDevice,
    deliveries: &'a Deliveries,
    stop: &'a CancellationToken,
    without: Vec<Phase>,
    with: Vec<Phase>,
    fates: Vec<Fate>,
    /// Of the server's memory, in bytes.
    growth: Vec<f64>,
}

impl<'a> Rounds<'a> {
    fn new(
        target: &'a Target,
        options: &'a SlowDevice,
        deliveries: &'a Deliveries,
        stop: &'a CancellationToken,
    ) -> Self {
        Self {
            target,
            options,
            deliveries,
            stop,
            without: Vec::new(),
            with: Vec::new(),
            fates: Vec::new(),
            growth: Vec::new(),
        }
    }

    async fn run(
        &mut self,
        victims: &[SessionId],
        seen: &watch::Receiver<Option<HashSet<u16>>>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let (fast, before) = self.phase().await;
        self.without.push(fast);
        if self.stop.is_cancelled() {
            return Ok(());
        }
        let mut watching = JoinSet::new();
        for (index, session) in (0_u32..).zip(victims) {
            let (target, options) = (self.target.clone(), self.options.clone());
            watching.spawn(suffer(target, options, *session, index, seen.clone()));
        }
        let (slow, peak) = self.phase().await;
        self.with.push(slow);
        self.growth.push((peak - before).max(0.0));
        while let Some(fate) = watching.join_next().await {
            match fate.context("a slow device died")? {
                Ok(fate) => self.fates.push(fate),
                Err(error) => report.violations.add(format!("a slow device: {error:#}")),
            }
        }
        Ok(())
    }

    /// What the devices that read saw, and the most memory of the server.
    async fn phase(&self) -> (Phase, f64) {
        let measured = measured(self.deliveries, self.options, self.stop);
        process::peak_rss_while(self.target.server_pid, measured).await
    }
}

async fn phase(length: Duration, stop: &CancellationToken) {
    if tokio::time::timeout(length, stop.cancelled()).await.is_ok() {
        say("slow-device: stopped");
    }
}

/// What the devices that read saw in one phase, in milliseconds.
struct Phase {
    p50: f64,
    p99: f64,
}

/// Waits for one phase to pass.
async fn measured(
    deliveries: &Deliveries,
    options: &SlowDevice,
    stop: &CancellationToken,
) -> Phase {
    drop(deliveries.take_latencies());
    phase(Duration::from_secs(options.seconds), stop).await;
    let latencies = deliveries.take_latencies();
    let (p99, p50) = (latencies.quantile_ms(0.99), latencies.quantile_ms(0.5));
    say(&format!(
        "slow-device: a phase ended, p50 {p50:.2} ms, p99 {p99:.2} ms"
    ));
    Phase { p50, p99 }
}

/// Publishes, again and again, which connections the server still holds; aborted with its phase.
///
/// One look for all devices, on a thread of its own: a look of each would delay what is measured.
async fn look(server_port: u16, seen: watch::Sender<Option<HashSet<u16>>>) {
    let mut pace = interval(LOOK_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let ports = tokio::task::spawn_blocking(move || process::established_clients(server_port));
        seen.send_replace(ports.await.unwrap_or_default());
    }
}

/// One device that does not read: waits until it is cut, then looks at what it got.
async fn suffer(
    target: Target,
    options: SlowDevice,
    session: SessionId,
    index: u32,
    mut seen: watch::Receiver<Option<HashSet<u16>>>,
) -> anyhow::Result<Fate> {
    let mut device = RawDevice::join(&target, session).await?;
    let joined_at = Instant::now();
    let (port, sips) = (device.port(), index.is_multiple_of(SIPS_EVERY));
    // The first look under way may have begun before this connection was there.
    seen.changed().await?;
    let mut looks: u32 = 0;
    let mut cut_after = None;
    while joined_at.elapsed() < Duration::from_secs(options.cut_within) {
        seen.changed().await?;
        looks += 1;
        if sips && looks.is_multiple_of(4) {
            device.sip().await;
        }
        let gone = seen
            .borrow_and_update()
            .as_ref()
            .is_some_and(|ports| !ports.contains(&port));
        if gone {
            cut_after = Some(joined_at.elapsed());
            break;
        }
    }
    let drained = device.drain(Instant::now() + DRAIN_DEADLINE).await;
    Ok(Fate {
        session,
        cut_after,
        drained,
    })
}

/// Joins again from behind the last message held: what comes must follow without gap or duplicate.
async fn resume(target: &Target, options: &SlowDevice, fate: &Fate, violations: &mut Violations) {
    let session = fate.session;
    let within = options.cut_within;
    violations.check(fate.cut_after.is_some(), || {
        format!("the slow device of {session} was not cut within {within} s")
    });
    let Some(drained) = &fate.drained else { return };
    let in_order = drained
        .seqs
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if *b == a + 1));
    violations.check(in_order, || {
        format!("{session}: a slow device got {:?}", drained.seqs)
    });
    if target.bare {
        // It keeps no messages, so there is nothing to resume from.
        return;
    }
    let after = drained.seqs.last().copied().unwrap_or_default();
    let joined = async {
        let mut wire = Wire::connect(target).await?;
        let joined = wire.join(wire::join_after(session, after)).await?;
        wire.close().await;
        anyhow::Ok(joined)
    };
    match joined.await {
        Err(error) => violations.add(format!("{session}: a slow device came back: {error:#}")),
        Ok(joined) => {
            let contiguous = joined
                .listed
                .windows(2)
                .all(|pair| matches!(pair, [a, b] if *b == a + 1));
            let follows = joined.listed.first().is_none_or(|first| {
                if joined.more {
                    *first > after
                } else {
                    *first == after + 1
                }
            });
            violations.check(contiguous && follows, || {
                format!("{session}: after {after} came {:?}", joined.listed)
            });
            let complete =
                joined.more || joined.listed.last().copied().unwrap_or(after) == joined.head;
            violations.check(complete, || {
                format!("{session}: the newest messages are missing")
            });
        }
    }
}

fn fill(report: &mut Report, rounds: &Rounds<'_>) {
    let Rounds {
        options,
        without,
        with,
        fates,
        growth,
        ..
    } = rounds;
    let p99 = |phases: &[Phase]| median(&phases.iter().map(|p| p.p99).collect::<Vec<_>>());
    let p50 = |phases: &[Phase]| median(&phases.iter().map(|p| p.p50).collect::<Vec<_>>());
    report.push("delivery p50 without slow devices", p50(without), "ms");
    report.push("delivery p50 with slow devices", p50(with), "ms");
    report.push("delivery p99 without slow devices", p99(without), "ms");
    report.push("delivery p99 with slow devices", p99(with), "ms");
    report.push(
        "p99 with by p99 without",
        ratio(p99(with), p99(without)),
        "",
    );
    let cuts: Vec<f64> = fates
        .iter()
        .filter_map(|fate| fate.cut_after)
        .map(|after| after.as_secs_f64())
        .collect();
    report.push("slow devices", number(fates.len() as u64), "");
    report.push("slow devices cut", number(cuts.len() as u64), "");
    report.push("cut after, median", median(&cuts), "s");
    report.push(
        "cut after, longest",
        cuts.iter().copied().fold(0.0, f64::max),
        "s",
    );
    let with_4008 = fates
        .iter()
        .filter_map(|fate| fate.drained.as_ref())
        .filter(|drained| drained.close_code == Some(4008))
        .count();
    report.push("cut with 4008", number(with_4008 as u64), "");
    let grown = median(growth);
    report.push(
        "server memory of a slow device",
        ratio(grown / 1_024.0, f64::from(options.slow)),
        "KiB",
    );
    let found = rounds.deliveries.violations.lock();
    let found = found.unwrap_or_else(std::sync::PoisonError::into_inner);
    report.violations.merge(&found);
}
