//! Transactions. [`TenantScope`] is the only way to a tenant's tables: a transaction whose tenant is
//! set for row-level security, so no statement has a tenant to forget.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use deadpool_postgres::{Object, Pool};
use futures_util::FutureExt as _;
use futures_util::future;
use hubbub_protocol::TenantId;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use crate::{Outage, StorageError};

const SET_TENANT: &str = "SELECT set_config('app.tenant_id', $1, true)";

/// A transaction. Dropped without [`commit`](Self::commit) it is rolled back.
pub(crate) struct Transaction {
    client: Option<Object>,
    /// BEGIN was sent.
    begun: AtomicBool,
    /// Statements sent whose end nobody has seen: when their future is dropped, the connection is
    /// still busy with them.
    in_flight: AtomicUsize,
    /// A statement failed. PostgreSQL answers COMMIT with a ROLLBACK then, and without an error.
    failed: AtomicBool,
    /// The connection is of no more use: read-only when it was opened, it may stay so when the database no
    /// longer is.
    stale: AtomicBool,
}

impl Transaction {
    /// Takes a connection; the caller sends BEGIN.
    pub(crate) async fn on(pool: &Pool) -> Result<Self, StorageError> {
        Ok(Self {
            client: Some(pool.get().await?),
            begun: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            stale: AtomicBool::new(false),
        })
    }

    fn client(&self) -> Result<&Object, StorageError> {
        self.client.as_ref().ok_or(StorageError::Aborted)
    }

    /// The statement's future is kilobytes and lives in a box: by value it would lie, several times over,
    /// in every future around it, and a handler's would be as large as a connection's buffers.
    fn watch<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> impl Future<Output = Result<T, StorageError>> {
        let statement = Box::pin(statement);
        async move {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            let result = statement.await;
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            result.map_err(|error| {
                self.failed.store(true, Ordering::Relaxed);
                let error = StorageError::Postgres(error);
                if error.outage() == Some(Outage::ReadOnly) {
                    self.stale.store(true, Ordering::Relaxed);
                }
                error
            })
        }
    }

    /// Starts it.
    pub(crate) async fn begin(&self) -> Result<(), StorageError> {
        self.begun.store(true, Ordering::Relaxed);
        self.watch(self.client()?.batch_execute("BEGIN")).await
    }

    /// Prepares a statement, or finds it prepared. Statements that are to be pipelined are prepared
    /// first, or they would overtake each other.
    pub(crate) async fn prepare(&self, sql: &'static str) -> Result<Statement, StorageError> {
        self.watch(self.client()?.prepare_cached(sql)).await
    }

    /// Runs a prepared statement. Sent when first polled.
    pub(crate) async fn run(
        &self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StorageError> {
        self.watch(self.client()?.query(statement, params)).await
    }

    /// Prepares and runs a statement.
    pub(crate) async fn query(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StorageError> {
        let statement = self.prepare(sql).await?;
        self.run(&statement, params).await
    }

    /// Runs a statement and answers how many rows it changed.
    pub(crate) async fn execute(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, StorageError> {
        let statement = self.prepare(sql).await?;
        self.change(&statement, params).await
    }

    /// Runs a prepared statement and answers how many rows it changed. Sent when first polled.
    async fn change(
        &self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, StorageError> {
        self.watch(self.client()?.execute(statement, params)).await
    }

    /// Commits.
    ///
    /// # Errors
    /// [`StorageError::Aborted`] if a statement of it failed: nothing is stored then. Any other error
    /// leaves it open whether the commit happened.
    pub(crate) async fn commit(self) -> Result<(), StorageError> {
        if !self.begun.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.commit_behind(async |_: &Self| Ok(())).await
    }

    /// Runs the last statements and commits, in one round trip: COMMIT is sent behind what
    /// `statements` sends when first polled, so they must be prepared.
    ///
    /// # Errors
    /// What `statements` answers; else as [`commit`](Self::commit).
    pub(crate) async fn commit_behind<T>(
        mut self,
        statements: impl AsyncFnOnce(&Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if self.failed.load(Ordering::Relaxed) || self.in_flight.load(Ordering::Relaxed) > 0 {
            return Err(StorageError::Aborted);
        }
        let (done, committed) = future::join(
            statements(&self),
            self.watch(self.client()?.batch_execute("COMMIT")),
        )
        .await;
        // Ended either way: PostgreSQL answers the COMMIT of a failed transaction with a ROLLBACK.
        if committed.is_ok() && !self.stale.load(Ordering::Relaxed) {
            drop(self.client.take());
        }
        let done = done?;
        committed?;
        if self.failed.load(Ordering::Relaxed) {
            return Err(StorageError::Aborted);
        }
        Ok(done)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        if self.in_flight.load(Ordering::Relaxed) > 0 || self.stale.load(Ordering::Relaxed) {
            // Of no use, or still busy, perhaps for ever: the next borrower must not wait for it. Closing the
            // connection ends the transaction.
            drop(Object::take(client));
        } else if self.begun.load(Ordering::Relaxed) {
            // One poll sends it; whoever borrows the connection next speaks after it.
            let _sent = client.batch_execute("ROLLBACK").now_or_never();
        }
    }
}

/// A transaction in which row-level security shows one tenant's rows and no other's.
///
/// It begins with its first statement, in one round trip: a read of one statement costs no more than
/// that. Whoever only read drops it.
pub struct TenantScope {
    tenant: TenantId,
    transaction: Transaction,
    set_tenant: Statement,
}

impl TenantScope {
    /// Opens the scope; nothing is sent yet.
    pub(crate) async fn open(pool: &Pool, tenant: TenantId) -> Result<Self, StorageError> {
        let transaction = Transaction::on(pool).await?;
        let set_tenant = transaction.prepare(SET_TENANT).await?;
        Ok(Self {
            tenant,
            transaction,
            set_tenant,
        })
    }

    /// Sends BEGIN and the setting in front of the first statement, which must be prepared.
    async fn within<T>(
        &self,
        statement: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        if self.transaction.begun.load(Ordering::Relaxed) {
            return statement.await;
        }
        let tenant = self.tenant.to_string();
        let params: [&(dyn ToSql + Sync); 1] = [&tenant];
        // Polled in this order, so sent in this order.
        let (begun, set, done) = future::join3(
            self.transaction.begin(),
            self.transaction.run(&self.set_tenant, &params),
            statement,
        )
        .await;
        begun?;
        set?;
        done
    }

    /// Whose rows it shows.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// As [`Transaction::query`].
    pub(crate) async fn query(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StorageError> {
        let statement = self.transaction.prepare(sql).await?;
        self.within(self.transaction.run(&statement, params)).await
    }

    /// The first row, if any.
    pub(crate) async fn query_opt(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, StorageError> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Runs a statement and answers how many rows it changed.
    pub(crate) async fn execute(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, StorageError> {
        let statement = self.transaction.prepare(sql).await?;
        self.within(self.transaction.change(&statement, params))
            .await
    }

    /// Makes its changes durable.
    ///
    /// # Errors
    /// [`StorageError::Aborted`] if one of its statements failed, or that the database could not.
    pub async fn commit(self) -> Result<(), StorageError> {
        self.transaction.commit().await
    }
}
