//! A database that is there and takes no writes: read-only after a failover, or on a full disk.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hubbub_protocol::{ClientMessageId, ErrorCode, SessionId};
use serde_json::Value;

use crate::client::{Caller, Device};
use crate::server::{Setup, TestServer};

/// As long as a test waits for anything to come back.
const PATIENCE: Duration = Duration::from_secs(30);

fn setup() -> Setup {
    let setup = Setup::new().set("limits.messages_per_second", 10_000);
    setup.set("limits.messages_burst", 10_000)
}

async fn start(setup: Setup) -> TestServer {
    tokio::task::spawn_blocking(|| setup.start()).await.unwrap()
}

/// Waits until `/readyz` says this of the database; how long it took.
async fn becomes(server: &TestServer, state: &str) -> Duration {
    let (watch, started) = (Caller::with(server, None), Instant::now());
    loop {
        let ready = watch.get("/readyz").await;
        let told: Value = ready.json();
        assert_eq!(ready.status == 200, told["database"] == "ok", "{told}");
        if told["database"] == state {
            return started.elapsed();
        }
        assert!(started.elapsed() < PATIENCE, "still {told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends; every refusal says that it passes and when, and comes at once.
async fn assert_refused_at_once(device: &mut Device, session: SessionId, sends: usize) {
    for _ in 0..sends {
        let asked = Instant::now();
        let refused = device.say(session, "now?").await.unwrap_err();
        assert_eq!(refused.error.code, ErrorCode::Unavailable, "{refused:?}");
        assert!(refused.error.retry_after_ms.is_some(), "{refused:?}");
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
    }
}

/// Lines of the log at a level, with this in them.
fn lines(server: &TestServer, level: &str, text: &str) -> Vec<String> {
    let level = format!("\"level\":\"{level}\"");
    let log = server.log();
    let lines = log
        .lines()
        .filter(|line| line.contains(&level) && line.contains(text));
    lines.map(str::to_owned).collect()
}

async fn metric(server: &TestServer, series: &str) -> f64 {
    let text = Caller::with(server, None).get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap().trim().parse().unwrap()
}

/// One line for the beginning, one for the end, and no flood between them.
async fn assert_told_once(server: &TestServer, reason: &str) {
    let errors = lines(server, "ERROR", "");
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(
        errors[0].contains(&format!("\"reason\":\"{reason}\"")),
        "{errors:#?}"
    );
    let recovered = lines(server, "INFO", "takes writes again");
    assert_eq!(recovered.len(), 1, "{recovered:#?}");
    let warnings = lines(server, "WARN", "");
    assert!(warnings.len() <= 3, "{warnings:#?}");
    let series = format!("hubbub_db_outages_total{{reason=\"{reason}\"}}");
    assert!((metric(server, &series).await - 1.0).abs() < f64::EPSILON);
    assert!((metric(server, "hubbub_db_up").await - 1.0).abs() < f64::EPSILON);
}

// H6
#[tokio::test]
async fn a_database_that_becomes_read_only_is_a_state_and_ends_when_it_does() {
    let server = start(setup()).await;
    let bot = Caller::new(&server).bot(&[]).await;
    let mut device = Device::connect(&server).await;
    let session = device.open(bot).await.session;
    device.say(session, "before").await.unwrap();
    let database = server.database().await;
    let end_connections = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE application_name LIKE 'hubbub%'";
    // As after a failover: every connection is new, and finds a server that only reads.
    for sql in [
        "ALTER DATABASE hubbub SET default_transaction_read_only = on",
        end_connections,
    ] {
        database.batch_execute(sql).await.unwrap();
    }
    let took = becomes(&server, "read_only").await;
    println!("told after {took:?}");
    // Within two seconds; the rest is this machine's.
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_refused_at_once(&mut device, session, 50).await;
    let caller = Caller::new(&server);
    let body = serde_json::json!({"bot": bot});
    let problem = caller.post("/v1/sessions", &body).await.problem();
    assert_eq!(problem.code, ErrorCode::Unavailable);
    assert!(problem.retry_after_ms.is_some());
    assert!(metric(&server, "hubbub_db_up").await.abs() < f64::EPSILON);
    // Reading goes on.
    assert_eq!(caller.transcript(session).await.messages.len(), 1);
    becomes(&server, "read_only").await;

    // Connections opened meanwhile stay read-only: they must not be kept.
    database
        .batch_execute(
            "SET default_transaction_read_only = off; \
             ALTER DATABASE hubbub RESET default_transaction_read_only",
        )
        .await
        .unwrap();
    becomes(&server, "ok").await;
    let again = Instant::now();
    while let Err(refused) = device.say(session, "after").await {
        assert_eq!(refused.error.code, ErrorCode::Unavailable);
        assert!(again.elapsed() < PATIENCE, "not recovered");
    }
    assert_told_once(&server, "read_only").await;
}

// H6
#[tokio::test]
async fn a_database_that_is_told_to_be_read_only_is_noticed_without_a_send() {
    let server = start(setup()).await;
    let database = server.database().await;
    let set = async |value: &str| {
        let alter = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
        database
            .batch_execute("SET default_transaction_read_only = off")
            .await
            .unwrap();
        database.batch_execute(&alter).await.unwrap();
        database
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .unwrap();
    };
    set("on").await;
    let took = becomes(&server, "read_only").await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    set("off").await;
    becomes(&server, "ok").await;
    assert_told_once(&server, "read_only").await;
}

// H6
#[tokio::test]
async fn a_start_on_a_read_only_database_says_so() {
    let server = start(setup()).await;
    let database = server.database().await;
    database
        .batch_execute("ALTER DATABASE hubbub SET default_transaction_read_only = on")
        .await
        .unwrap();
    drop(database);
    let (status, log) = tokio::task::spawn_blocking(move || {
        let mut server = server;
        server.kill();
        server.begin_restart();
        (server.wait(PATIENCE), server.log())
    })
    .await
    .unwrap();
    assert_eq!(status.code(), Some(1));
    let last = log.lines().last().unwrap();
    assert!(
        last.starts_with("hubbub: ") && last.contains("the database is read-only"),
        "{last}"
    );
}

/// A small disk for the private database, and what fills it.
struct SmallDisk {
    mounted: PathBuf,
}

impl SmallDisk {
    fn of(folder: &Path) -> Self {
        Self {
            mounted: folder.join("postgres"),
        }
    }

    fn mount(folder: &Path) {
        let place = folder.join("postgres");
        std::fs::create_dir(&place).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=160m", "tmpfs"])
            .arg(&place)
            .status();
        assert!(mounted.unwrap().success());
    }

    fn is_possible() -> bool {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs"])
            .arg(folder.path())
            .output();
        let is_possible = mounted.is_ok_and(|output| output.status.success());
        if is_possible {
            unmount(folder.path());
        }
        is_possible
    }

    fn fill(&self) {
        let mut file = File::create(self.mounted.join("filling")).unwrap();
        let piece = vec![7; 64 * 1024];
        while file.write_all(&piece).is_ok() {}
        while file.write_all(&piece[..512]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.mounted.join("filling")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.mounted);
    }
}

fn unmount(place: &Path) {
    let done = Command::new("umount").arg("-l").arg(place).status();
    println!("unmounted: {done:?}");
}

// H22
#[tokio::test]
async fn a_full_disk_is_a_state_and_ends_when_there_is_room_again() {
    if !SmallDisk::is_possible() {
        println!("SKIPPED: a small disk cannot be mounted here");
        return;
    }
    let server = start(setup().prepare(SmallDisk::mount)).await;
    let disk = SmallDisk::of(&server.data_dir());
    let bot = Caller::new(&server).bot(&[]).await;
    let mut device = Device::connect(&server).await;
    let session = device.open(bot).await.session;
    let text = "x".repeat(15_000);
    device.say(session, &text).await.unwrap();
    disk.fill();
    let mut stored = 1;
    let started = Instant::now();
    // What pages there are may still take something.
    loop {
        let asked = Instant::now();
        let id = ClientMessageId::generate();
        let said = device.say_as(session, id, &text).await;
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        match said {
            Ok(_) => stored += 1,
            Err(refused) => {
                assert_eq!(refused.error.code, ErrorCode::Unavailable, "{refused:?}");
                break;
            }
        }
        assert!(started.elapsed() < PATIENCE, "the disk is not full");
    }
    let took = becomes(&server, "disk_full").await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        assert_refused_at_once(&mut device, session, 20).await;
        assert!(becomes(&server, "disk_full").await < Duration::from_secs(1));
    }
    assert!(metric(&server, "hubbub_db_up").await.abs() < f64::EPSILON);
    let page = Caller::new(&server).transcript(session).await;
    assert_eq!(page.messages.len(), stored);

    disk.free();
    becomes(&server, "ok").await;
    device.say(session, &text).await.unwrap();
    assert_told_once(&server, "disk_full").await;
}
