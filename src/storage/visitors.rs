//! Table `visitors`: the people who chat. A tenant's own id of a person is unique in the tenant.

use hubbub_protocol::VisitorId;
use tokio_postgres::Row;

use super::error::Fields;
use super::{StorageError, TenantScope};

const INSERT: &str = "INSERT INTO visitors (tenant_id, id, name, token_sha256) \
    VALUES ($1, $2, $3, $4)";
const FIND_BY_TOKEN: &str = "SELECT id, name FROM visitors \
    WHERE tenant_id = $1 AND token_sha256 = $2";
const UPSERT: &str = "INSERT INTO visitors (tenant_id, id, external_id, name) \
    VALUES ($1, $2, $3, $4) \
    ON CONFLICT ON CONSTRAINT visitors_external_id_key DO UPDATE SET name = excluded.name \
    RETURNING id, name";

/// A visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// Their id.
    pub id: VisitorId,
    /// For people to read; may be empty.
    pub name: String,
}

/// Creates an anonymous visitor, known again by a token.
///
/// # Errors
/// The database could not.
pub async fn insert(
    scope: &TenantScope,
    visitor: &Visitor,
    token_sha256: Option<&[u8; 32]>,
) -> Result<(), StorageError> {
    let token = token_sha256.map(<[u8; 32]>::as_slice);
    scope
        .execute(
            INSERT,
            &[&scope.tenant().0, &visitor.id.0, &visitor.name, &token],
        )
        .await?;
    Ok(())
}

/// The visitor who holds a token.
///
/// # Errors
/// The database could not.
pub async fn find_by_token(
    scope: &TenantScope,
    token_sha256: &[u8; 32],
) -> Result<Option<Visitor>, StorageError> {
    let token = token_sha256.as_slice();
    let row = scope
        .query_opt(FIND_BY_TOKEN, &[&scope.tenant().0, &token])
        .await?;
    row.as_ref().map(read).transpose()
}

/// The visitor with the tenant's own id, made under `id` if there is none yet. Their name is updated.
///
/// # Errors
/// The database could not.
pub async fn upsert_external(
    scope: &TenantScope,
    id: VisitorId,
    external_id: &str,
    name: &str,
) -> Result<Visitor, StorageError> {
    let row = scope
        .query_opt(UPSERT, &[&scope.tenant().0, &id.0, &external_id, &name])
        .await?;
    let row = row.ok_or(StorageError::Rows {
        statement: "visitors upsert",
        changed: 0,
        expected: 1,
    })?;
    read(&row)
}

fn read(row: &Row) -> Result<Visitor, StorageError> {
    let fields = Fields {
        table: "visitors",
        row,
    };
    Ok(Visitor {
        id: VisitorId(fields.get("id")?),
        name: fields.get("name")?,
    })
}
