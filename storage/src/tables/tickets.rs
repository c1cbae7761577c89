//! Table `tickets`: single-use credentials of a few seconds. Redeeming deletes the row, so of any
//! number of attempts one succeeds.

use std::time::Duration;

use deadpool_postgres::Pool;
use hubbub_actors::{OperatorRole, Who};
use hubbub_protocol::{BotId, TenantId, VisitorId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::fields::Fields;
use crate::{StorageError, TenantScope};

const INSERT: &str = "INSERT INTO tickets (tenant_id, ticket_sha256, principal_kind, principal_id, \
    principal_name, visitor_id, bot_id, origin, key_id, operator_role, expires_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now() + $11::float8 * interval '1 second')";
const REDEEM: &str = "SELECT tenant_id, principal_kind, principal_id, principal_name, visitor_id, \
    bot_id, origin, key_id, operator_role, live FROM redeem_ticket($1)";
const DELETE_EXPIRED: &str = "SELECT delete_expired_tickets() AS gone";

/// What a ticket stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Who connects with it.
    pub who: Who,
    /// Their name.
    pub name: String,
    /// The page it was issued to. `None`: it was not asked for by a page.
    pub origin: Option<String>,
    /// The API key that issued it, by its public id: revoked, it takes its tickets along.
    pub key: Option<String>,
}

/// Stores a ticket under its digest for `lifetime`.
///
/// # Errors
/// The database could not.
pub async fn insert(
    scope: &TenantScope,
    ticket_sha256: &[u8; 32],
    ticket: &Ticket,
    lifetime: Duration,
) -> Result<(), StorageError> {
    let digest = ticket_sha256.as_slice();
    let (kind, id) = kind_and_id(&ticket.who);
    let role = match &ticket.who {
        Who::Operator { role, .. } => Some(role.as_str()),
        _ => None,
    };
    let (visitor, bot) = match &ticket.who {
        Who::Visitor { id, bot } => (Some(id.0), Some(bot.0)),
        Who::User { id, .. } => (Some(id.0), None),
        Who::Operator { .. } | Who::Key { .. } => (None, None),
    };
    scope
        .execute(
            INSERT,
            &[
                &scope.tenant().0,
                &digest,
                &kind,
                &id,
                &ticket.name,
                &visitor,
                &bot,
                &ticket.origin,
                &ticket.key,
                &role,
                &lifetime.as_secs_f64(),
            ],
        )
        .await?;
    Ok(())
}

/// Uses a ticket up. `None`: there is none, it was used, it has expired, or its key was revoked.
pub(crate) async fn redeem(
    pool: &Pool,
    ticket_sha256: &[u8; 32],
) -> Result<Option<(TenantId, Ticket)>, StorageError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(REDEEM).await?;
    let row = client
        .query_opt(&statement, &[&ticket_sha256.as_slice()])
        .await?;
    let Some(row) = row else { return Ok(None) };
    read(&row)
}

/// Deletes at most a thousand tickets that nobody redeemed; how many there were.
pub(crate) async fn delete_expired(pool: &Pool) -> Result<u64, StorageError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(DELETE_EXPIRED).await?;
    let row = client.query_one(&statement, &[]).await?;
    Fields {
        table: "tickets",
        row: &row,
    }
    .count("gone")
}

fn read(row: &Row) -> Result<Option<(TenantId, Ticket)>, StorageError> {
    let fields = Fields {
        table: "tickets",
        row,
    };
    if !fields.get::<bool>("live")? {
        return Ok(None);
    }
    let id: String = fields.get("principal_id")?;
    let visitor = || fields.get::<Uuid>("visitor_id").map(VisitorId);
    let who = match fields.get("principal_kind")? {
        "visitor" => Who::Visitor {
            id: visitor()?,
            bot: BotId(fields.get("bot_id")?),
        },
        "user" => Who::User {
            id: visitor()?,
            external: id,
        },
        "operator" => Who::Operator {
            id,
            role: OperatorRole::of(fields.get("operator_role")?)
                .ok_or_else(|| fields.unreadable("operator_role"))?,
        },
        "api_key" => Who::Key { id },
        _ => return Err(fields.unreadable("principal_kind")),
    };
    let ticket = Ticket {
        who,
        name: fields.get("principal_name")?,
        origin: fields.get("origin")?,
        key: fields.get("key_id")?,
    };
    Ok(Some((TenantId(fields.get("tenant_id")?), ticket)))
}

/// The columns `principal_kind` and `principal_id`.
fn kind_and_id(who: &Who) -> (&'static str, String) {
    match who {
        Who::Visitor { id, .. } => ("visitor", id.to_string()),
        Who::User { external, .. } => ("user", external.clone()),
        Who::Operator { id, .. } => ("operator", id.clone()),
        Who::Key { id } => ("api_key", id.clone()),
    }
}
