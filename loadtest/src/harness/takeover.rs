//! `takeover`: operators take sessions over while answers stream, on three devices each.
//!
//! After `handler` no device may see a word of the bot, every question has exactly one end on every device, and
//! the upstream's requests are closed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::select_all;
use hubbub_protocol::client::{Release, Takeover as TakeOver};
use hubbub_protocol::{ClientFrame, ClientMessageId, ReplyId, SessionHandler, SessionId};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::api::{self, Api};
use super::report::{Report, Violations};
use super::rig::{Hubbub, Programs, Upstream};
use super::stats::{Latencies, number};
use super::target::{Progress, Target};
use super::wire::{self, Wire};

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(30);
/// Most that may pass from asking for a session to the bot's last word in it, in milliseconds.
const SILENCE_MS: f64 = 50.0;
/// Within which the upstream's requests have to be closed.
const CLOSED: Duration = Duration::from_secs(2);
/// After a takeover it is listened for so long to what must not come, in milliseconds.
const LISTEN_MS: u64 = 20;

/// Parameters of the scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct Takeover {
    /// What is run.
    #[command(flatten)]
    pub programs: Programs,
    /// Conversations at once, each with a visitor's two devices and an operator's.
    #[arg(short, long, default_value_t = 50)]
    pub concurrency: u32,
    /// Takeovers in each.
    #[arg(long, default_value_t = 40)]
    pub rounds: u32,
    /// Seed of the moments; it repeats the run as far as time allows.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Default)]
struct Found {
    silence: Latencies,
    taken: u64,
    words: u64,
    violations: Violations,
}

/// Runs the scenario.
///
/// # Errors
/// When a server does not start.
pub async fn run(options: &Takeover, stop: &CancellationToken) -> anyhow::Result<Report> {
    let arguments = ["--ttft-ms=50", "--token-interval-ms=10", "--tokens=200"].map(str::to_owned);
    let slots = options.concurrency * 2;
    let upstream = Upstream::start(&options.programs, "sim", slots, &arguments).await?;
    let hubbub = Hubbub::start(&options.programs.hubbub()?, [&upstream], "").await?;
    let outcome = conversations(options, &hubbub.demo(500)?, stop).await;
    let closed = closed(&upstream).await;
    hubbub.end().await;
    let mut found = outcome?;
    let control = closed?;
    found.violations.check(control.counters.running == 0, || {
        format!(
            "{} requests of the upstream are open",
            control.counters.running
        )
    });
    let scenario = format!("takeover -c {}, seed {}", options.concurrency, options.seed);
    let mut report = Report::new(scenario, "hubbub");
    report.push("takeovers", number(found.taken), "");
    report.push("pieces of answers seen", number(found.words), "");
    report.push_latencies("takeover to silence", &found.silence);
    report.push(
        "requests the upstream saw closed",
        number(control.counters.cancelled),
        "",
    );
    let p99 = found.silence.quantile_ms(0.99);
    found.violations.check(p99 <= SILENCE_MS, || {
        format!("takeover to silence p99 is {p99:.1} ms")
    });
    report.violations = found.violations;
    Ok(report)
}

/// What the upstream tells once nothing is asked of it any more, or some time has passed.
async fn closed(upstream: &Upstream) -> anyhow::Result<api::Control> {
    let deadline = Instant::now() + CLOSED;
    loop {
        let control = api::control(&upstream.server.url).await?;
        if control.counters.running == 0 || Instant::now() > deadline {
            return Ok(control);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn conversations(
    options: &Takeover,
    target: &Target,
    stop: &CancellationToken,
) -> anyhow::Result<Found> {
    let found: Arc<Mutex<Found>> = Arc::default();
    let api = Api::new(target)?;
    let mut running = JoinSet::new();
    for index in 0..options.concurrency {
        let ticket = api.operator(&format!("operator-{index}")).await?;
        let mut conversation = Conversation::open(target, &ticket, found.clone()).await?;
        let seed = options.seed.wrapping_mul(1_000_003) + u64::from(index);
        let (rounds, stop) = (options.rounds, stop.clone());
        running.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            for round in 0..rounds {
                if stop.is_cancelled() {
                    break;
                }
                if let Err(error) = conversation.round(round, &mut rng).await {
                    let broken = format!("conversation {index}, takeover {round}: {error:#}");
                    conversation.found(|found| found.violations.add(broken));
                    break;
                }
            }
        });
    }
    let mut progress = Progress::default();
    let mut ended = 0;
    while let Some(joined) = running.join_next().await {
        joined.context("a conversation died")?;
        ended += 1;
        progress.tell(|| format!("takeover: {ended} of {} conversations", options.concurrency));
    }
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *found))
}

/// What one device was told.
#[derive(Default)]
struct Told {
    is_handled: bool,
    ends: HashMap<ReplyId, u32>,
}

/// One conversation. The last device is the operator's.
struct Conversation {
    session: SessionId,
    wires: Vec<Wire>,
    told: Vec<Told>,
    found: Arc<Mutex<Found>>,
}

impl Conversation {
    async fn open(target: &Target, ticket: &str, found: Arc<Mutex<Found>>) -> anyhow::Result<Self> {
        let mut first = Wire::connect(target).await?;
        let session = first.join(wire::open_session(target.bot)).await?.session;
        let mut second = Wire::connect(target).await?;
        second.join(wire::join_after(session, 0)).await?;
        let mut operator = Wire::connect_as(target, Some(ticket)).await?;
        operator.join(wire::join_after(session, 0)).await?;
        let wires = vec![first, second, operator];
        let told = wires.iter().map(|_| Told::default()).collect();
        Ok(Self {
            session,
            wires,
            told,
            found,
        })
    }

    fn found<T>(&self, change: impl FnOnce(&mut Found) -> T) -> T {
        change(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A question, a takeover at some moment of its answer, and the session back to the bot.
    async fn round(&mut self, round: u32, rng: &mut StdRng) -> anyhow::Result<()> {
        let question = wire::send(
            self.session,
            ClientMessageId::generate(),
            format!("takeover {round}"),
        );
        self.say(0, &question).await?;
        let moment = Instant::now() + Duration::from_millis(rng.random_range(0..400));
        self.listen(moment).await?;
        let asked_at = Instant::now();
        let (reference, session) = (Some("take".to_owned()), self.session);
        let take = ClientFrame::Takeover(TakeOver {
            reference,
            session,
            from: None,
        });
        self.say(2, &take).await?;
        self.until(|told| told.is_handled, Some(asked_at)).await?;
        self.found(|found| found.taken += 1);
        self.listen(Instant::now() + Duration::from_millis(LISTEN_MS))
            .await?;
        let asked = round as usize + 1;
        self.until(|told| told.ends.len() == asked, None).await?;
        let release = ClientFrame::Release(Release {
            reference: None,
            session,
            summary: None,
        });
        self.say(2, &release).await?;
        self.until(|told| !told.is_handled, None).await
    }

    async fn say(&mut self, device: usize, frame: &ClientFrame) -> anyhow::Result<()> {
        let wire = self.wires.get_mut(device).context("no such device")?;
        wire.say(frame).await
    }

    /// Reads what comes until then.
    async fn listen(&mut self, until: Instant) -> anyhow::Result<()> {
        while let Ok(frame) = timeout_at(until, self.next()).await {
            let (device, text) = frame?;
            self.see(device, &text)?;
        }
        Ok(())
    }

    /// Reads until every device was told so; since when it takes is a silence.
    async fn until(
        &mut self,
        is_told: impl Fn(&Told) -> bool,
        since: Option<Instant>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !self.told.iter().all(&is_told) {
            let frame = timeout_at(deadline, self.next()).await;
            let (device, text) = frame.context("a device is not told in time")??;
            let was_told = self.told.get(device).is_some_and(&is_told);
            self.see(device, &text)?;
            let told_now = !was_told && self.told.get(device).is_some_and(&is_told);
            if let (true, Some(since)) = (told_now, since) {
                self.found(|found| found.silence.record(since.elapsed()));
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<(usize, String)> {
        let next = self.wires.iter_mut().map(|wire| Box::pin(wire.text()));
        let (text, device, _) = select_all(next).await;
        Ok((device, text?))
    }

    /// Judges a frame.
    fn see(&mut self, device: usize, text: &str) -> anyhow::Result<()> {
        let frame = wire::decode(text);
        let told = self.told.get_mut(device).context("no such device")?;
        let mut is_of_bot = false;
        match (frame.kind, frame.reply, frame.state) {
            ("handler", ..) => {
                told.is_handled = matches!(frame.handler, Some(SessionHandler::Operator { .. }));
            }
            ("message", Some(reply), _) => {
                *told.ends.entry(reply).or_default() += 1;
                is_of_bot = true;
            }
            ("reply", Some(reply), Some("failed" | "cancelled")) => {
                *told.ends.entry(reply).or_default() += 1;
            }
            ("delta" | "reply", ..) => is_of_bot = true,
            ("error", ..) => anyhow::bail!("refused: {text}"),
            _ => {}
        }
        let is_spoken_over = told.is_handled && is_of_bot;
        let is_ended_twice = told.ends.values().any(|ends| *ends > 1);
        let is_word = frame.kind == "delta";
        self.found(|found| {
            found.words += u64::from(is_word);
            found
                .violations
                .check(!is_spoken_over, || format!("after the handler: {text}"));
            found
                .violations
                .check(!is_ended_twice, || format!("a second end: {text}"));
        });
        Ok(())
    }
}
