//! Real PostgreSQL for tests: one cluster a test process, one database a test, cloned from a migrated
//! template. Dies with the test process, however that ends.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use hubbub_storage::private::{PrivateCluster, PrivateOptions};
use hubbub_storage::{DatabaseUrl, Storage, StorageConfig, migrations};
use tokio_postgres::{Client, NoTls};

pub use crate::watchdog::OwnFolder;

/// The name of the migrated database that others are cloned from.
const TEMPLATE: &str = "hubbub_template";

struct Shared {
    cluster: PrivateCluster,
    clone: tokio::sync::Mutex<()>,
    _folder: OwnFolder,
}

static SHARED: OnceLock<Shared> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A database of a test's own.
pub struct TestDatabase {
    /// Its name.
    pub name: String,
    /// For `Storage::connect`, already migrated.
    pub config: StorageConfig,
    /// As the superuser.
    pub owner_url: DatabaseUrl,
}

/// A migrated, empty database.
pub async fn database() -> TestDatabase {
    create(Some(TEMPLATE)).await
}

/// A database without a schema.
pub async fn empty_database() -> TestDatabase {
    create(None).await
}

async fn create(template: Option<&str>) -> TestDatabase {
    let shared = tokio::task::spawn_blocking(shared).await.unwrap();
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let owner = connect(&shared.cluster.superuser_url("postgres")).await;
    let template = template.unwrap_or("template1");
    // A template may be cloned once at a time.
    let guard = shared.clone.lock().await;
    owner
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
        .await
        .unwrap();
    drop(guard);
    TestDatabase {
        config: StorageConfig::new(shared.cluster.app_url(&name)),
        owner_url: shared.cluster.superuser_url(&name),
        name,
    }
}

impl TestDatabase {
    /// Storage on it.
    pub async fn storage(&self) -> Storage {
        Storage::connect(&self.config).await.unwrap()
    }

    /// A plain connection as the superuser.
    pub async fn owner(&self) -> Client {
        connect(&self.owner_url).await
    }

    /// A plain connection as the server's role.
    pub async fn app(&self) -> Client {
        connect(&self.config.url).await
    }

    /// The schema as `pg_dump` writes it.
    pub fn dump_schema(&self) -> String {
        let socket_dir = socket_dir();
        let output = Command::new("pg_dump")
            .args([
                "--schema-only",
                "--username=postgres",
                "--dbname",
                &self.name,
                "--host",
            ])
            .arg(socket_dir)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let dump = String::from_utf8(output.stdout).unwrap();
        // Newer versions write a random key into each dump.
        dump.lines()
            .filter(|line| !line.contains("restrict "))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The folder of the shared cluster's socket.
pub fn socket_dir() -> PathBuf {
    SHARED.get().unwrap().cluster.socket_dir()
}

/// A plain connection.
pub async fn connect(url: &DatabaseUrl) -> Client {
    let (client, connection) = url.parse().unwrap().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A cluster in a folder of its own, which a test may stop and kill.
pub async fn own_cluster() -> (PrivateCluster, OwnFolder) {
    let folder = OwnFolder::new();
    (start(folder.path()).await, folder)
}

/// Starts a cluster in `folder`, without waiting for the disk.
pub async fn start(folder: PathBuf) -> PrivateCluster {
    let options = PrivateOptions::new(folder)
        .setting("fsync", "off")
        .setting("shared_buffers", "64MB")
        .setting("max_connections", "100");
    PrivateCluster::start(options).await.unwrap()
}

fn shared() -> &'static Shared {
    SHARED.get_or_init(|| {
        let folder = OwnFolder::new();
        let path = folder.path();
        let (sender, receiver) = std::sync::mpsc::channel();
        // A runtime that outlives every test's own: it watches the cluster.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let cluster = start(path).await;
                let owner = connect(&cluster.superuser_url("postgres")).await;
                owner
                    .batch_execute(&format!("CREATE DATABASE {TEMPLATE}"))
                    .await
                    .unwrap();
                let url = cluster.superuser_url(TEMPLATE);
                migrations::up(&cluster.database_config(), &url)
                    .await
                    .unwrap();
                sender.send(cluster).unwrap();
                std::future::pending::<()>().await;
            });
        });
        let cluster = receiver.recv().unwrap();
        Shared {
            cluster,
            clone: tokio::sync::Mutex::new(()),
            _folder: folder,
        }
    })
}
