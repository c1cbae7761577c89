//! PostgreSQL: the truth. Everything acknowledged is committed here first.
//!
//! [`Storage`] is made once at start and shared. The actors see it as a
//! [`PostgresMessageStore`]; HTTP handlers read and write through a [`TenantScope`], which is the only
//! way to a tenant's rows: row-level security, forced on every table, shows no others. The few
//! look-ups that come before the tenant is known are in `unscoped` and call definer functions
//! which return one row by a secret or a public id.

mod batch;
mod cause;
mod error;
mod fields;
pub mod folder;
mod health;
pub mod migrations;
mod pool;
pub mod private;
mod scope;
mod store;
mod tables;
mod tls;
mod unscoped;

use std::time::Duration;

use deadpool_postgres::Pool;
use hubbub_protocol::TenantId;

pub use cause::Outage;
pub use error::StorageError;
pub use pool::{DatabaseUrl, PoolStatus, StorageConfig};
pub use scope::TenantScope;
pub use store::PostgresMessageStore;
pub use tables::leases::NODE_LEASE;
pub use tables::{
    api_keys, bots, budgets, messages, notes, prices, prompts, replies, sessions, tenants, tickets,
    usage, visitors,
};

use health::Health;
use pool::PoolRole;

/// How long [`Storage::ready`] asks before the answer is no.
pub const READY_DEADLINE: Duration = Duration::from_secs(2);

const READY: &str = "SELECT coalesce(max(version), 0)::int8 AS version FROM hubbub_migrations";
// A superuser would see every tenant's rows, and nothing would tell.
const CHECK_ROLE: &str = "SELECT rolsuper OR rolbypassrls AS unsafe FROM pg_roles \
    WHERE rolname = current_user";

/// The database, as the server uses it.
#[derive(Clone)]
pub struct Storage {
    app: Pool,
    writer: Pool,
    operation_timeout: Duration,
    health: Health,
}

/// Both pools at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageStatus {
    /// The server's role.
    pub app: PoolStatus,
    /// The writer's role.
    pub writer: PoolStatus,
}

/// Whether the database answers, and with which schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The newest migration applied.
    pub schema_version: i64,
    /// The one this program is written for.
    pub expected_version: i64,
}

impl Readiness {
    /// Whether the schema is the program's.
    pub fn is_ready(&self) -> bool {
        self.schema_version == self.expected_version
    }
}

impl Storage {
    /// Migrates if the configuration has a migration URL, and opens the pools.
    ///
    /// # Errors
    /// The database cannot be reached or migrated, the configuration cannot be used, or the server's
    /// role could see every tenant's rows.
    pub async fn connect(config: &StorageConfig) -> Result<Self, StorageError> {
        if let Some(url) = &config.migration_url {
            migrations::up(config, url).await?;
        }
        let storage = Self {
            app: pool::open(config, PoolRole::App)?,
            writer: pool::open(config, PoolRole::Writer)?,
            operation_timeout: config.operation_timeout,
            health: Health::default(),
        };
        storage.within(storage.check_role()).await?;
        Ok(storage)
    }

    /// The actors' port.
    pub fn message_store(&self) -> PostgresMessageStore {
        PostgresMessageStore::new(
            self.app.clone(),
            self.writer.clone(),
            self.operation_timeout,
            self.health.clone(),
        )
    }

    /// Opens a tenant's scope.
    ///
    /// # Errors
    /// No connection became free in time, or the database cannot be reached.
    pub async fn scope(&self, tenant: TenantId) -> Result<TenantScope, StorageError> {
        self.within(TenantScope::open(&self.app, tenant)).await
    }

    /// Asks the database itself, within [`READY_DEADLINE`].
    ///
    /// # Errors
    /// It did not answer, or not in time.
    pub async fn ready(&self) -> Result<Readiness, StorageError> {
        let ask = async {
            let client = self.app.get().await?;
            let schema_version = match client.query_one(READY, &[]).await {
                Ok(row) => fields::Fields {
                    table: "hubbub_migrations",
                    row: &row,
                }
                .get("version")?,
                // Before the first migration, and after the last was undone.
                Err(error) if cause::is_without_schema(&error) => 0,
                Err(error) => return Err(error.into()),
            };
            Ok(Readiness {
                schema_version,
                expected_version: migrations::EXPECTED_VERSION,
            })
        };
        tokio::time::timeout(READY_DEADLINE, ask)
            .await
            .unwrap_or(Err(StorageError::Deadline(READY_DEADLINE)))
    }

    /// The pools' connections now, for metrics.
    pub fn status(&self) -> StorageStatus {
        StorageStatus {
            app: PoolStatus::of(&self.app),
            writer: PoolStatus::of(&self.writer),
        }
    }

    /// Closes the pools. What is running still ends; whatever comes later is refused.
    pub fn close(&self) {
        self.app.close();
        self.writer.close();
    }

    async fn check_role(&self) -> Result<(), StorageError> {
        let client = self.app.get().await?;
        let row = client.query_one(CHECK_ROLE, &[]).await?;
        if (fields::Fields {
            table: "pg_roles",
            row: &row,
        })
        .get::<bool>("unsafe")?
        {
            return Err(StorageError::Config(String::from(
                "the server's role is a superuser or bypasses row-level security: every tenant \
                 would see every row; log in as hubbub_app",
            )));
        }
        Ok(())
    }

    /// In a box for the same reason as a statement: see [`scope::Transaction`].
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        if let Some(outage) = self.health.refuses_all() {
            return Err(StorageError::Down(outage));
        }
        let deadline = self.operation_timeout;
        tokio::time::timeout(deadline, Box::pin(work))
            .await
            .unwrap_or(Err(StorageError::Deadline(deadline)))
            .inspect_err(|error| self.health.note(error))
    }
}
