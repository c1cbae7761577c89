//! `run`: starts the upstream, Hubbub and the bare reference itself and runs all scenarios, so that
//! figures that are compared come from one machine in one run.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use super::report::Report;
use super::rig::{self, Hubbub, Programs, Server, Upstream};
use super::target::{Target, say};
use super::{chats, fanout, idle, slow};

/// Parameters of the orchestration.
#[derive(Clone, Debug, clap::Args)]
pub struct Run {
    /// What is run.
    #[command(flatten)]
    pub programs: Programs,
    /// Scenarios to run, of chats, fanout, idle, sessions, slow-device.
    #[arg(long, value_delimiter = ',', default_value = "chats,fanout")]
    pub scenarios: Vec<String>,
    /// Chats at once.
    #[arg(short, long, default_value_t = 500)]
    pub concurrency: u32,
    /// Seconds of each scenario.
    #[arg(long, default_value_t = 30)]
    pub duration: u64,
    /// Idle connections.
    #[arg(long, default_value_t = 10_000)]
    pub idle: u32,
    /// Sessions opened and left.
    #[arg(long, default_value_t = 100_000)]
    pub sessions: u32,
    /// Milliseconds to the upstream's first token.
    #[arg(long, default_value_t = 200)]
    pub ttft_ms: u64,
    /// Milliseconds between its tokens.
    #[arg(long, default_value_t = 20)]
    pub token_interval_ms: u64,
    /// Tokens of its answers.
    #[arg(long, default_value_t = 60)]
    pub tokens: u32,
    /// Runs of everything, each with fresh servers; what is reported is the median.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Write all reports as Markdown.
    #[arg(long)]
    pub markdown: Option<PathBuf>,
    /// Leave the bare reference out.
    #[arg(long)]
    pub no_bare: bool,
}

/// Runs everything, opening so many connections a second.
///
/// # Errors
/// When a server does not start or a scenario cannot begin.
pub async fn run(
    options: &Run,
    connect_rate: u32,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Report>> {
    let arguments = [
        format!("--ttft-ms={}", options.ttft_ms),
        format!("--token-interval-ms={}", options.token_interval_ms),
        format!("--tokens={}", options.tokens),
    ];
    let upstream = Upstream::start(&options.programs, "sim", 1_000, &arguments).await?;
    let mut reports = Vec::new();
    for number in 1..=options.runs {
        if options.runs > 1 {
            say(&format!("run {number} of {}", options.runs));
        }
        one_run(options, connect_rate, &upstream, stop, &mut reports).await?;
    }
    let reports = Report::medians(&reports);
    if let Some(path) = &options.markdown {
        let text: Vec<String> = reports.iter().map(Report::markdown).collect();
        std::fs::write(path, text.join("\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(reports)
}

/// Every scenario once, against new servers, so that no run begins with what another left.
async fn one_run(
    options: &Run,
    connect_rate: u32,
    upstream: &Upstream,
    stop: &CancellationToken,
    reports: &mut Vec<Report>,
) -> anyhow::Result<()> {
    if !options.no_bare {
        let bare = Server::bare(&options.programs, upstream).await?;
        let target = rig::target(&bare, None, connect_rate)?;
        scenarios(&target, options, upstream, stop, reports).await?;
    }
    if let Some(program) = &options.programs.hubbub {
        let hubbub = Hubbub::start(program, [upstream], "llm.queue_len = 20000").await?;
        let outcome = match hubbub.demo(connect_rate) {
            Ok(target) => scenarios(&target, options, upstream, stop, reports).await,
            Err(error) => Err(error),
        };
        hubbub.end().await;
        outcome?;
    }
    Ok(())
}

/// Runs the chosen scenarios against one server.
async fn scenarios(
    target: &Target,
    options: &Run,
    upstream: &Upstream,
    stop: &CancellationToken,
    reports: &mut Vec<Report>,
) -> anyhow::Result<()> {
    for scenario in &options.scenarios {
        if stop.is_cancelled() {
            return Ok(());
        }
        say(&format!("{scenario} against {}", target.name()));
        reports.push(match scenario.as_str() {
            "chats" => {
                let chats = chats::Chats {
                    concurrency: options.concurrency,
                    rounds: 0,
                    duration: options.duration,
                    ramp: 2.0,
                    deadline: 60,
                    simllm: Some(upstream.server.url.clone()),
                    upstream_ttft_ms: 0,
                    no_read_back: false,
                    patient: false,
                    fresh: false,
                    late_ms: 0,
                };
                chats::run(target, &chats, stop).await?
            }
            "fanout" => {
                let fanout = fanout::Fanout {
                    sessions: 50,
                    devices: 10,
                    rate: 500.0,
                    duration: options.duration,
                    chars: 100,
                };
                fanout::run(target, &fanout, stop).await?
            }
            "idle" | "sessions" => {
                let idle = idle::Idle {
                    connections: options.idle,
                    join: false,
                    settle: 5,
                    sessions: if scenario == "sessions" {
                        options.sessions
                    } else {
                        0
                    },
                    over: 8,
                    leave_deadline: 120,
                };
                idle::run(target, &idle, stop).await?
            }
            // The bare reference has no rule for a device that does not read.
            "slow-device" if target.bare => continue,
            "slow-device" => {
                let slow = slow::SlowDevice {
                    connections: 100,
                    slow: 10,
                    seconds: options.duration,
                    rate: 5.0,
                    chars: 4_000,
                    cut_within: 30,
                };
                slow::run(target, &slow, stop).await?
            }
            other => bail!("{other} is no scenario"),
        });
    }
    Ok(())
}
