//! What can go wrong in storage, and which of it passes by itself.

use std::time::Duration;

use deadpool_postgres::{HookError, PoolError};
use hubbub_actors::ports::StoreError;
use tokio_postgres::error::SqlState;

use crate::cause::{Outage, describe, is_schema_missing, is_transient, outage};
use crate::migrations::error::MigrationError;

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

    /// What all statements of a transaction returned, or the error that made the others fail: once one
    /// failed the others do too, and only say that one did.
    pub(crate) fn first_cause<T>(
        results: impl IntoIterator<Item = Result<T, Self>>,
    ) -> Result<Vec<T>, Self> {
        let mut done = Vec::new();
        let mut failed: Option<Self> = None;
        for result in results {
            match result {
                Ok(value) => done.push(value),
                Err(error) if failed.as_ref().is_none_or(Self::is_consequence) => {
                    failed = Some(error);
                }
                Err(_) => {}
            }
        }
        failed.map_or(Ok(done), Err)
    }

    /// Whether a row is there already, or the one that it belongs to is not.
    pub(crate) fn is_taken(&self) -> bool {
        let codes = [SqlState::UNIQUE_VIOLATION, SqlState::FOREIGN_KEY_VIOLATION];
        matches!(self, Self::Postgres(error)
            if error.code().is_some_and(|code| codes.contains(code)))
    }

    /// Whether it only says that another statement of the transaction failed.
    fn is_consequence(&self) -> bool {
        matches!(self, Self::Postgres(error)
            if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION))
    }

    /// What callers are told of it. Logs the cause: this is where it is handled.
    pub fn into_store_error(self, operation: &'static str) -> StoreError {
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

fn describe_pool(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => describe(error),
        other => other.to_string(),
    }
}
