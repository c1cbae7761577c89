//! Table `sessions`: conversations. The database itself refuses another tenant's bot or visitor.

use futures_util::future;
use hubbub_actors::ports::{Fence, HandlerChange, NewSession, SessionRecord};
use hubbub_protocol::{
    BotId, Epoch, Seq, SessionHandler, SessionId, Timestamp, VisitorId, http::Session,
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::replies;
use crate::fields::{Fields, bigint};
use crate::{StorageError, TenantScope};

// Opening is repeated when its answer was lost: the second time finds the session there. Its visitor is
// not forgotten any more.
const INSERT: &str = "WITH kept AS (UPDATE visitors SET expires_at = NULL \
    WHERE tenant_id = $1 AND id = $4 AND expires_at IS NOT NULL) \
    INSERT INTO sessions (tenant_id, id, bot_id, visitor_id) \
    VALUES ($1, $2, $3, $4) ON CONFLICT ON CONSTRAINT sessions_pkey DO NOTHING";
const LOAD: &str = "SELECT s.id, s.bot_id, s.visitor_id, s.fence, s.handler, s.handler_id, \
    s.handler_name, s.waiting_since, s.waiting_reason, s.summary, \
    coalesce((SELECT m.seq FROM messages m WHERE m.tenant_id = s.tenant_id \
              AND m.session_id = s.id ORDER BY m.seq DESC LIMIT 1), 0) AS head, \
    (SELECT d.epoch FROM deployment d) AS epoch \
    FROM sessions s WHERE s.tenant_id = $1 AND s.id = $2";
// Only under the fence it was decided under: of two who decide at once, one has to look again.
const CHANGE_HANDLER: &str = "UPDATE sessions SET fence = fence + 1, handler = $4, handler_id = $5, \
    handler_name = $6, waiting_since = $7, waiting_reason = $8, summary = $9 \
    WHERE tenant_id = $1 AND id = $2 AND fence = $3 RETURNING fence";
const FIND: &str = "SELECT id, bot_id, visitor_id, created_at, last_activity_at, handler, handler_id, \
    handler_name, waiting_since, waiting_reason FROM sessions \
    WHERE tenant_id = $1 AND id = $2";
// One statement for each filter, each served by its own index.
const LIST: &str = "SELECT id, bot_id, visitor_id, created_at, last_activity_at, handler, handler_id, \
    handler_name, waiting_since, waiting_reason FROM sessions \
    WHERE tenant_id = $1 AND (last_activity_at, id) < ($2, $3) \
    ORDER BY last_activity_at DESC, id DESC LIMIT $4";
const LIST_BY_BOT: &str = "SELECT id, bot_id, visitor_id, created_at, last_activity_at, handler, \
    handler_id, handler_name, waiting_since, waiting_reason \
    FROM sessions WHERE tenant_id = $1 AND bot_id = $5 AND (last_activity_at, id) < ($2, $3) \
    ORDER BY last_activity_at DESC, id DESC LIMIT $4";
const LIST_BY_VISITOR: &str = "SELECT id, bot_id, visitor_id, created_at, last_activity_at, handler, \
    handler_id, handler_name, waiting_since, waiting_reason \
    FROM sessions WHERE tenant_id = $1 AND visitor_id = $5 AND ($6::uuid IS NULL OR bot_id = $6) \
    AND (last_activity_at, id) < ($2, $3) ORDER BY last_activity_at DESC, id DESC LIMIT $4";

// Whoever has waited longest comes first.
const LIST_WAITING: &str = "SELECT id, bot_id, visitor_id, created_at, last_activity_at, handler, \
    handler_id, handler_name, waiting_since, waiting_reason FROM sessions \
    WHERE tenant_id = $1 AND handler = 'waiting' AND (waiting_since, id) > ($2, $3) \
    AND ($5::uuid IS NULL OR bot_id = $5) AND ($6::uuid IS NULL OR visitor_id = $6) \
    ORDER BY waiting_since, id LIMIT $4";

/// Most rows one page has.
pub const PAGE_LIMIT: u32 = 200;

/// Which sessions to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionFilter {
    /// Only of this bot.
    pub bot: Option<BotId>,
    /// Only of this visitor.
    pub visitor: Option<VisitorId>,
}

/// Where a page of sessions ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCursor {
    /// Microseconds since the Unix epoch of the time by which the rows are ordered, exactly as stored.
    pub at_us: i64,
    /// The last row's id.
    pub session: SessionId,
}

/// A page of sessions, last active first.
#[derive(Clone, Debug)]
pub struct SessionPage {
    /// The sessions.
    pub items: Vec<Session>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<SessionCursor>,
}

/// Creates a session, unless it is there already.
///
/// # Errors
/// `sessions_bot_fkey` is violated if the tenant has no such bot; or the database could not.
pub async fn insert(scope: &TenantScope, session: &NewSession) -> Result<(), StorageError> {
    let visitor = session.visitor.map(|id| id.0);
    scope
        .execute(
            INSERT,
            &[
                &scope.tenant().0,
                &session.session.0,
                &session.bot.0,
                &visitor,
            ],
        )
        .await?;
    Ok(())
}

/// What a session's actor starts from.
///
/// # Errors
/// The database could not.
pub async fn load(
    scope: &TenantScope,
    session: SessionId,
) -> Result<Option<SessionRecord>, StorageError> {
    let tenant = scope.tenant();
    let (row, pending) = future::join(
        scope.query_opt(LOAD, &[&tenant.0, &session.0]),
        replies::list_pending(scope, session),
    )
    .await;
    let pending = pending?;
    row?.map(|row| {
        let fields = Fields {
            table: "sessions",
            row: &row,
        };
        Ok(SessionRecord {
            tenant,
            session,
            bot: BotId(fields.get("bot_id")?),
            visitor: fields.get::<Option<Uuid>>("visitor_id")?.map(VisitorId),
            head: Seq(fields.count("head")?),
            handler: handler(&fields)?,
            summary: fields.get("summary")?,
            fence: Fence(fields.count("fence")?),
            epoch: Epoch(fields.get("epoch")?),
            pending,
        })
    })
    .transpose()
}

/// Has somebody else handle a session; its new fence, or `None` if it has another than the one given.
///
/// # Errors
/// The database could not.
pub async fn change_handler(
    scope: &TenantScope,
    change: &HandlerChange,
) -> Result<Option<Fence>, StorageError> {
    let (mut id, mut name, mut since, mut reason) = (None, None, None, None);
    let handler = match &change.handler {
        SessionHandler::Bot => "bot",
        SessionHandler::Operator {
            id: of,
            name: named,
        } => {
            (id, name) = (Some(of), Some(named));
            "operator"
        }
        SessionHandler::Waiting {
            since: at,
            reason: told,
        } => {
            since = jiff::Timestamp::from_millisecond(at.unix_ms()).ok();
            reason = told.as_ref();
            "waiting"
        }
    };
    let row = scope
        .query_opt(
            CHANGE_HANDLER,
            &[
                &change.tenant.0,
                &change.session.0,
                &bigint(change.fence.0),
                &handler,
                &id,
                &name,
                &since,
                &reason,
                &change.summary,
            ],
        )
        .await?;
    row.map(|row| {
        let fields = Fields {
            table: "sessions",
            row: &row,
        };
        Ok(Fence(fields.count("fence")?))
    })
    .transpose()
}

/// Sessions that wait for a person, oldest first, after `after`, at most `limit` and [`PAGE_LIMIT`].
///
/// # Errors
/// The database could not.
pub async fn list_waiting(
    scope: &TenantScope,
    filter: SessionFilter,
    after: Option<SessionCursor>,
    limit: u32,
) -> Result<SessionPage, StorageError> {
    let limit = limit.clamp(1, PAGE_LIMIT);
    let (since, id) = after.map_or((jiff::Timestamp::UNIX_EPOCH, Uuid::nil()), |cursor| {
        let since = jiff::Timestamp::from_microsecond(cursor.at_us);
        (since.unwrap_or(FAR_FUTURE), cursor.session.0)
    });
    let rows = scope
        .query(
            LIST_WAITING,
            &[
                &scope.tenant().0,
                &since,
                &id,
                &(i64::from(limit) + 1),
                &filter.bot.map(|id| id.0),
                &filter.visitor.map(|id| id.0),
            ],
        )
        .await?;
    page(&rows, limit, "waiting_since")
}

/// One session, as the API shows it.
///
/// # Errors
/// The database could not.
pub async fn find(
    scope: &TenantScope,
    session: SessionId,
) -> Result<Option<Session>, StorageError> {
    let row = scope
        .query_opt(FIND, &[&scope.tenant().0, &session.0])
        .await?;
    row.map(|row| read(&row)).transpose()
}

/// Sessions after `after`, last active first, at most `limit` and [`PAGE_LIMIT`].
///
/// # Errors
/// The database could not.
pub async fn list(
    scope: &TenantScope,
    filter: SessionFilter,
    after: Option<SessionCursor>,
    limit: u32,
) -> Result<SessionPage, StorageError> {
    let limit = limit.clamp(1, PAGE_LIMIT);
    let tenant = scope.tenant().0;
    let (time, id) = match after {
        Some(cursor) => (
            // Cursors come back from clients: one out of range is simply past the end.
            jiff::Timestamp::from_microsecond(cursor.at_us).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            cursor.session.0,
        ),
        None => (FAR_FUTURE, Uuid::max()),
    };
    let rows_wanted = i64::from(limit) + 1;
    let rows = match (filter.bot, filter.visitor) {
        (None, None) => {
            scope
                .query(LIST, &[&tenant, &time, &id, &rows_wanted])
                .await?
        }
        (Some(bot), None) => {
            scope
                .query(LIST_BY_BOT, &[&tenant, &time, &id, &rows_wanted, &bot.0])
                .await?
        }
        (bot, Some(visitor)) => {
            let bot = bot.map(|id| id.0);
            scope
                .query(
                    LIST_BY_VISITOR,
                    &[&tenant, &time, &id, &rows_wanted, &visitor.0, &bot],
                )
                .await?
        }
    };
    page(&rows, limit, "last_activity_at")
}

/// A page of at most `limit` of these rows, which are ordered by the time in `column`.
fn page(rows: &[Row], limit: u32, column: &'static str) -> Result<SessionPage, StorageError> {
    let shown = rows.get(..limit as usize);
    let last = shown
        .and_then(<[Row]>::last)
        .filter(|_| rows.len() > limit as usize);
    let next = last.map(|row| {
        let fields = Fields {
            table: "sessions",
            row,
        };
        Ok::<_, StorageError>(SessionCursor {
            at_us: fields.get::<jiff::Timestamp>(column)?.as_microsecond(),
            session: SessionId(fields.get("id")?),
        })
    });
    Ok(SessionPage {
        items: shown
            .unwrap_or(rows)
            .iter()
            .map(read)
            .collect::<Result<_, _>>()?,
        next: next.transpose()?,
    })
}

/// 9000-01-01, later than any activity and within what both sides can express.
const FAR_FUTURE: jiff::Timestamp = jiff::Timestamp::constant(221_845_392_000, 0);

fn read(row: &Row) -> Result<Session, StorageError> {
    let fields = Fields {
        table: "sessions",
        row,
    };
    Ok(Session {
        id: SessionId(fields.get("id")?),
        bot: BotId(fields.get("bot_id")?),
        visitor: fields.get::<Option<Uuid>>("visitor_id")?.map(VisitorId),
        handler: handler(&fields)?,
        created_at: Timestamp::from(fields.get::<jiff::Timestamp>("created_at")?),
        last_activity_at: fields.get::<jiff::Timestamp>("last_activity_at")?.into(),
    })
}

fn handler(fields: &Fields<'_>) -> Result<SessionHandler, StorageError> {
    Ok(match fields.get("handler")? {
        "bot" => SessionHandler::Bot,
        "operator" => SessionHandler::Operator {
            id: fields.get("handler_id")?,
            name: fields
                .get::<Option<String>>("handler_name")?
                .unwrap_or_default(),
        },
        "waiting" => SessionHandler::Waiting {
            since: fields.get::<jiff::Timestamp>("waiting_since")?.into(),
            reason: fields.get("waiting_reason")?,
        },
        _ => return Err(fields.unreadable("handler")),
    })
}
