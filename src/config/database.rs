//! `[database]`: PostgreSQL.

use std::path::PathBuf;
use std::time::Duration;

use super::check;
use super::reader::{Key, Reader, key};
use super::secret::Secret;

/// `[database]`: PostgreSQL.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// As a role that owns nothing; `None` starts a private cluster in the data folder.
    pub url: Option<Secret>,
    /// As the role that owns the tables; `None` runs no migration at start.
    pub migration_url: Option<Secret>,
    /// Connections for everything but the message writer.
    pub app_connections: usize,
    /// Connections of the message writer.
    pub writer_connections: usize,
    /// How long to wait for it.
    pub timeouts: DatabaseTimeouts,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// How long to wait for the database.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseTimeouts {
    /// Longest wait for a free connection.
    pub acquire: Duration,
    /// Longest wait for a new connection.
    pub connect: Duration,
    /// Longest check of a used connection.
    pub recycle: Duration,
    /// PostgreSQL's `statement_timeout`.
    pub statement: Duration,
    /// PostgreSQL's `lock_timeout`.
    pub lock: Duration,
}

impl DatabaseTimeouts {
    fn read(from: &mut Reader) -> Self {
        Self {
            acquire: from.millis(
                key(
                    "acquire_timeout_ms",
                    "Longest wait for a free connection, in milliseconds.",
                ),
                2_000,
                10..=60_000,
            ),
            connect: from.millis(
                key(
                    "connect_timeout_ms",
                    "Longest wait for a new connection, in milliseconds.",
                ),
                3_000,
                10..=60_000,
            ),
            recycle: from.millis(
                key(
                    "recycle_timeout_ms",
                    "Longest check of a used connection, in milliseconds.",
                ),
                1_000,
                10..=60_000,
            ),
            statement: from.millis(
                key(
                    "statement_timeout_ms",
                    "Longest statement, in milliseconds.",
                ),
                5_000,
                10..=600_000,
            ),
            lock: from.millis(
                key(
                    "lock_timeout_ms",
                    "Longest wait for a lock, in milliseconds.",
                ),
                2_000,
                10..=600_000,
            ),
        }
    }
}

impl DatabaseConfig {
    pub(super) fn read(from: &mut Reader) -> Self {
        from.section(
            "database",
            "PostgreSQL. Without a url the server starts a private one in the data folder.",
        );
        let config = Self {
            url: postgres_url(
                from,
                key(
                    "url",
                    "Connection of the server, as a role that owns nothing. Secret.",
                )
                .example("\"postgres://hubbub_app:password@localhost/hubbub\""),
            ),
            migration_url: postgres_url(
                from,
                key(
                    "migration_url",
                    "Connection of the migrations, as the role that owns the tables. Secret.",
                )
                .example("\"postgres://hubbub_owner:password@localhost/hubbub\""),
            ),
            app_connections: from.size(
                key(
                    "app_connections",
                    "Connections for everything but the message writer.",
                ),
                8,
                1..=1_000,
            ),
            writer_connections: from.size(
                key(
                    "writer_connections",
                    "Connections of the message writer: one for its batch, one for leases, one for activity.",
                ),
                4,
                2..=64,
            ),
            timeouts: DatabaseTimeouts::read(from),
            ca_file: from.parsed(
                key(
                    "ca_file",
                    "PEM file of the only certificate authorities to trust, instead of the system's.",
                )
                .example("\"/etc/hubbub/database-ca.pem\""),
                "a path",
                None,
                check::path,
                |path| path.display().to_string(),
            ),
        };
        config.check(from);
        config
    }

    fn check(&self, from: &mut Reader) {
        if self.migration_url.is_some() && self.url.is_none() {
            let message = "is set, but database.url is not";
            from.refuse("database", "migration_url", message, "both, or neither");
        }
    }
}

fn postgres_url(from: &mut Reader, key: Key) -> Option<Secret> {
    from.parsed(key, "a postgres:// URL", None, check::postgres_url, |_| {
        "***".to_owned()
    })
}
