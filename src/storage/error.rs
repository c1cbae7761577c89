//! What can go wrong in storage, and which of it passes by itself.

use std::error::Error;
use std::time::Duration;

use deadpool_postgres::{HookError, PoolError};
use hubbub_actors::ports::StoreError;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use super::health::Outage;
use super::migrations::MigrationError;

/// Storage could not do it. Its text may name tables, so it goes to the log, never to a client.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database's configuration cannot be used.
    #[error("database configuration: {0}")]
    Config(String),
    /// The pool has no connection to give.
    #[error("no database connection: {}", describe_pool(.0))]
    Pool(#[from] PoolError),
    /// The server refused a statement, or the connection broke.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// No answer in time.
    #[error("the database did not answer within {0:?}")]
    Deadline(Duration),
    /// The database is known to be away; it was not asked.
    #[error("{}", .0.explanation())]
    Down(Outage),
    /// A stored value is not what it must be.
    #[error("{table}.{column} of row {row} cannot be read")]
    Row {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's id, as far as known.
        row: String,
    },
    /// A statement changed another number of rows than it must.
    #[error("{statement} changed {changed} rows instead of {expected}")]
    Rows {
        /// Which statement.
        statement: &'static str,
        /// What it did.
        changed: usize,
        /// What it had to do.
        expected: usize,
    },
    /// COMMIT was asked for after a statement of the transaction had failed or been abandoned.
    #[error("the transaction had failed already")]
    Aborted,
    /// The migrations could not be run.
    #[error(transparent)]
    Migration(#[from] MigrationError),
}

impl StorageError {
    /// Whether it passes: the database cannot be reached, is starting or overloaded; or its schema is
    /// gone, which is somebody's work and comes back by somebody's work.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Pool(PoolError::Backend(error)) | Self::Postgres(error) => {
                is_transient(error) || is_schema_missing(error)
            }
            Self::Down(_)
            | Self::Deadline(_)
            | Self::Pool(PoolError::Timeout(_) | PoolError::PostCreateHook(_)) => true,
            Self::Migration(error) => error.is_unavailable(),
            Self::Pool(_)
            | Self::Config(_)
            | Self::Row { .. }
            | Self::Rows { .. }
            | Self::Aborted => false,
        }
    }

    /// Why the database takes no writes, if that is what it says.
    pub fn outage(&self) -> Option<Outage> {
        match self {
            Self::Down(outage) => Some(*outage),
            Self::Pool(
                PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)),
            )
            | Self::Postgres(error) => outage(error),
            Self::Migration(MigrationError::Failed { source, .. }) => outage(source),
            _ => None,
        }
    }

    /// The name of the violated constraint, if that was the reason.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.as_db_error()?.constraint(),
            _ => None,
        }
    }

    /// Whether it only says that another statement of the transaction failed.
    pub(crate) fn is_consequence(&self) -> bool {
        matches!(self, Self::Postgres(error)
            if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION))
    }

    /// What a port answers for it. Logs the cause: this is where it is handled.
    pub(crate) fn into_store_error(self, operation: &'static str) -> StoreError {
        if self.outage().is_some() {
            // Told once, as the state it is: see `health`.
            tracing::debug!(operation, error = %self, "storage is unavailable");
            StoreError::Unavailable
        } else if self.is_unavailable() {
            tracing::warn!(operation, error = %self, "storage is unavailable");
            StoreError::Unavailable
        } else {
            tracing::error!(operation, error = %self, "storage failed");
            StoreError::Internal
        }
    }
}

/// The state of the database that an error tells of.
fn outage(error: &tokio_postgres::Error) -> Option<Outage> {
    let Some(code) = error.code() else {
        // Not the server's word: the connection broke, was refused, or never came to be.
        return Some(Outage::Unreachable);
    };
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        Some(Outage::ReadOnly)
    } else if *code == SqlState::DISK_FULL {
        Some(Outage::DiskFull)
    } else if [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::TOO_MANY_CONNECTIONS,
    ]
    .contains(code)
        || code.code().starts_with("08")
    {
        Some(Outage::Unreachable)
    } else {
        None
    }
}

/// Whether the same statement may succeed later without anybody changing anything.
pub(crate) fn is_transient(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code() else {
        // Not the server's word: the connection broke, was refused, or never came to be.
        return true;
    };
    // 08 connection, 53 resources (disk, memory, connections), 40 rolled back (deadlock), 58 I/O.
    ["08", "53", "40", "58"]
        .iter()
        .any(|class| code.code().starts_with(class))
        || [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::QUERY_CANCELED,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            // A standby, until the failover is over.
            SqlState::READ_ONLY_SQL_TRANSACTION,
        ]
        .contains(code)
}

/// Whether the statement names something that the schema of another version has, or of none.
pub(crate) fn is_schema_missing(error: &tokio_postgres::Error) -> bool {
    let missing = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_SCHEMA_NAME,
    ];
    error.code().is_some_and(|code| missing.contains(code))
}

/// Whether the list of migrations cannot be read because there is none, or none for us any more.
pub(crate) fn is_without_schema(error: &tokio_postgres::Error) -> bool {
    is_schema_missing(error) || error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}

/// The server's message without `DETAIL`, which quotes rows: bodies must not reach the log.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let constraint = db
            .constraint()
            .map(|name| format!(" ({name})"))
            .unwrap_or_default();
        return format!("{} {}{constraint}", db.code().code(), db.message());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn describe_pool(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => describe(error),
        other => other.to_string(),
    }
}

/// Reads columns of a row; a value that does not fit is an error that names table, column and row.
pub(crate) struct Fields<'a> {
    /// The table the row is of.
    pub table: &'static str,
    /// The row.
    pub row: &'a Row,
}

impl<'a> Fields<'a> {
    /// A value of the column's own type.
    pub fn get<T: FromSql<'a>>(&self, column: &'static str) -> Result<T, StorageError> {
        self.row
            .try_get(column)
            .map_err(|_| self.unreadable(column))
    }

    /// A number that is never negative.
    pub fn count(&self, column: &'static str) -> Result<u64, StorageError> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| self.unreadable(column))
    }

    /// A number that is never negative, or NULL.
    pub fn optional_count(&self, column: &'static str) -> Result<Option<u64>, StorageError> {
        self.get::<Option<i64>>(column)?
            .map(|value| u64::try_from(value).map_err(|_| self.unreadable(column)))
            .transpose()
    }

    /// A word of a closed set, spelled as on the wire; `None` for NULL and for a word that only another
    /// version of this program knows.
    pub fn optional_word<T: DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StorageError> {
        let Some(word) = self.get::<Option<&str>>(column)? else {
            return Ok(None);
        };
        let word: StrDeserializer<'_, ValueError> = word.into_deserializer();
        Ok(T::deserialize(word).ok())
    }

    /// The error for a value that was read but means nothing.
    pub fn unreadable(&self, column: &'static str) -> StorageError {
        let row = ["id", "session_id", "tenant_id"]
            .iter()
            .find_map(|name| self.row.try_get::<_, Uuid>(*name).ok())
            .map_or_else(|| String::from("(unknown)"), |id| id.to_string());
        StorageError::Row {
            table: self.table,
            column,
            row,
        }
    }
}

/// A count as PostgreSQL stores it. No count of ours comes near the limit.
pub(crate) fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
