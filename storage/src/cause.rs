//! What an error of PostgreSQL's means: whether it passes, and what state of the database it tells of.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

/// Why the database takes no writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// It cannot be reached, does not answer, or is starting or stopping.
    Unreachable,
    /// It is a standby, or was told to be read-only.
    ReadOnly,
    /// Its disk is full.
    DiskFull,
}

impl Outage {
    /// The word for it in `/readyz` and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unavailable",
            Self::ReadOnly => "read_only",
            Self::DiskFull => "disk_full",
        }
    }

    /// What it means, for the log and for whoever starts the server.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Unreachable => "the database cannot be reached",
            Self::ReadOnly => {
                "the database is read-only (a standby, or default_transaction_read_only is on)"
            }
            Self::DiskFull => "the database's disk is full",
        }
    }
}

/// The state of the database that an error tells of.
pub(crate) fn outage(error: &tokio_postgres::Error) -> Option<Outage> {
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
