//! Why migrations were not run.

use std::time::Duration;

use crate::cause::{describe, is_transient};

/// Why migrations were not run.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database was migrated by a file of another content.
    #[error(
        "migration {version} ({name}) was edited after it was applied; restore the file, and \
             put the change into a new migration"
    )]
    Edited {
        /// Its number.
        version: i64,
        /// Its name.
        name: String,
    },
    /// The database knows a migration that this program does not.
    #[error(
        "the database has migration {version} ({name}), which this version of hubbub does not \
             know; start the newer version"
    )]
    Unknown {
        /// Its number.
        version: i64,
        /// Its name.
        name: String,
    },
    /// A migration was left out between applied ones.
    #[error("migration {version} is missing although later ones are applied")]
    Gap {
        /// Its number.
        version: i64,
    },
    /// Somebody else has been migrating all the time.
    #[error("another server has been migrating for {0:?}")]
    Locked(Duration),
    /// The migration itself failed; nothing of it remains.
    #[error("migration {version} ({name}) failed: {}", describe(.source))]
    Failed {
        /// Its number.
        version: i64,
        /// Its name.
        name: &'static str,
        /// What the database said.
        source: tokio_postgres::Error,
    },
}

impl MigrationError {
    /// Whether trying again may help.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Locked(_) => true,
            Self::Failed { source, .. } => is_transient(source),
            Self::Edited { .. } | Self::Unknown { .. } | Self::Gap { .. } => false,
        }
    }
}
