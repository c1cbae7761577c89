//! The schema's versions: up, down, and who has which.
//!
//! Run at start, and by `hubbub migrate`. Each migration is one transaction together with its row in
//! `hubbub_migrations`, so a killed server leaves whole versions only. A polled advisory lock on a
//! connection of its own lets several servers start at once; it goes with the connection.

pub mod error;
mod files;
mod loss;

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Row};

use crate::cause::describe;
use crate::fields::Fields;
use crate::{DatabaseUrl, StorageConfig, StorageError, pool, tls};
pub use error::MigrationError;
pub use files::{EXPECTED_VERSION, MIGRATIONS, Migration};
pub use loss::{LiveNodes, Loss, Lost, live_nodes, loss_of_down};

/// Every server of every version must use this number: "hubbub" in ASCII.
const LOCK_KEY: i64 = 0x6875_6262_7562;
const LOCK_POLL: Duration = Duration::from_millis(100);
/// Makes partitions of `messages` for the coming months.
pub(crate) const MAKE_PARTITIONS: &str = "SELECT create_message_partitions(12)";

const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS hubbub_migrations ( \
    version bigint PRIMARY KEY, name text NOT NULL, sha256 bytea NOT NULL, \
    applied_at timestamptz NOT NULL DEFAULT now())";
const LIST: &str =
    "SELECT version, name, sha256, applied_at FROM hubbub_migrations ORDER BY version";
const HAS_TABLE: &str = "SELECT to_regclass('hubbub_migrations') IS NOT NULL AS present";
const INSERT: &str = "INSERT INTO hubbub_migrations (version, name, sha256) VALUES ($1, $2, $3)";
const DELETE: &str = "DELETE FROM hubbub_migrations WHERE version = $1";

/// One migration, and whether the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// When it was applied; `None`: not yet.
    pub applied_at: Option<hubbub_protocol::Timestamp>,
    /// What the program makes of it.
    pub file: FileMatch,
}

/// Whether an applied migration is the program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileMatch {
    /// It is.
    Same,
    /// The program's was edited after it was applied.
    Edited,
    /// The program has none: a newer version applied it.
    Unknown,
}

/// Applies what is missing, and makes the coming months' partitions. Returns the versions applied.
///
/// # Errors
/// [`StorageError::Migration`], or the database could not.
pub async fn up(config: &StorageConfig, url: &DatabaseUrl) -> Result<Vec<i64>, StorageError> {
    up_with(config, url, MIGRATIONS).await
}

/// As [`up`], with other migrations than the program's own.
///
/// # Errors
/// As [`up`].
pub async fn up_with(
    config: &StorageConfig,
    url: &DatabaseUrl,
    migrations: &[Migration],
) -> Result<Vec<i64>, StorageError> {
    let mut session = Session::open(config, url).await?;
    session.work.batch_execute(CREATE_TABLE).await?;
    let applied = session.applied(migrations).await?;
    let mut done = Vec::new();
    for migration in migrations.iter().skip(applied.len()) {
        session.apply(migration).await?;
        tracing::info!(
            version = migration.version,
            name = migration.name,
            "migration applied"
        );
        done.push(migration.version);
    }
    if migrations.len() == MIGRATIONS.len() {
        session.work.execute(MAKE_PARTITIONS, &[]).await?;
    }
    Ok(done)
}

/// Takes the newest `steps` migrations back. Returns the versions, newest first.
///
/// # Errors
/// [`StorageError::Migration`], or the database could not.
pub async fn down(
    config: &StorageConfig,
    url: &DatabaseUrl,
    steps: usize,
) -> Result<Vec<i64>, StorageError> {
    let mut session = Session::open(config, url).await?;
    let applied = session.applied(MIGRATIONS).await?;
    let mut done = Vec::new();
    for migration in MIGRATIONS.iter().take(applied.len()).rev().take(steps) {
        session.revert(migration).await?;
        tracing::info!(
            version = migration.version,
            name = migration.name,
            "migration reverted"
        );
        done.push(migration.version);
    }
    Ok(done)
}

/// Every migration that the program or the database knows, and when the database got it. Changes nothing
/// and waits for nobody.
///
/// # Errors
/// The database could not.
pub async fn status(
    config: &StorageConfig,
    url: &DatabaseUrl,
) -> Result<Vec<MigrationStatus>, StorageError> {
    let (work, connection) = connect(config, url).await?;
    let listed = list(&work).await;
    connection.abort();
    let applied = listed?;
    let known = MIGRATIONS.iter().map(|migration| {
        let row = applied.iter().find(|row| row.version == migration.version);
        let is_same = row.is_none_or(|row| row.sha256 == migration.sha256().as_slice());
        MigrationStatus {
            version: migration.version,
            name: String::from(migration.name),
            applied_at: row.map(|row| row.applied_at),
            file: if is_same {
                FileMatch::Same
            } else {
                FileMatch::Edited
            },
        }
    });
    let is_unknown = |row: &&AppliedMigration| {
        let mut known = MIGRATIONS.iter();
        known.all(|migration| migration.version != row.version)
    };
    let unknown = applied
        .iter()
        .filter(is_unknown)
        .map(|row| MigrationStatus {
            version: row.version,
            name: row.name.clone(),
            applied_at: Some(row.applied_at),
            file: FileMatch::Unknown,
        });
    Ok(known.chain(unknown).collect())
}

/// What the database says it has, oldest first; nothing if it was never migrated.
async fn list(work: &Client) -> Result<Vec<AppliedMigration>, StorageError> {
    let has_table: bool = work.query_one(HAS_TABLE, &[]).await?.try_get("present")?;
    if !has_table {
        return Ok(Vec::new());
    }
    let rows = work.query(LIST, &[]).await?;
    rows.iter().map(read).collect()
}

/// Two connections: one does the work, the other holds the lock until it is dropped.
struct Session {
    work: Client,
    lock: Client,
    connections: [JoinHandle<()>; 2],
}

struct AppliedMigration {
    version: i64,
    name: String,
    sha256: Vec<u8>,
    applied_at: hubbub_protocol::Timestamp,
}

impl Session {
    async fn open(config: &StorageConfig, url: &DatabaseUrl) -> Result<Self, StorageError> {
        let (lock, lock_connection) = connect(config, url).await?;
        let (work, work_connection) = connect(config, url).await?;
        let session = Self {
            work,
            lock,
            connections: [lock_connection, work_connection],
        };
        let deadline = Instant::now() + config.migration_timeout;
        loop {
            let row = session
                .lock
                .query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK_KEY])
                .await?;
            if row.try_get::<_, bool>(0)? {
                break;
            }
            if Instant::now() >= deadline {
                return Err(MigrationError::Locked(config.migration_timeout).into());
            }
            sleep(LOCK_POLL).await;
        }
        Ok(session)
    }

    /// What the database has: always the first of what the program knows.
    async fn applied(
        &self,
        migrations: &[Migration],
    ) -> Result<Vec<AppliedMigration>, StorageError> {
        let applied = list(&self.work).await?;
        for (index, row) in applied.iter().enumerate() {
            let (version, name) = (row.version, row.name.clone());
            let Some(known) = migrations.iter().find(|known| known.version == version) else {
                return Err(MigrationError::Unknown { version, name }.into());
            };
            if known.sha256().as_slice() != row.sha256 {
                return Err(MigrationError::Edited { version, name }.into());
            }
            match migrations.get(index) {
                Some(expected) if expected.version != version => {
                    return Err(MigrationError::Gap {
                        version: expected.version,
                    }
                    .into());
                }
                _ => {}
            }
        }
        Ok(applied)
    }

    async fn apply(&mut self, migration: &Migration) -> Result<(), StorageError> {
        let (version, name) = (migration.version, migration.name);
        let run = async {
            let transaction = self.work.transaction().await?;
            transaction.batch_execute(migration.up).await?;
            let digest = migration.sha256();
            transaction
                .execute(INSERT, &[&version, &name, &digest.as_slice()])
                .await?;
            transaction.commit().await
        };
        run.await.map_err(|source| {
            MigrationError::Failed {
                version,
                name,
                source,
            }
            .into()
        })
    }

    async fn revert(&mut self, migration: &Migration) -> Result<(), StorageError> {
        let (version, name) = (migration.version, migration.name);
        let run = async {
            let transaction = self.work.transaction().await?;
            transaction.batch_execute(migration.down).await?;
            transaction.execute(DELETE, &[&version]).await?;
            transaction.commit().await
        };
        run.await.map_err(|source| {
            MigrationError::Failed {
                version,
                name,
                source,
            }
            .into()
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Closes both sockets, and with them the lock.
        for connection in &self.connections {
            connection.abort();
        }
    }
}

/// A connection as the schema's owner, without the pools' statement time-out: a migration may be long.
pub(crate) async fn connect(
    config: &StorageConfig,
    url: &DatabaseUrl,
) -> Result<(Client, JoinHandle<()>), StorageError> {
    let mut target = url.parse()?;
    pool::settle(&mut target, config, "hubbub-migrate");
    let tls = tls::connector(&mut target, config.ca_file.as_deref())?;
    let connecting = tokio::time::timeout(config.connect_timeout, target.connect(tls));
    let (client, connection) = connecting
        .await
        .map_err(|_| StorageError::Deadline(config.connect_timeout))??;
    // Ends with the client; whoever uses it sees the error on their own statement.
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %describe(&error), "migration connection ended");
        }
    });
    let setup = format!(
        "SET lock_timeout = {}; SET timezone = 'UTC'; SET client_min_messages = warning",
        config.lock_timeout.as_millis()
    );
    client.batch_execute(&setup).await?;
    Ok((client, task))
}

impl Migration {
    /// Digest of both directions.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::new_with_prefix(self.up)
            .chain_update([0])
            .chain_update(self.down)
            .finalize()
            .into()
    }
}

fn read(row: &Row) -> Result<AppliedMigration, StorageError> {
    let fields = Fields {
        table: "hubbub_migrations",
        row,
    };
    Ok(AppliedMigration {
        version: fields.get("version")?,
        name: fields.get("name")?,
        sha256: fields.get("sha256")?,
        applied_at: fields.get::<jiff::Timestamp>("applied_at")?.into(),
    })
}
