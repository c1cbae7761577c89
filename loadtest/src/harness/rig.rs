//! Servers of the harness's own: simulated upstreams, and Hubbub with a private database.
//!
//! Every server is a child that is killed with the harness. Hubbub gets a temporary data folder, which goes
//! with it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hubbub_protocol::BotId;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, timeout};

use super::target::{Target, TargetArguments, say};

/// Longest wait for a small server's first words.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// Longest wait for Hubbub to be ready: a fresh data folder means a fresh database cluster.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// Longest wait for Hubbub to end by itself: its own limit is 25 s.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Where the programs are.
#[derive(Clone, Debug, clap::Args)]
pub struct Programs {
    /// The `hubbub` binary. Default: the one beside the harness; for `run` none, which leaves the bare reference.
    #[arg(long)]
    pub hubbub: Option<PathBuf>,
    /// Folder of `simllm`; the harness's own by default.
    #[arg(long)]
    pub tools: Option<PathBuf>,
}

impl Programs {
    /// The `hubbub` binary.
    ///
    /// # Errors
    /// When the harness does not know where it is.
    pub fn hubbub(&self) -> anyhow::Result<PathBuf> {
        match &self.hubbub {
            Some(program) => Ok(program.clone()),
            None => Ok(self.tools()?.join("hubbub")),
        }
    }

    /// The folder of the harness's other programs.
    ///
    /// # Errors
    /// When the harness does not know where it is.
    pub fn tools(&self) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.tools {
            return Ok(folder.clone());
        }
        let own = std::env::current_exe().context("where is the harness?")?;
        Ok(own.parent().context("where is the harness?")?.to_owned())
    }
}

/// A child that is killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its process.
    pub pid: u32,
    /// `http://host:port`.
    pub url: String,
}

impl Server {
    /// Starts the bare reference in front of an upstream.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn bare(programs: &Programs, upstream: &Upstream) -> anyhow::Result<Self> {
        let mut command = Command::new(programs.tools()?.join("bare"));
        let url = format!("{}/v1", upstream.server.url);
        command.args(["--listen", "127.0.0.1:0", "--upstream", &url]);
        Self::tool(command).await.context("bare")
    }

    /// Starts a tool that prints `listening on http://…`.
    ///
    /// # Errors
    /// When it does not.
    pub async fn tool(mut command: Command) -> anyhow::Result<Self> {
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
        Ok(Self { child, pid, url })
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("it cannot be killed")
    }

    /// Asks it to end, as an orchestrator would, and kills it only when it does not.
    pub async fn end(mut self) {
        // The standard library cannot send SIGTERM, and unsafe code is forbidden: kill(1) can.
        let asked = Command::new("kill")
            .args(["-TERM", &self.pid.to_string()])
            .status()
            .await;
        let ended = timeout(STOP_DEADLINE, self.child.wait()).await;
        if asked.is_err() || ended.is_err() {
            say("hubbub did not end by itself");
            if let Err(error) = self.child.kill().await {
                say(&format!("hubbub cannot be killed: {error}"));
            }
        }
    }
}

/// A simulated upstream as Hubbub is told of it.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: String,
    /// Most requests at once.
    pub slots: u32,
    /// The running program.
    pub server: Server,
}

impl Upstream {
    /// Starts one; `arguments` are `simllm`'s.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(
        programs: &Programs,
        name: &str,
        slots: u32,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let mut simllm = Command::new(programs.tools()?.join("simllm"));
        if !arguments
            .iter()
            .any(|argument| argument.starts_with("--listen"))
        {
            simllm.args(["--listen", "127.0.0.1:0"]);
        }
        simllm.args(["--seed", "1"]).args(arguments);
        let server = Server::tool(simllm).await.context("simllm")?;
        Ok(Self {
            name: name.to_owned(),
            slots,
            server,
        })
    }
}

/// Hubbub, running.
#[derive(Debug)]
pub struct Hubbub {
    /// The process.
    pub server: Server,
    program: PathBuf,
    folder: Folder,
}

/// What `hubbub tenant create` and `hubbub key create` print.
#[derive(Deserialize)]
struct Created {
    id: String,
    #[serde(default)]
    key: String,
}

impl Hubbub {
    /// Starts it with these upstreams and further lines of configuration, `section.key = value`.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(
        program: &Path,
        upstreams: impl IntoIterator<Item = &Upstream>,
        settings: &str,
    ) -> anyhow::Result<Self> {
        let folder = Folder::create()?;
        // Freed again before Hubbub takes it; nobody else asks for ports in that moment.
        let listen = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let config = folder.0.join("hubbub.toml");
        std::fs::write(&config, configuration(upstreams, settings)?)?;
        let log = std::fs::File::create(std::env::temp_dir().join("hubbub-load.log"))?;
        let child = Command::new(program)
            .args(["serve", "--demo", "--config"])
            .arg(&config)
            .args(["--listen", &listen.to_string(), "--data-dir"])
            .arg(folder.0.join("data"))
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("hubbub ended at once")?;
        let server = Server {
            child,
            pid,
            url: format!("http://{listen}"),
        };
        let mut hubbub = Self {
            server,
            program: program.to_owned(),
            folder,
        };
        hubbub.ready().await?;
        Ok(hubbub)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(3))
            .build()?;
        let deadline = Instant::now() + READY_DEADLINE;
        let mut pace = interval(Duration::from_millis(100));
        loop {
            pace.tick().await;
            if let Some(status) = self.server.child.try_wait()? {
                bail!(
                    "hubbub ended with {status}; its log is hubbub-load.log in the temporary folder"
                );
            }
            let answer = client
                .get(format!("{}/readyz", self.server.url))
                .send()
                .await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("hubbub is not ready after {READY_DEADLINE:?}");
            }
        }
    }

    /// The demo tenant.
    ///
    /// # Errors
    /// When there is none.
    pub fn demo(&self, connect_rate: u32) -> anyhow::Result<Target> {
        let demo = self.folder.0.join("data/demo.json");
        target(&self.server, Some(demo), connect_rate)
    }

    /// A new tenant with a key and a bot that answers.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn tenant(
        &self,
        name: &str,
        weight: u32,
        connect_rate: u32,
    ) -> anyhow::Result<Target> {
        let weight = weight.to_string();
        let tenant = self
            .command(&["tenant", "create", name, "--weight", &weight])
            .await?;
        let key = self
            .command(&["key", "create", "--tenant", &tenant.id, "--name", "load"])
            .await?
            .key;
        let mut target = Target::new(&TargetArguments {
            api_key: key,
            // Known in a moment.
            bot: Some(BotId::generate()),
            ..arguments(&self.server, connect_rate)
        })?;
        target.bot = super::api::Api::new(&target)?.bot(true).await?;
        Ok(target)
    }

    async fn command(&self, arguments: &[&str]) -> anyhow::Result<Created> {
        let output = Command::new(&self.program)
            .args(arguments)
            .args(["--json", "--config"])
            .arg(self.folder.0.join("hubbub.toml"))
            .arg("--data-dir")
            .arg(self.folder.0.join("data"))
            .output()
            .await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("hubbub {}: {said}", arguments.join(" "));
        }
        serde_json::from_slice(&output.stdout).context("not what hubbub prints as JSON")
    }

    /// Ends it in order, before its folder goes: its database lives there.
    pub async fn end(self) {
        let Self { server, folder, .. } = self;
        server.end().await;
        drop(folder);
    }
}

fn arguments(server: &Server, connect_rate: u32) -> TargetArguments {
    TargetArguments {
        url: Some(server.url.clone()),
        api_key: String::new(),
        bot: None,
        bare: false,
        demo: None,
        server_pid: Some(server.pid),
        connect_rate,
        report: None,
    }
}

/// A server as scenarios see it; without a demo it is the bare reference.
///
/// # Errors
/// When the demo cannot be read.
pub fn target(server: &Server, demo: Option<PathBuf>, connect_rate: u32) -> anyhow::Result<Target> {
    Target::new(&TargetArguments {
        bare: demo.is_none(),
        demo,
        ..arguments(server, connect_rate)
    })
}

/// Hubbub's configuration: limits out of the way of the load, memory of left sessions freed soon.
fn configuration<'a>(
    upstreams: impl IntoIterator<Item = &'a Upstream>,
    settings: &str,
) -> anyhow::Result<String> {
    let mut text = format!(
        "{settings}\n\
         limits.messages_per_second = 100000\nlimits.messages_burst = 100000\n\
         session.idle_timeout_ms = 5000\nlog.level = \"warn\"\n\n"
    );
    for Upstream {
        name,
        slots,
        server,
    } in upstreams
    {
        writeln!(
            text,
            "[[upstreams]]\nname = \"{name}\"\nbase_url = \"{}/v1\"\nmodel = \"sim\"\n\
             slots = {slots}\ngroup = \"sim\"\ncontext_tokens = 100000\n",
            server.url
        )?;
    }
    Ok(text)
}

/// A temporary folder; removed when dropped.
#[derive(Debug)]
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
