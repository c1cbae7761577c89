//! Table `api_keys`: the tenant's programs. Only a digest of each secret is stored.

use deadpool_postgres::Pool;
use hubbub_protocol::{TenantId, Timestamp};
use serde::Serialize;

use crate::fields::Fields;
use crate::{StorageError, TenantScope};

const INSERT: &str = "INSERT INTO api_keys (tenant_id, key_id, secret_sha256, name) \
    VALUES ($1, $2, $3, $4)";
const FIND: &str = "SELECT tenant_id, secret_sha256, name, created_at, revoked_at \
    FROM find_api_key($1)";
const LIST_UNUSABLE: &str = "SELECT key_id FROM unnest($1::text[]) AS key_id \
    WHERE NOT EXISTS (SELECT FROM find_api_key(key_id) WHERE revoked_at IS NULL)";
const LIST: &str = "SELECT key_id, name, created_at, revoked_at FROM api_keys \
    WHERE tenant_id = $1 ORDER BY created_at, key_id LIMIT 1000";
// Once a minute is exact enough, and spares a row version for each request.
const UPDATE_LAST_USED: &str = "UPDATE api_keys SET last_used_at = now() \
    WHERE tenant_id = $1 AND key_id = $2 \
    AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')";
const REVOKE: &str = "UPDATE api_keys SET revoked_at = now() \
    WHERE tenant_id = $1 AND key_id = $2 AND revoked_at IS NULL";

/// A stored key. The secret is compared, in constant time, by whoever asked.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Whose key it is.
    pub tenant: TenantId,
    /// SHA-256 of the secret part.
    pub secret_sha256: Vec<u8>,
    /// For people to read.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked; such a key opens nothing.
    pub revoked_at: Option<Timestamp>,
}

/// Creates a key.
///
/// # Errors
/// The id is taken, the tenant does not exist, or the database could not.
pub async fn insert(
    scope: &TenantScope,
    key_id: &str,
    secret_sha256: &[u8; 32],
    name: &str,
) -> Result<(), StorageError> {
    let digest = secret_sha256.as_slice();
    scope
        .execute(INSERT, &[&scope.tenant().0, &key_id, &digest, &name])
        .await?;
    Ok(())
}

/// Notes that a key was used, at most once a minute.
///
/// # Errors
/// The database could not.
pub async fn update_last_used(scope: &TenantScope, key_id: &str) -> Result<(), StorageError> {
    scope
        .execute(UPDATE_LAST_USED, &[&scope.tenant().0, &key_id])
        .await?;
    Ok(())
}

/// A key, as the tenant sees it.
#[derive(Clone, Debug, Serialize)]
pub struct ListedKey {
    /// Its public part.
    pub id: String,
    /// For people to read.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

/// The tenant's keys, oldest first, at most a thousand.
///
/// # Errors
/// The database could not.
pub async fn list(scope: &TenantScope) -> Result<Vec<ListedKey>, StorageError> {
    let rows = scope.query(LIST, &[&scope.tenant().0]).await?;
    let read = |row| {
        let fields = Fields {
            table: "api_keys",
            row,
        };
        Ok(ListedKey {
            id: fields.get("key_id")?,
            name: fields.get("name")?,
            created_at: fields.get::<jiff::Timestamp>("created_at")?.into(),
            revoked_at: fields
                .get::<Option<jiff::Timestamp>>("revoked_at")?
                .map(Into::into),
        })
    };
    rows.iter().map(read).collect()
}

/// Revokes a key; whether there was one to revoke.
///
/// # Errors
/// The database could not.
pub async fn revoke(scope: &TenantScope, key_id: &str) -> Result<bool, StorageError> {
    Ok(scope.execute(REVOKE, &[&scope.tenant().0, &key_id]).await? == 1)
}

/// A key of any tenant, revoked ones too.
pub(crate) async fn find(pool: &Pool, key_id: &str) -> Result<Option<ApiKey>, StorageError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(FIND).await?;
    let row = client.query_opt(&statement, &[&key_id]).await?;
    row.map(|row| {
        let fields = Fields {
            table: "api_keys",
            row: &row,
        };
        Ok(ApiKey {
            tenant: TenantId(fields.get("tenant_id")?),
            secret_sha256: fields.get("secret_sha256")?,
            name: fields.get("name")?,
            created_at: fields.get::<jiff::Timestamp>("created_at")?.into(),
            revoked_at: fields
                .get::<Option<jiff::Timestamp>>("revoked_at")?
                .map(Into::into),
        })
    })
    .transpose()
}

/// Which of these keys of any tenants are revoked, or not there.
pub(crate) async fn list_unusable(
    pool: &Pool,
    key_ids: &[Box<str>],
) -> Result<Vec<String>, StorageError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(LIST_UNUSABLE).await?;
    let rows = client.query(&statement, &[&key_ids]).await?;
    let key_id = |row| {
        let fields = Fields {
            table: "api_keys",
            row,
        };
        fields.get("key_id")
    };
    rows.iter().map(key_id).collect()
}
