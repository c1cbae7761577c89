//! Table `tenants`: the tenants and their own limits. A tenant sees and creates only itself; whoever runs the
//! server sees all.

use deadpool_postgres::Pool;
use hubbub_actors::ports::TenantLimits;
use hubbub_protocol::{TenantId, Timestamp};
use serde::Serialize;

use crate::fields::Fields;
use crate::{StorageError, TenantScope};

const INSERT: &str = "INSERT INTO tenants (id, name, weight) VALUES ($1, $2, $3)";
const LIST: &str = "SELECT id, name, weight, created_at FROM list_tenants()";
const FIND_LIMITS: &str = "SELECT id, max_connections::int8, max_sessions::int8, \
    messages_per_second::int8, weight::int8 FROM tenants WHERE id = $1";

/// A tenant, as whoever runs the server sees it.
#[derive(Clone, Debug, Serialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// For people to read.
    pub name: String,
    /// Its share of the models, beside those of other tenants.
    pub weight: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Creates the scope's tenant, with the server's default limits.
///
/// # Errors
/// The tenant exists, or the database could not.
pub async fn insert(scope: &TenantScope, name: &str, weight: u32) -> Result<(), StorageError> {
    let weight = i32::try_from(weight).unwrap_or(i32::MAX);
    scope
        .execute(INSERT, &[&scope.tenant().0, &name, &weight])
        .await?;
    Ok(())
}

/// The scope's tenant's limits; `None` if it does not exist.
///
/// # Errors
/// The database could not.
pub async fn find_limits(scope: &TenantScope) -> Result<Option<TenantLimits>, StorageError> {
    let row = scope.query_opt(FIND_LIMITS, &[&scope.tenant().0]).await?;
    row.map(|row| {
        let fields = Fields {
            table: "tenants",
            row: &row,
        };
        let limit = |column| -> Result<Option<u32>, StorageError> {
            fields
                .optional_count(column)?
                .map(|value| u32::try_from(value).map_err(|_| fields.unreadable(column)))
                .transpose()
        };
        Ok(TenantLimits {
            connections: limit("max_connections")?,
            sessions: limit("max_sessions")?,
            messages_per_second: limit("messages_per_second")?,
            weight: limit("weight")?,
        })
    })
    .transpose()
}

/// Every tenant, oldest first.
pub(crate) async fn list(pool: &Pool) -> Result<Vec<Tenant>, StorageError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(LIST).await?;
    let rows = client.query(&statement, &[]).await?;
    let read = |row| {
        let fields = Fields {
            table: "tenants",
            row,
        };
        Ok(Tenant {
            id: TenantId(fields.get("id")?),
            name: fields.get("name")?,
            weight: u32::try_from(fields.get::<i32>("weight")?)
                .map_err(|_| fields.unreadable("weight"))?,
            created_at: fields.get::<jiff::Timestamp>("created_at")?.into(),
        })
    };
    rows.iter().map(read).collect()
}
