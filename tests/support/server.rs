//! The real program, with a PostgreSQL of its own and simulated upstreams. Dies with the test process,
//! however that ends.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::{self, Behaviour, Mode, SimLlm};
use hubbub_protocol::http::Demo;
use tokio::runtime::Runtime;

use crate::watchdog::OwnFolder;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_hubbub");

/// Start and stop of server and database, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Outlives every test's own runtime: what upstreams run on.
static UPSTREAMS: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
});

static SHARED: OnceLock<TestServer> = OnceLock::new();

/// Tokens of the shared server's answers.
pub const TOKENS: u32 = 24;

/// An upstream that answers quickly.
pub fn quick() -> Behaviour {
    Behaviour {
        ttft_ms: 10,
        token_interval_ms: 3,
        tokens: TOKENS,
        ..Behaviour::default()
    }
}

/// An upstream that does wrong.
pub fn spoiled(mode: Mode) -> Behaviour {
    Behaviour { mode, ..quick() }
}

/// What a server under test is started with.
#[derive(Clone, Default)]
pub struct Setup {
    upstreams: Vec<(String, Behaviour)>,
    /// Upstreams of the test's own: name, base URL, and what they speak.
    endpoints: Vec<(String, String, String)>,
    settings: String,
    open_files: Option<u32>,
    prepare: Option<fn(&std::path::Path)>,
}

impl Setup {
    /// One quick upstream, `sim`, first on every route; limits out of the way.
    pub fn new() -> Self {
        Self::default().upstream("sim", quick())
    }

    /// No upstream yet.
    pub fn upstream(mut self, name: &str, behaviour: Behaviour) -> Self {
        self.upstreams.push((name.to_owned(), behaviour));
        self
    }

    /// An upstream that the test serves itself.
    pub fn endpoint(self, name: &str, base_url: &str) -> Self {
        self.speaking(name, base_url, "openai")
    }

    /// The same, which speaks another dialect.
    pub fn speaking(mut self, name: &str, base_url: &str, api: &str) -> Self {
        let endpoint = [name, base_url, api].map(str::to_owned).into();
        self.endpoints.push(endpoint);
        self
    }

    /// A line of `section.key = value`.
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        writeln!(self.settings, "{key} = {value}").unwrap();
        self
    }

    /// Most files the server may have open.
    pub fn open_files(mut self, most: u32) -> Self {
        self.open_files = Some(most);
        self
    }

    /// Does this to the data folder before the first start.
    pub fn prepare(mut self, prepare: fn(&std::path::Path)) -> Self {
        self.prepare = Some(prepare);
        self
    }

    /// Starts a server.
    pub fn start(self) -> TestServer {
        TestServer::start(self)
    }
}

/// A running server.
pub struct TestServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its demo tenant.
    pub demo: Demo,
    child: Child,
    upstreams: Vec<(String, SimLlm)>,
    folder: OwnFolder,
}

/// The server that tests share which break nothing. Bad upstreams are there by name, for bots' routes.
pub async fn shared() -> &'static TestServer {
    tokio::task::spawn_blocking(|| {
        SHARED.get_or_init(|| {
            Setup::new()
                .upstream("error", spoiled(Mode::Error))
                .upstream("busy", spoiled(Mode::Busy))
                .upstream("hang", spoiled(Mode::Hang))
                .upstream("garbage", spoiled(Mode::Garbage))
                .upstream("half", spoiled(Mode::Half))
                .upstream(
                    "steady",
                    Behaviour {
                        token_interval_ms: 20,
                        tokens: 60,
                        ..quick()
                    },
                )
                .set("limits.messages_per_second", 100_000)
                .set("limits.messages_burst", 100_000)
                .set("limits.tickets_per_minute_per_ip", 100_000)
                .set("limits.tickets_per_minute_per_bot", 100_000)
                .set("limits.sessions_per_minute_per_ip", 100_000)
                .set("limits.sessions_per_minute_per_visitor", 100_000)
                .set("llm.default_route", "[\"sim\"]")
                .set("server.trusted_origins", "[\"https://trusted.example\"]")
                .start()
        })
    })
    .await
    .unwrap()
}

impl TestServer {
    fn start(setup: Setup) -> Self {
        let folder = OwnFolder::new();
        let mut upstreams = Vec::new();
        // Dotted keys come before the first table.
        let mut config = setup.settings.clone();
        config.push_str("model.enabled = false\nlog.format = \"json\"\nlog.level = \"info\"\n");
        for (name, behaviour) in setup.upstreams {
            let entered = UPSTREAMS.enter();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let upstream = simllm::serve(listener, behaviour).unwrap();
            drop(entered);
            write_upstream(&mut config, &name, &upstream.base_url(), "openai", 1_500);
            upstreams.push((name, upstream));
        }
        for (name, base_url, api) in setup.endpoints {
            write_upstream(&mut config, &name, &base_url, &api, 20_000);
        }
        std::fs::write(config_file(&folder), config).unwrap();
        if let Some(prepare) = setup.prepare {
            prepare(&folder.path());
        }
        let (child, address) = spawn(&folder, setup.open_files);
        let demo = read_demo(&folder);
        Self {
            address,
            demo,
            child,
            upstreams,
            folder,
        }
    }

    /// An upstream by its name.
    pub fn upstream(&self, name: &str) -> &SimLlm {
        &self
            .upstreams
            .iter()
            .find(|(known, _)| known == name)
            .unwrap()
            .1
    }

    /// Ends an upstream: its port is closed.
    pub fn stop_upstream(&mut self, name: &str) {
        self.upstreams.retain(|(known, _)| known != name);
    }

    /// A URL of the server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of its PostgreSQL.
    pub fn database_pid(&self) -> Option<u32> {
        let file = std::fs::read_to_string(self.postmaster()).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    fn postmaster(&self) -> PathBuf {
        self.folder.path().join("postgres/data/postmaster.pid")
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path()
    }

    /// A connection to its database as the superuser.
    pub async fn database(&self) -> tokio_postgres::Client {
        let file = std::fs::read_to_string(self.postmaster()).unwrap();
        let socket_dir = file.lines().nth(4).unwrap();
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(socket_dir)
            .user("postgres")
            .dbname("hubbub")
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap();
        // Ends with the client.
        tokio::spawn(connection);
        client
    }

    /// Kills it as the kernel would: it has no time for anything. Its database stays.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same folder, at another port.
    pub fn restart(&mut self) {
        (self.child, self.address) = spawn(&self.folder, None);
        self.demo = read_demo(&self.folder);
    }

    /// Begins to start it again, and waits for nothing.
    pub fn begin_restart(&mut self) {
        (self.child, _) = launch(&self.folder, None);
    }

    /// Sends a signal, such as `TERM`, to it.
    pub fn signal(&self, signal: &str) {
        send_signal(self.pid(), signal);
    }

    /// Waits for it to end.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the server still runs after {within:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_file(&self.folder)).unwrap_or_default()
    }

    /// Resident memory of its process, in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(25).collect();
            for line in tail.iter().rev() {
                println!("server: {line}");
            }
        }
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn write_upstream(config: &mut String, name: &str, base_url: &str, api: &str, silence_ms: u32) {
    write!(
        config,
        "[[upstreams]]\nname = \"{name}\"\nbase_url = \"{base_url}\"\napi = \"{api}\"\nmodel = \"sim\"\nslots = 256\n\
         context_tokens = 100000\nfirst_token_timeout_ms = {silence_ms}\n\
         token_timeout_ms = {silence_ms}\nconnect_timeout_ms = 500\n"
    )
    .unwrap();
}

/// Sends a signal to a process.
pub fn send_signal(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
    assert!(status.unwrap().success(), "kill -{signal} {pid}");
}

fn config_file(folder: &OwnFolder) -> PathBuf {
    folder.path().join("hubbub.toml")
}

fn log_file(folder: &OwnFolder) -> PathBuf {
    folder.path().join("server.log")
}

fn read_demo(folder: &OwnFolder) -> Demo {
    let text = std::fs::read_to_string(folder.path().join("demo.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Starts the program; answers it and the lines it prints.
fn launch(folder: &OwnFolder, open_files: Option<u32>) -> (Child, Receiver<String>) {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_file(folder))
        .unwrap();
    let mut command = match open_files {
        None => Command::new(PROGRAM),
        Some(most) => {
            let mut shell = Command::new("sh");
            let limited = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
            shell.args(["-c", limited.as_str(), PROGRAM]);
            shell
        }
    };
    let mut child = command
        .args(["serve", "--demo", "--listen", "127.0.0.1:0", "--config"])
        .arg(config_file(folder))
        .arg("--data-dir")
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    std::fs::write(folder.path().join("server.pid"), child.id().to_string()).unwrap();
    let out = child.stdout.take().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    // Reads to the end, so that the server never blocks on its own words.
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _nobody_listens = sender.send(line);
        }
    });
    (child, lines)
}

/// Starts the program and waits until it listens.
fn spawn(folder: &OwnFolder, open_files: Option<u32>) -> (Child, SocketAddr) {
    let (mut child, lines) = launch(folder, open_files);
    let deadline = Instant::now() + PATIENCE;
    let mut address = None;
    // The demo's file is written before the last line is.
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).unwrap_or_else(|_| {
            let _gone = child.kill();
            let _gone = child.wait();
            let log = std::fs::read_to_string(log_file(folder)).unwrap_or_default();
            panic!("the server did not start:\n{log}");
        });
        if let Some(url) = line.strip_prefix("Hubbub listens on http://") {
            address = Some(url.parse().unwrap());
        }
        if let Some(address) = address {
            return (child, address);
        }
    }
}
