//! PostgreSQL: the truth. Everything acknowledged is committed here first.
//!
//! [`Storage`] is made once at start and shared. The actors see it as a
//! [`PostgresMessageStore`]; HTTP handlers read and write through a [`TenantScope`], which is the only
//! way to a tenant's rows: row-level security, forced on every table, shows no others. The few
//! look-ups that come before the tenant is known are methods of [`Storage`] and call definer functions
//! which answer one row by a secret or a public id.

pub mod api_keys;
pub mod bots;
pub mod budgets;
mod cause;
mod error;
mod health;
mod leases;
mod ledger;
pub mod messages;
pub mod migrations;
pub mod notes;
mod pool;
pub mod prices;
pub mod private;
pub mod prompts;
pub mod replies;
mod scope;
pub mod sessions;
mod store;
pub mod tenants;
pub mod tickets;
mod tls;
pub mod usage;
pub mod visitors;

use std::time::Duration;

use deadpool_postgres::Pool;
use hubbub_protocol::{BotId, TenantId};

pub use cause::Outage;
pub use error::StorageError;
pub use leases::NODE_LEASE;
pub use pool::{DatabaseUrl, PoolStatus, StorageConfig};
pub use scope::TenantScope;
pub use store::PostgresMessageStore;

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

    /// Every tenant, oldest first.
    ///
    /// # Errors
    /// The database could not.
    pub async fn list_tenants(&self) -> Result<Vec<tenants::Tenant>, StorageError> {
        self.within(tenants::list(&self.app)).await
    }

    /// Sets a price.
    ///
    /// # Errors
    /// The model has one from that very moment already, or the database could not.
    pub async fn set_price(&self, price: &prices::Price) -> Result<(), StorageError> {
        self.within(prices::set(&self.app, price)).await
    }

    /// All prices, past, present and future.
    ///
    /// # Errors
    /// The database could not.
    pub async fn list_prices(&self) -> Result<Vec<prices::Price>, StorageError> {
        self.within(prices::list(&self.app)).await
    }

    /// Finds an API key of any tenant by its public part; revoked ones too.
    ///
    /// # Errors
    /// The database could not.
    pub async fn find_api_key(
        &self,
        key_id: &str,
    ) -> Result<Option<api_keys::ApiKey>, StorageError> {
        self.within(api_keys::find(&self.app, key_id)).await
    }

    /// Which of these API keys open nothing: revoked, or not there.
    ///
    /// # Errors
    /// The database could not.
    pub async fn list_unusable_keys(
        &self,
        key_ids: &[Box<str>],
    ) -> Result<Vec<String>, StorageError> {
        self.within(api_keys::list_unusable(&self.app, key_ids))
            .await
    }

    /// Uses a ticket up: of any number of attempts one gets it. `None` also when it has expired.
    ///
    /// # Errors
    /// The database could not.
    pub async fn redeem_ticket(
        &self,
        ticket_sha256: &[u8; 32],
    ) -> Result<Option<(TenantId, tickets::Ticket)>, StorageError> {
        self.within(tickets::redeem(&self.app, ticket_sha256)).await
    }

    /// Deletes at most a thousand tickets that nobody redeemed in time; how many there were.
    ///
    /// # Errors
    /// The database could not.
    pub async fn delete_expired_tickets(&self) -> Result<u64, StorageError> {
        self.within(tickets::delete_expired(&self.app)).await
    }

    /// Deletes at most a thousand visitors who came and never opened a session; how many there were.
    ///
    /// # Errors
    /// The database could not.
    pub async fn delete_expired_visitors(&self) -> Result<u64, StorageError> {
        self.within(visitors::delete_expired(&self.app)).await
    }

    /// Makes the partitions that the coming months' messages go to.
    ///
    /// # Errors
    /// The database could not.
    pub async fn make_partitions(&self) -> Result<(), StorageError> {
        self.within(async {
            let client = self.app.get().await?;
            client.execute(migrations::MAKE_PARTITIONS, &[]).await?;
            Ok(())
        })
        .await
    }

    /// Finds the tenant of a bot that a public widget names.
    ///
    /// # Errors
    /// The database could not.
    pub async fn find_widget_bot(
        &self,
        bot: BotId,
    ) -> Result<Option<bots::WidgetBot>, StorageError> {
        self.within(bots::find_widget(&self.app, bot)).await
    }

    /// Asks the database itself, within [`READY_DEADLINE`].
    ///
    /// # Errors
    /// It did not answer, or not in time.
    pub async fn ready(&self) -> Result<Readiness, StorageError> {
        let ask = async {
            let client = self.app.get().await?;
            let schema_version = match client.query_one(READY, &[]).await {
                Ok(row) => error::Fields {
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
        if (error::Fields {
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
