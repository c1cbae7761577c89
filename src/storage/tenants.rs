//! Table `tenants`: the tenants and their own limits. A tenant sees and creates only itself.

use hubbub_actors::ports::TenantLimits;

use super::error::Fields;
use super::{StorageError, TenantScope};

const INSERT: &str = "INSERT INTO tenants (id, name) VALUES ($1, $2)";
const FIND_LIMITS: &str = "SELECT id, max_connections::int8, max_sessions::int8, \
    messages_per_second::int8, weight::int8 FROM tenants WHERE id = $1";

/// Creates the scope's tenant, with the server's default limits.
///
/// # Errors
/// The tenant exists, or the database could not.
pub async fn insert(scope: &TenantScope, name: &str) -> Result<(), StorageError> {
    scope.execute(INSERT, &[&scope.tenant().0, &name]).await?;
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
