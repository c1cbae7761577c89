//! `fanout`: every message must reach every device of its session, in order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hubbub_protocol::{ClientMessageId, SessionId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::arrivals::Arrivals;
use super::process::{self, Usage};
use super::report::{Report, Violations};
use super::stats::{Latencies, number, ratio};
use super::target::{Progress, Target, say};
use super::wire::{self, Wire};

/// Longest wait for what is still under way when the sending ends.
const DRAIN: Duration = Duration::from_secs(10);

/// Parameters of the scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct Fanout {
    /// Sessions.
    #[arg(short, long, default_value_t = 50)]
    pub sessions: u32,
    /// Devices in each session.
    #[arg(short, long, default_value_t = 10)]
    pub devices: u32,
    /// Messages a second, over all sessions.
    #[arg(long, default_value_t = 500.0)]
    pub rate: f64,
    /// Seconds of sending.
    #[arg(long, default_value_t = 20)]
    pub duration: u64,
    /// Characters of a message.
    #[arg(long, default_value_t = 100)]
    pub chars: usize,
}

/// What all devices add to.
#[derive(Default)]
pub struct Deliveries {
    /// From when the message was due to be sent to its receipt by each device.
    pub latencies: Mutex<Latencies>,
    /// Messages received, summed over devices.
    pub received: AtomicU64,
    /// Messages sent.
    pub sent: AtomicU64,
    /// Messages acknowledged.
    pub acked: AtomicU64,
    /// Messages refused.
    pub refused: AtomicU64,
    /// What was promised and not kept.
    pub violations: Mutex<Violations>,
}

impl Deliveries {
    /// Adds a violation.
    pub fn violated(&self, what: String) {
        self.violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(what);
    }

    /// Takes the latencies recorded so far and begins anew.
    pub fn take_latencies(&self) -> Latencies {
        std::mem::take(
            &mut *self
                .latencies
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// A device that receives; the first of a session also sends.
pub struct Device {
    /// Its connection.
    pub wire: Wire,
    /// The session.
    pub session: SessionId,
    /// The newest number at the join.
    pub head: u64,
}

/// Opens sessions with so many devices each, at the target's rate.
///
/// # Errors
/// When a connection or a join fails.
pub async fn open(
    target: &Target,
    sessions: u32,
    devices: u32,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Vec<Device>>> {
    let bot = Api::new(target)?.silent_bot().await?;
    let mut pace = target.connect_ticks();
    let mut progress = Progress::default();
    let mut all = Vec::new();
    for index in 0..sessions {
        let mut members: Vec<Device> = Vec::new();
        for _ in 0..devices {
            tokio::select! {
                _ = pace.tick() => {}
                () = stop.cancelled() => anyhow::bail!("stopped"),
            }
            let mut wire = Wire::connect(target).await?;
            let join = match members.first() {
                None => wire::open_session(bot),
                Some(first) => wire::join_after(first.session, 0),
            };
            let joined = wire.join(join).await.context("join")?;
            members.push(Device {
                wire,
                session: joined.session,
                head: joined.head,
            });
        }
        all.push(members);
        progress.tell(|| format!("fanout: {} of {sessions} sessions open", index + 1));
    }
    Ok(all)
}

/// How a device behaves from `begin` on.
#[derive(Clone)]
pub struct Plan {
    /// The zero of the times inside messages.
    pub begin: Instant,
    /// Messages this device sends a second on average, each at a time of its own; `None` for one that only
    /// listens.
    pub rate: Option<f64>,
    /// Characters of a message.
    pub chars: usize,
    /// Ends the sending.
    pub quiet: CancellationToken,
    /// Ends the listening.
    pub done: CancellationToken,
}

/// Sends by plan and receives until the plan is done; answers the newest number received.
pub async fn participate(mut device: Device, plan: Plan, deliveries: Arc<Deliveries>) -> u64 {
    let rate = plan.rate.unwrap_or(1.0);
    let mut arrivals = Arrivals::new(rate, plan.begin, rand::make_rng());
    loop {
        let sending = plan.rate.is_some() && !plan.quiet.is_cancelled();
        tokio::select! {
            biased;
            () = plan.done.cancelled() => break,
            text = device.wire.text() => match text {
                Ok(text) => receive(&mut device, &plan, &deliveries, &text),
                Err(error) => {
                    deliveries.violated(format!("a device of {}: {error:#}", device.session));
                    break;
                }
            },
            due = arrivals.next(), if sending => {
                let micros = (due - plan.begin).as_micros();
                let text = format!("{micros} {}", "x".repeat(plan.chars.saturating_sub(10)));
                let frame = wire::send(device.session, ClientMessageId::generate(), text);
                if let Err(error) = device.wire.say(&frame).await {
                    deliveries.violated(format!("sending to {}: {error:#}", device.session));
                    break;
                }
                deliveries.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    let head = device.head;
    device.wire.close().await;
    head
}

fn receive(device: &mut Device, plan: &Plan, deliveries: &Deliveries, text: &str) {
    let frame = wire::decode(text);
    match frame.kind {
        "message" => {
            let expected = device.head + 1;
            let seq = frame.seq.unwrap_or_default();
            if seq != expected {
                deliveries.violated(format!("{}: {seq}, not {expected}", device.session));
            }
            device.head = seq;
            deliveries.received.fetch_add(1, Ordering::Relaxed);
            let sent = frame
                .text
                .as_deref()
                .and_then(|text| text.split(' ').next()?.parse().ok());
            if let Some(sent) = sent {
                let latency = plan
                    .begin
                    .elapsed()
                    .saturating_sub(Duration::from_micros(sent));
                let mut latencies = deliveries
                    .latencies
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                latencies.record(latency);
            }
        }
        "ack" => {
            deliveries.acked.fetch_add(1, Ordering::Relaxed);
        }
        "error" => {
            deliveries.refused.fetch_add(1, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// Runs the scenario.
///
/// # Errors
/// When it cannot begin. What goes wrong later is in the report.
pub async fn run(
    target: &Target,
    options: &Fanout,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let sessions = open(target, options.sessions, options.devices, stop).await?;
    let deliveries = Arc::new(Deliveries::default());
    let plan = Plan {
        begin: Instant::now(),
        rate: None,
        chars: options.chars,
        quiet: CancellationToken::new(),
        done: CancellationToken::new(),
    };
    let own_before = process::sample_self();
    let before = target.server_pid.map(process::sample);
    let rate = options.rate / f64::from(options.sessions.max(1));
    let mut devices = JoinSet::new();
    for members in sessions {
        for (index, device) in members.into_iter().enumerate() {
            let plan = Plan {
                rate: (index == 0).then_some(rate),
                ..plan.clone()
            };
            devices.spawn(participate(device, plan, Arc::clone(&deliveries)));
        }
    }
    let ends_at = plan.begin + Duration::from_secs(options.duration);
    watch(&deliveries, ends_at, stop).await;
    plan.quiet.cancel();
    drain(&deliveries, options.devices).await;
    let seconds = plan.begin.elapsed().as_secs_f64();
    let after = target.server_pid.map(process::sample);
    let own_after = process::sample_self();
    plan.done.cancel();
    while let Some(ended) = devices.join_next().await {
        ended.context("a device died")?;
    }
    let title = format!("fanout -s {} -d {}", options.sessions, options.devices);
    let mut report = Report::new(title, target.name());
    fill(&mut report, &deliveries, options, seconds);
    let cost = Cost {
        seconds,
        messages: number(deliveries.acked.load(Ordering::Relaxed)),
        deliveries: number(deliveries.received.load(Ordering::Relaxed)),
    };
    cost.of(&mut report, "server", before, after);
    cost.of(&mut report, "harness", Some(own_before), Some(own_after));
    if let (Some(before), Some(after)) = (before, after) {
        let cpu = after.database_cpu_seconds - before.database_cpu_seconds;
        cost.cpu(&mut report, "database", cpu);
    }
    Ok(report)
}

/// What CPU time is shared out over.
struct Cost {
    seconds: f64,
    messages: f64,
    deliveries: f64,
}

impl Cost {
    fn of(&self, report: &mut Report, who: &str, before: Option<Usage>, after: Option<Usage>) {
        let (Some(before), Some(after)) = (before, after) else {
            return;
        };
        self.cpu(report, who, after.cpu_seconds - before.cpu_seconds);
        let memory = after.rss_bytes / 1_048_576.0;
        report.push(format!("{who} memory after"), memory, "MiB");
    }

    fn cpu(&self, report: &mut Report, who: &str, cpu: f64) {
        let per_message = ratio(cpu * 1e3, self.messages);
        let per_delivery = ratio(cpu * 1e5, self.deliveries);
        report.push(format!("{who} CPU"), ratio(cpu, self.seconds), "cores");
        report.push(format!("{who} CPU per message"), per_message, "ms");
        let name = format!("{who} CPU per 100,000 deliveries");
        report.push(name, per_delivery, "s");
    }
}

/// Tells how it goes until the time is up.
async fn watch(deliveries: &Deliveries, ends_at: Instant, stop: &CancellationToken) {
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = sleep_until(ends_at) => return,
            () = stop.cancelled() => return,
            _ = pace.tick() => say(&format!(
                "fanout: {} sent, {} received",
                deliveries.sent.load(Ordering::Relaxed),
                deliveries.received.load(Ordering::Relaxed),
            )),
        }
    }
}

/// Waits until everything sent was answered and everything acknowledged was received by all.
async fn drain(deliveries: &Deliveries, devices: u32) {
    let deadline = Instant::now() + DRAIN;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    loop {
        pace.tick().await;
        let [sent, acked, refused, received] = [
            &deliveries.sent,
            &deliveries.acked,
            &deliveries.refused,
            &deliveries.received,
        ]
        .map(|counter| counter.load(Ordering::Relaxed));
        let done = sent == acked + refused && received == acked * u64::from(devices);
        if done || Instant::now() > deadline {
            return;
        }
    }
}

fn fill(report: &mut Report, deliveries: &Deliveries, options: &Fanout, seconds: f64) {
    let [sent, acked, refused, received] = [
        &deliveries.sent,
        &deliveries.acked,
        &deliveries.refused,
        &deliveries.received,
    ]
    .map(|counter| counter.load(Ordering::Relaxed));
    report.push("messages sent", number(sent), "");
    report.push("messages acknowledged", number(acked), "");
    report.push("messages refused", number(refused), "");
    report.push("deliveries", number(received), "");
    report.push(
        "deliveries a second",
        ratio(number(received), seconds),
        "1/s",
    );
    report.push_latencies("delivery", &deliveries.take_latencies());
    report.push("seconds", seconds, "s");
    report.violations = deliveries
        .violations
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let due = acked * u64::from(options.devices);
    report.violations.check(received == due, || {
        format!("{received} deliveries of {due}")
    });
    report.violations.check(sent == acked + refused, || {
        format!("{sent} messages sent, {acked} acknowledged, {refused} refused")
    });
}
