//! The program as a person starts it: with any arguments, environment, user and folder.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use crate::server::{PROGRAM, send_signal};
use crate::watchdog::OwnFolder;

/// Start and stop of server and database, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// One way to call the program.
pub struct Program {
    folder: OwnFolder,
    wrapper: Vec<OsString>,
    program: OsString,
    environment: Vec<(OsString, OsString)>,
    work_dir: Option<PathBuf>,
    settings: String,
}

impl Program {
    /// In a folder of its own.
    pub fn new() -> Self {
        Self {
            folder: OwnFolder::new(),
            wrapper: Vec::new(),
            program: PROGRAM.into(),
            environment: Vec::new(),
            work_dir: None,
            settings: String::new(),
        }
    }

    /// A path in the folder.
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.path().join(name.as_ref())
    }

    /// Called by another program, which is given the whole command line.
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// Called by a shell, after `commands`.
    pub fn after(self, commands: &str) -> Self {
        self.wrapped(&["sh", "-c", &format!("{commands} && exec \"$0\" \"$@\"")])
    }

    /// Run by another user, who can reach the program and own the folder `data`.
    pub fn by_user(mut self, uid: u32) -> Self {
        // The one under test may be where only its owner can go.
        let copy = self.path("hubbub");
        if !copy.exists() {
            std::fs::copy(PROGRAM, &copy).unwrap();
            std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        self.program = copy.into();
        let id = uid.to_string();
        self.wrapped(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"])
    }

    /// Run by ourselves again.
    pub fn by_ourselves(mut self) -> Self {
        self.wrapper.clear();
        self
    }

    /// With a variable.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// From another folder.
    pub fn from(mut self, folder: PathBuf) -> Self {
        self.work_dir = Some(folder);
        self
    }

    /// A line of `section.key = value`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        writeln!(self.settings, "{key} = {value}").unwrap();
        self
    }

    fn command(&self, data_dir: &OsStr, arguments: &[&str]) -> Command {
        let config = self.path("hubbub.toml");
        let text = format!(
            "{}model.enabled = false\nlog.format = \"json\"\n[[upstreams]]\nname = \"none\"\n\
             base_url = \"http://127.0.0.1:1/v1\"\nmodel = \"none\"\n",
            self.settings
        );
        std::fs::write(&config, text).unwrap();
        let line: Vec<&OsStr> = self
            .wrapper
            .iter()
            .map(OsString::as_os_str)
            .chain([self.program.as_os_str()])
            .collect();
        let mut command = Command::new(line[0]);
        command
            .args(&line[1..])
            .arg("--config")
            .arg(config)
            .arg("--data-dir")
            .arg(data_dir)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        if let Some(folder) = &self.work_dir {
            command.current_dir(folder);
        }
        command
    }

    /// Runs it to its end.
    pub fn run(&self, data_dir: impl AsRef<OsStr>, arguments: &[&str]) -> Output {
        self.command(data_dir.as_ref(), arguments).output().unwrap()
    }

    /// A server that does not start; what it says beside its log.
    pub fn refusal(&self, data_dir: impl AsRef<OsStr>) -> String {
        let output = self.run(data_dir, &["serve", "--listen", "127.0.0.1:0"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let lines = told.lines().filter(|line| !line.starts_with('{'));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// A server that listens.
    pub fn serve(&self, data_dir: impl AsRef<OsStr>) -> Running {
        let log = self.path("log");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut child = self
            .command(data_dir.as_ref(), &["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .unwrap();
        std::fs::write(self.path("server.pid"), child.id().to_string()).unwrap();
        let out = child.stdout.take().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _nobody_listens = sender.send(line);
            }
        });
        let address = loop {
            let Ok(line) = lines.recv_timeout(PATIENCE) else {
                let _gone = child.kill();
                let _gone = child.wait();
                panic!(
                    "the server did not start:\n{}",
                    std::fs::read_to_string(&log).unwrap()
                );
            };
            if let Some(url) = line.strip_prefix("Hubbub listens on http://") {
                break url.parse().unwrap();
            }
        };
        Running {
            child,
            address,
            log,
        }
    }
}

/// A server that was started so.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    log: PathBuf,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Status and text of the answer to a GET.
    pub async fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).await.unwrap()
    }

    async fn try_get(&self, path: &str) -> Result<(u16, String), reqwest::Error> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client.get(format!("http://{}{path}", self.address));
        let answer = answer.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Waits until `/readyz` says so.
    pub async fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        // A connection may be cut as the server that waits for its schema makes way for the whole one.
        while !self
            .try_get("/readyz")
            .await
            .is_ok_and(|(status, _)| status == 200)
        {
            assert!(Instant::now() < deadline, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops it in order.
    pub fn stop(mut self) -> ExitStatus {
        send_signal(self.pid(), "TERM");
        self.child.wait().unwrap()
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The living processes that name a folder in their command line or work in it, but for the shell that
/// watches over the test.
pub fn processes_of(folder: &Path) -> Vec<(u32, String)> {
    let folder = folder.as_os_str().as_bytes();
    let names = |text: &[u8]| text.windows(folder.len()).any(|part| part == folder);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let work_dir = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if line.starts_with(b"sh\0") || pid == std::process::id() {
            continue;
        }
        if names(&line) || names(work_dir.as_os_str().as_bytes()) {
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// Waits until nothing of a folder runs any more; how long that took.
pub fn wait_until_gone(folder: &Path) -> Duration {
    let start = Instant::now();
    loop {
        let left = processes_of(folder);
        if left.is_empty() {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Everything below a folder: path, kind, owner, mode and time of the last change of each.
pub fn inventory(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        all.push(format!(
            "{} {:o} {}:{} {}.{}",
            path.display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        ));
        if meta.is_dir() {
            open.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all.sort();
    all
}

/// Whether tests may become another user. Said aloud where not, because then it is not tested.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("SKIPPED: only root can start programs as other users");
    }
    is_root
}
