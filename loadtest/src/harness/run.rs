//! `run`: starts the upstream, Hubbub and the bare reference itself and runs all scenarios, so that
//! figures that are compared come from one machine in one run.
//!
//! Every server is a child that is killed with the run. Hubbub gets a temporary data folder, which
//! goes with it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::report::Report;
use super::target::{Target, TargetArguments, say};
use super::{chats, fanout, idle, slow};

/// Longest wait for a small server's first words.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// Longest wait for Hubbub to be ready: a fresh data folder means a fresh database cluster.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// Longest wait for Hubbub to end by itself: its own limit is 25 s.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Parameters of the orchestration.
#[derive(Clone, Debug, clap::Args)]
pub struct Run {
    /// The `hubbub` binary; without it only the bare reference is put under load.
    #[arg(long)]
    pub hubbub: Option<PathBuf>,
    /// Folder of `simllm` and `bare`; the harness's own by default.
    #[arg(long)]
    pub tools: Option<PathBuf>,
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

/// A child that is killed when it is dropped.
struct Server {
    child: Child,
    pid: u32,
    url: String,
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
    let tools = if let Some(folder) = &options.tools {
        folder.clone()
    } else {
        let own = std::env::current_exe().context("where is the harness?")?;
        own.parent().context("where is the harness?")?.to_owned()
    };
    let mut simllm = Command::new(tools.join("simllm"));
    simllm
        .args(["--listen", "127.0.0.1:0", "--seed", "1"])
        .args(["--ttft-ms", &options.ttft_ms.to_string()])
        .args([
            "--token-interval-ms",
            &options.token_interval_ms.to_string(),
        ])
        .args(["--tokens", &options.tokens.to_string()]);
    let upstream = announced(simllm).await.context("simllm")?;
    let mut reports = Vec::new();
    for number in 1..=options.runs {
        if options.runs > 1 {
            say(&format!("run {number} of {}", options.runs));
        }
        one_run(options, connect_rate, &tools, &upstream, stop, &mut reports).await?;
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
    tools: &Path,
    upstream: &Server,
    stop: &CancellationToken,
    reports: &mut Vec<Report>,
) -> anyhow::Result<()> {
    if !options.no_bare {
        let mut bare = Command::new(tools.join("bare"));
        bare.args([
            "--listen",
            "127.0.0.1:0",
            "--upstream",
            &format!("{}/v1", upstream.url),
        ]);
        let bare = announced(bare).await.context("bare")?;
        let target = target(&bare, None, connect_rate)?;
        scenarios(&target, options, upstream, stop, reports).await?;
    }
    if let Some(program) = &options.hubbub {
        let folder = Folder::create()?;
        let hubbub = start_hubbub(program, &folder.0, upstream).await?;
        let demo = folder.0.join("data/demo.json");
        let outcome = match target(&hubbub, Some(demo), connect_rate) {
            Ok(target) => scenarios(&target, options, upstream, stop, reports).await,
            Err(error) => Err(error),
        };
        // Before the folder goes: its database lives there.
        end(hubbub).await;
        outcome?;
    }
    Ok(())
}

fn target(server: &Server, demo: Option<PathBuf>, connect_rate: u32) -> anyhow::Result<Target> {
    Target::new(&TargetArguments {
        url: Some(server.url.clone()),
        api_key: String::new(),
        bot: None,
        bare: demo.is_none(),
        demo,
        server_pid: Some(server.pid),
        connect_rate,
        report: None,
    })
}

/// Runs the chosen scenarios against one server.
async fn scenarios(
    target: &Target,
    options: &Run,
    upstream: &Server,
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
                    simllm: Some(upstream.url.clone()),
                    upstream_ttft_ms: 0,
                    no_read_back: false,
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

/// Starts a tool that prints `listening on http://…`.
async fn announced(mut command: Command) -> anyhow::Result<Server> {
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let pid = child.id().context("it ended at once")?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let reading = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(url) = line.strip_prefix("listening on ") {
                return Ok(url.to_owned());
            }
        }
        bail!("it ended without a word")
    };
    let url = timeout(START_DEADLINE, reading)
        .await
        .context("it says nothing")??;
    Ok(Server { child, pid, url })
}

/// Starts Hubbub with a private database in the folder and the simulated upstream as its only one.
async fn start_hubbub(program: &Path, folder: &Path, upstream: &Server) -> anyhow::Result<Server> {
    // Freed again before Hubbub takes it; nobody else asks for ports in that moment.
    let listen = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let config = folder.join("hubbub.toml");
    std::fs::write(&config, configuration(&upstream.url))?;
    let log = std::fs::File::create(std::env::temp_dir().join("hubbub-load.log"))?;
    let child = Command::new(program)
        .args(["serve", "--demo", "--config"])
        .arg(&config)
        .args(["--listen", &listen.to_string(), "--data-dir"])
        .arg(folder.join("data"))
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let pid = child.id().context("hubbub ended at once")?;
    let mut server = Server {
        child,
        pid,
        url: format!("http://{listen}"),
    };
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(3))
        .build()?;
    let deadline = Instant::now() + READY_DEADLINE;
    let mut pace = interval(Duration::from_millis(100));
    loop {
        pace.tick().await;
        if let Some(status) = server.child.try_wait()? {
            bail!("hubbub ended with {status}; its log is hubbub-load.log in the temporary folder");
        }
        let answer = client.get(format!("{}/readyz", server.url)).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(server);
        }
        if Instant::now() > deadline {
            bail!("hubbub is not ready after {READY_DEADLINE:?}");
        }
    }
}

/// Hubbub's configuration: limits out of the way of the load, memory of left sessions freed soon.
fn configuration(upstream: &str) -> String {
    format!(
        "[llm]\ndefault_route = [\"sim\"]\nqueue_len = 20000\n\n\
         [limits]\nmessages_per_second = 100000\nmessages_burst = 100000\n\n\
         [session]\nidle_timeout_ms = 5000\n\n\
         [log]\nlevel = \"warn\"\n\n\
         [[upstreams]]\nname = \"sim\"\nbase_url = \"{upstream}/v1\"\nmodel = \"sim\"\nslots = 1000\n"
    )
}

/// Asks Hubbub to drain, as an orchestrator would, and kills it only when it does not.
async fn end(mut server: Server) {
    // The standard library cannot send SIGTERM, and unsafe code is forbidden: kill(1) can.
    let asked = Command::new("kill")
        .args(["-TERM", &server.pid.to_string()])
        .status()
        .await;
    let ended = timeout(STOP_DEADLINE, server.child.wait()).await;
    if asked.is_err() || ended.is_err() {
        say("hubbub did not end by itself");
        if let Err(error) = server.child.kill().await {
            say(&format!("hubbub cannot be killed: {error}"));
        }
    }
}

/// A temporary folder; removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("hubbub-load-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            say(&format!("{} stays behind: {error}", self.0.display()));
        }
    }
}
