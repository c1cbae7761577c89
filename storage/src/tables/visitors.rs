//! Table `visitors`: the people who chat. A tenant's own id of a person is unique in the tenant.
//!
//! Whoever asks for a ticket is written down, so whoever then never opens a session is forgotten again,
//! after two days: see [`sessions::insert`](super::sessions::insert).

use deadpool_postgres::Pool;
use hubbub_protocol::{BotId, VisitorId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::fields::Fields;
use crate::{StorageError, TenantScope};

const INSERT: &str = "INSERT INTO visitors (tenant_id, id, name, bot_id, token_sha256, expires_at) \
    VALUES ($1, $2, $3, $4, $5, now() + interval '2 days')";
const FIND_BY_TOKEN: &str = "SELECT id, name, bot_id FROM visitors \
    WHERE tenant_id = $1 AND token_sha256 = $2";
const UPSERT: &str = "INSERT INTO visitors (tenant_id, id, external_id, name) \
    VALUES ($1, $2, $3, $4) \
    ON CONFLICT ON CONSTRAINT visitors_external_id_key DO UPDATE SET name = excluded.name \
    RETURNING id, name, bot_id";
// Rows older than 0007 have no bot: theirs is the one whose page they come back to.
const UPDATE_RETURNED: &str = "UPDATE visitors SET bot_id = coalesce(bot_id, $3), \
    expires_at = CASE WHEN expires_at IS NOT NULL THEN now() + interval '2 days' END \
    WHERE tenant_id = $1 AND id = $2 AND (bot_id IS NULL OR expires_at < now() + interval '1 day')";
const DELETE_EXPIRED: &str = "SELECT delete_expired_visitors() AS gone";

/// A visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// Their id.
    pub id: VisitorId,
    /// For people to read; may be empty.
    pub name: String,
    /// The bot whose page they came to. `None`: the tenant's own site vouches for them.
    pub bot: Option<BotId>,
}

impl Visitor {
    /// Somebody who came to the page of a bot, and of whom nothing else is known.
    pub fn anonymous(id: VisitorId, bot: BotId) -> Self {
        Self {
            id,
            name: String::from("Visitor"),
            bot: Some(bot),
        }
    }
}

/// Creates an anonymous visitor, known again by a token. They are forgotten if they never open a session.
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
            &[
                &scope.tenant().0,
                &visitor.id.0,
                &visitor.name,
                &visitor.bot.map(|id| id.0),
                &token,
            ],
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

/// Notes that a visitor came back to the page of a bot: they are remembered longer.
///
/// # Errors
/// The database could not.
pub async fn update_returned(
    scope: &TenantScope,
    visitor: VisitorId,
    bot: BotId,
) -> Result<(), StorageError> {
    scope
        .execute(UPDATE_RETURNED, &[&scope.tenant().0, &visitor.0, &bot.0])
        .await?;
    Ok(())
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

/// Deletes at most a thousand visitors who never opened a session; how many there were.
pub(crate) async fn delete_expired(pool: &Pool) -> Result<u64, StorageError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(DELETE_EXPIRED).await?;
    let row = client.query_one(&statement, &[]).await?;
    Fields {
        table: "visitors",
        row: &row,
    }
    .count("gone")
}

fn read(row: &Row) -> Result<Visitor, StorageError> {
    let fields = Fields {
        table: "visitors",
        row,
    };
    Ok(Visitor {
        id: VisitorId(fields.get("id")?),
        name: fields.get("name")?,
        bot: fields.get::<Option<Uuid>>("bot_id")?.map(BotId),
    })
}
