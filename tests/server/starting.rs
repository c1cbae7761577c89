//! The start: in any folder, under any umask, environment and user it works, or says in one sentence what
//! is wrong, where, and what to do; and then it leaves everything as it was.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::postgres;
use crate::program::{Program, Running, inventory, is_root};

/// Exists everywhere, owns nothing.
const NOBODY: u32 = 65_534;
/// Has no entry in /etc/passwd.
const NAMELESS: u32 = 41_234;

async fn assert_works(server: Running) {
    server.wait_until_ready().await;
    assert!(server.stop().success());
}

/// One sentence, and the folder in it.
fn assert_told(told: &str, parts: &[&str]) {
    assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    for part in parts {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
}

/// A folder of another user.
fn give(path: &Path, uid: u32) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    chown(path, Some(uid), Some(uid)).unwrap();
}

// H2
#[tokio::test]
async fn variables_of_others_do_not_reach_the_database() {
    let mut program = Program::new();
    for (name, value) in [
        ("PGPORT", "5433"),
        ("PGHOST", "nowhere.invalid"),
        ("PGDATA", "/nowhere"),
        ("PGUSER", "nobody"),
        ("PGDATABASE", "nothing"),
        ("PGOPTIONS", "-c nonsense=1"),
        ("PGTZ", "Nowhere/Land"),
        ("PGDATESTYLE", "German"),
        ("PGCLIENTENCODING", "NONSENSE"),
        ("LC_ALL", "xx_YY.ISO-8859-1"),
        ("LANG", "xx_YY"),
        ("LC_MESSAGES", "de_DE"),
        ("TZ", "Nowhere/Land"),
        ("TMPDIR", "/nowhere"),
        ("HUBBUB__UPSTREAMS__0__API_KEY", "secret-of-the-server"),
    ] {
        program = program.with(name, value);
    }
    let data = program.path("data");
    let server = program.serve(&data);
    server.wait_until_ready().await;
    let pid_file = std::fs::read_to_string(data.join("postgres/data/postmaster.pid")).unwrap();
    let pid = pid_file.lines().next().unwrap();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    for foreign in [
        "5433",
        "nowhere",
        "Nowhere",
        "xx_YY",
        "secret-of-the-server",
    ] {
        assert!(!environment.contains(foreign), "{environment}");
    }
    assert!(server.stop().success());
    // Also when there is a cluster already.
    assert_works(program.serve(&data)).await;
}

// H4
#[tokio::test]
async fn a_data_folder_may_have_any_name() {
    let names: [&[u8]; 4] = [
        b"with, comma",
        b"a 'quoted' \"name\" $HOME `x` %s \\ ; &",
        b"no \xff\xfe UTF-8",
        &[b'l'; 200],
    ];
    for name in names {
        let program = Program::new();
        let data = program.path(OsStr::from_bytes(name));
        let server = program.serve(&data);
        server.wait_until_ready().await;
        assert!(data.join("postgres/data/PG_VERSION").exists());
        let status = program.run(&data, &["migrate", "status"]);
        assert!(status.status.success(), "{status:?}");
        assert!(server.stop().success());
        assert_works(program.serve(&data)).await;
    }
}

// H4
#[tokio::test]
async fn a_data_folder_may_be_relative_a_link_or_deep() {
    let program = Program::new();
    let home = program.path("home");
    std::fs::create_dir_all(home.join("real")).unwrap();
    std::os::unix::fs::symlink("real", home.join("link")).unwrap();
    let program = program.from(home.clone());
    for name in ["new/and/deep", "link", "./new/../real"] {
        assert_works(program.serve(name)).await;
    }
    assert!(home.join("real/postgres/data/PG_VERSION").exists());
    // The cluster's own folder on another disk.
    std::fs::rename(home.join("real/postgres"), home.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", home.join("real/postgres")).unwrap();
    assert_works(program.serve("real")).await;
}

// H4
#[test]
fn what_cannot_be_a_data_folder_is_named() {
    let program = Program::new();
    let file = program.path("file");
    std::fs::write(&file, "").unwrap();
    let dangling = program.path("dangling");
    std::os::unix::fs::symlink("/nowhere/at/all", &dangling).unwrap();
    let below = file.join("below");
    let long = program.path("x/".repeat(480));
    let strange = program.path("two\nlines");
    for (data, sentence) in [
        (file.as_path(), "is not a folder"),
        (&below, "is not a folder"),
        (&dangling, "is a link to something that does not exist"),
        (Path::new("/proc/nothing"), "cannot be made"),
        (&long, "is too long a path"),
    ] {
        let told = program.refusal(data);
        let shown = if data == below { &file } else { data };
        assert_told(
            &told,
            &[
                sentence,
                "--data-dir",
                shown.to_str().unwrap().trim_end_matches('/'),
            ],
        );
    }
    assert!(program.refusal(&strange).contains("control character"));
    assert!(!strange.exists() && !program.path("x").exists());
    for (content, sentence) in [
        ("letter", "is not the data of a PostgreSQL"),
        ("PG_VERSION", "postgresql-9"),
    ] {
        let data = program.path("data");
        std::fs::create_dir_all(data.join("postgres/data")).unwrap();
        std::fs::write(data.join("postgres/data").join(content), "9\n").unwrap();
        let before = inventory(&data);
        assert_told(&program.refusal(&data), &[sentence]);
        assert_eq!(inventory(&data), before);
    }
}

/// A disk of its own, seen by the program alone.
fn disk(program: Program, options: &str) -> Option<Program> {
    let mount = program.path("disk");
    std::fs::create_dir_all(&mount).unwrap();
    let works = Command::new("unshare").args(["--mount", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("SKIPPED: no disk can be mounted here");
        return None;
    }
    let command = format!(
        "mount -t tmpfs -o {options} tmpfs '{}' && exec \"$0\" \"$@\"",
        mount.display()
    );
    Some(program.wrapped(&["unshare", "--mount", "sh", "-c", &command]))
}

// H4
#[test]
fn a_full_or_read_only_disk_is_named() {
    let program = Program::new();
    let data = program.path("disk").join("data");
    let Some(program) = disk(program, "size=4m,mode=755") else {
        return;
    };
    let told = program.refusal(&data);
    assert_told(&told, &["No space left on device", data.to_str().unwrap()]);
    let Some(program) = disk(Program::new(), "ro") else {
        return;
    };
    let data = program.path("disk").join("data");
    let told = program.refusal(&data);
    assert_told(&told, &["Read-only file system", data.to_str().unwrap()]);
}

// H3
#[tokio::test]
async fn root_leaves_another_users_folder_as_it_is() {
    if !is_root() {
        return;
    }
    let program = Program::new();
    let data = program.path("theirs");
    give(&data, NOBODY);
    let program = program.by_user(NOBODY);
    assert_works(program.serve(&data)).await;
    let before = inventory(&data);

    let program = program.by_ourselves();
    let told = program.refusal(&data);
    let cluster = data.join("postgres");
    assert_told(
        &told,
        &[
            "belongs to the user nobody",
            cluster.to_str().unwrap(),
            "chown",
        ],
    );
    assert_eq!(inventory(&data), before);
    let migrated = program.run(&data, &["migrate", "status"]);
    assert!(!migrated.status.success());
    assert_eq!(inventory(&data), before);

    let program = program.by_user(NOBODY);
    assert_works(program.serve(&data)).await;
    // And the other way round.
    let program = program.by_ourselves();
    let ours = program.path("ours");
    assert_works(program.serve(&ours)).await;
    let before = inventory(&ours);
    let program = program.by_user(NOBODY);
    let told = program.refusal(&ours);
    assert_told(
        &told,
        &["belongs to the user postgres", ours.to_str().unwrap()],
    );
    assert_eq!(inventory(&ours), before);
}

// H3
#[test]
fn a_folder_that_the_database_cannot_reach_stays_as_it_is() {
    if !is_root() {
        return;
    }
    let program = Program::new();
    let closed = program.path("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    for data in [closed.join("data"), closed.clone()] {
        let told = program.refusal(data);
        assert_told(
            &told,
            &[
                "cannot be entered by the user postgres",
                closed.to_str().unwrap(),
            ],
        );
        assert_eq!(inventory(&closed).len(), 1);
    }
}

// H3: a bind mount of a container, where root meets an empty folder of some user.
#[tokio::test]
async fn root_may_use_an_empty_folder_of_somebody() {
    if !is_root() {
        return;
    }
    let program = Program::new();
    let data = program.path("mounted");
    give(&data, 1_000);
    assert_works(program.serve(&data)).await;
    assert_eq!(data.metadata().unwrap().uid(), 1_000);
}

// H8
#[tokio::test]
async fn any_umask_will_do() {
    for umask in ["077", "000", "0777"] {
        let program = Program::new().after(&format!("umask {umask}"));
        let data = program.path("made/by/us");
        assert_works(program.serve(&data)).await;
        assert_works(program.serve(&data)).await;
        for made in [&data, &data.join("node"), &data.join("postgres/server.log")] {
            let mode = made.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o066, 0, "{}: {mode:o}", made.display());
        }
    }
    if is_root() {
        let program = Program::new();
        let data = program.path("theirs");
        give(&data, NOBODY);
        let program = program.by_user(NOBODY);
        assert_works(program.serve(data.join("deep/er"))).await;
    }
}

// H8
#[tokio::test]
async fn a_user_without_a_name_gets_a_server_or_one_sentence() {
    if !is_root() {
        return;
    }
    let program = Program::new();
    let data = program.path("theirs");
    give(&data, NAMELESS);
    let program = program.by_user(NAMELESS);
    let has_library = Command::new("sh")
        .args([
            "-c",
            "ls /usr/lib/libnss_wrapper.so /usr/lib/*/libnss_wrapper.so",
        ])
        .output()
        .is_ok_and(|output| !output.stdout.is_empty());
    if has_library {
        assert_works(program.serve(&data)).await;
    } else {
        let before = inventory(&data);
        let told = program.refusal(&data);
        assert_told(
            &told,
            &[&NAMELESS.to_string(), "libnss-wrapper", "/etc/passwd"],
        );
        assert_eq!(inventory(&data), before);
    }
    // With data made by somebody with a name, none is needed.
    let program = program.by_ourselves();
    let named = program.path("named");
    assert_works(program.serve(&named)).await;
    let owner = format!("{NAMELESS}:{NAMELESS}");
    let given = Command::new("chown")
        .args(["-R", &owner])
        .arg(&named)
        .status();
    assert!(given.unwrap().success());
    assert_works(program.by_user(NAMELESS).serve(&named)).await;
}

// H15
#[tokio::test]
async fn a_database_without_its_schema_is_waited_for() {
    let (cluster, _folder) = postgres::own_cluster().await;
    let owner = postgres::connect(&cluster.superuser_url("hubbub")).await;
    owner
        .batch_execute("CREATE ROLE hubbub_app LOGIN NOINHERIT")
        .await
        .unwrap();
    let host = cluster
        .socket_dir()
        .display()
        .to_string()
        .replace('/', "%2F");
    let url = |user: &str| format!("\"postgres://{user}@{host}/hubbub\"");
    let program = Program::new().set("database.url", &url("hubbub_app"));
    let data = program.path("data");
    let server = program.serve(&data);
    for _ in 0..3 {
        let (status, body) = server.get("/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("\"wrong_schema\""), "{body}");
        assert_eq!(server.get("/livez").await.0, 200);
    }
    let (status, body) = server.get("/v1/sessions").await;
    assert_eq!(status, 503);
    assert!(body.contains("\"unavailable\""), "{body}");

    // A version between, and then the right one.
    let migrating = Program::new()
        .set("database.url", &url("hubbub_app"))
        .set("database.migration_url", &url("postgres"));
    let migrate = |arguments: &[&str]| {
        let output = migrating.run(&data, &[&["migrate"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
    };
    migrate(&["up"]);
    server.wait_until_ready().await;
    assert_eq!(server.log().matches("run hubbub migrate up").count(), 1);
    assert!(server.stop().success());

    migrate(&["down"]);
    let server = program.serve(&data);
    assert_eq!(server.get("/readyz").await.0, 503);
    migrate(&["up"]);
    server.wait_until_ready().await;
    assert!(server.stop().success());

    // A newer one than the program knows; and a server that is told to stop while it waits.
    owner
        .batch_execute(
            "INSERT INTO hubbub_migrations (version, name, sha256) VALUES (9999, 'future', '\\x00')",
        )
        .await
        .unwrap();
    let server = program.serve(&data);
    let (status, body) = server.get("/readyz").await;
    assert!(status == 503 && body.contains("wrong_schema"), "{body}");
    assert!(server.log().contains("start the newer version"));
    assert!(server.stop().success());
    cluster.stop().await;
}
