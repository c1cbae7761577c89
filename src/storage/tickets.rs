//! Table `tickets`: single-use credentials of a few seconds. Redeeming deletes the row, so of any
//! number of attempts one succeeds.

use std::time::Duration;

use deadpool_postgres::Pool;
use hubbub_protocol::{BotId, Principal, PrincipalKind, TenantId, VisitorId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Fields;
use super::{StorageError, TenantScope};

const INSERT: &str = "INSERT INTO tickets (tenant_id, ticket_sha256, principal_kind, principal_id, \
    principal_name, visitor_id, bot_id, origin, key_id, expires_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + $10::float8 * interval '1 second')";
const REDEEM: &str = "SELECT tenant_id, principal_kind, principal_id, principal_name, visitor_id, \
    bot_id, origin, key_id, live FROM redeem_ticket($1)";
const DELETE_EXPIRED: &str = "SELECT delete_expired_tickets() AS gone";

/// What a ticket stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Who connects with it.
    pub principal: Principal,
    /// The visitor behind the principal.
    pub visitor: Option<VisitorId>,
    /// The bot of the widget it was minted for.
    pub bot: Option<BotId>,
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
    let kind = kind_name(ticket.principal.kind);
    scope
        .execute(
            INSERT,
            &[
                &scope.tenant().0,
                &digest,
                &kind,
                &ticket.principal.id,
                &ticket.principal.name,
                &ticket.visitor.map(|id| id.0),
                &ticket.bot.map(|id| id.0),
                &ticket.origin,
                &ticket.key,
                &lifetime.as_secs_f64(),
            ],
        )
        .await?;
    Ok(())
}

/// Uses a ticket up. `None`: there is none, it was used, it has expired, or its key was revoked.
pub(super) async fn redeem(
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
pub(super) async fn delete_expired(pool: &Pool) -> Result<u64, StorageError> {
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
    let kind: String = fields.get("principal_kind")?;
    let kind = kind_of(&kind).ok_or_else(|| fields.unreadable("principal_kind"))?;
    let ticket = Ticket {
        principal: Principal {
            kind,
            id: fields.get("principal_id")?,
            name: fields.get("principal_name")?,
        },
        visitor: fields.get::<Option<Uuid>>("visitor_id")?.map(VisitorId),
        bot: fields.get::<Option<Uuid>>("bot_id")?.map(BotId),
        origin: fields.get("origin")?,
        key: fields.get("key_id")?,
    };
    Ok(Some((TenantId(fields.get("tenant_id")?), ticket)))
}

fn kind_name(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::Visitor => "visitor",
        PrincipalKind::User => "user",
        PrincipalKind::Operator => "operator",
        PrincipalKind::ApiKey => "api_key",
    }
}

fn kind_of(name: &str) -> Option<PrincipalKind> {
    [
        PrincipalKind::Visitor,
        PrincipalKind::User,
        PrincipalKind::Operator,
        PrincipalKind::ApiKey,
    ]
    .into_iter()
    .find(|kind| kind_name(*kind) == name)
}
