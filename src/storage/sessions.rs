//! Table `sessions`: conversations. The database itself refuses another tenant's bot or visitor.

use futures_util::future;
use hubbub_actors::ports::{Fence, NewSession, SessionRecord};
use hubbub_protocol::{BotId, Epoch, Seq, SessionId, Timestamp, VisitorId, http::Session};
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Fields;
use super::{StorageError, TenantScope, replies};

// Opening is repeated when its answer was lost: the second time finds the session there. Its visitor is
// not forgotten any more.
const INSERT: &str = "WITH kept AS (UPDATE visitors SET expires_at = NULL \
    WHERE tenant_id = $1 AND id = $4 AND expires_at IS NOT NULL) \
    INSERT INTO sessions (tenant_id, id, bot_id, visitor_id) \
    VALUES ($1, $2, $3, $4) ON CONFLICT ON CONSTRAINT sessions_pkey DO NOTHING";
const LOAD: &str = "SELECT s.id, s.bot_id, s.visitor_id, s.fence, \
    coalesce((SELECT m.seq FROM messages m WHERE m.tenant_id = s.tenant_id \
              AND m.session_id = s.id ORDER BY m.seq DESC LIMIT 1), 0) AS head, \
    (SELECT d.epoch FROM deployment d) AS epoch \
    FROM sessions s WHERE s.tenant_id = $1 AND s.id = $2";
const FIND: &str = "SELECT id, bot_id, visitor_id, created_at, last_activity_at FROM sessions \
    WHERE tenant_id = $1 AND id = $2";
// One statement for each filter, each served by its own index.
const LIST: &str = "SELECT id, bot_id, visitor_id, created_at, last_activity_at FROM sessions \
    WHERE tenant_id = $1 AND (last_activity_at, id) < ($2, $3) \
    ORDER BY last_activity_at DESC, id DESC LIMIT $4";
const LIST_BY_BOT: &str = "SELECT id, bot_id, visitor_id, created_at, last_activity_at \
    FROM sessions WHERE tenant_id = $1 AND bot_id = $5 AND (last_activity_at, id) < ($2, $3) \
    ORDER BY last_activity_at DESC, id DESC LIMIT $4";
const LIST_BY_VISITOR: &str = "SELECT id, bot_id, visitor_id, created_at, last_activity_at \
    FROM sessions WHERE tenant_id = $1 AND visitor_id = $5 AND ($6::uuid IS NULL OR bot_id = $6) \
    AND (last_activity_at, id) < ($2, $3) ORDER BY last_activity_at DESC, id DESC LIMIT $4";

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
    /// Microseconds since the Unix epoch of the last row's activity, exactly as stored.
    pub activity_us: i64,
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
            fence: Fence(fields.count("fence")?),
            epoch: Epoch(fields.get("epoch")?),
            pending,
        })
    })
    .transpose()
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
    row.map(|row| Ok(read(&row)?.0)).transpose()
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
            jiff::Timestamp::from_microsecond(cursor.activity_us)
                .unwrap_or(jiff::Timestamp::UNIX_EPOCH),
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
    let mut found = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = if more {
        found.last().map(|(_, cursor)| *cursor)
    } else {
        None
    };
    Ok(SessionPage {
        items: found.into_iter().map(|(session, _)| session).collect(),
        next,
    })
}

/// 9000-01-01, later than any activity and within what both sides can express.
const FAR_FUTURE: jiff::Timestamp = jiff::Timestamp::constant(221_845_392_000, 0);

fn read(row: &Row) -> Result<(Session, SessionCursor), StorageError> {
    let fields = Fields {
        table: "sessions",
        row,
    };
    let activity: jiff::Timestamp = fields.get("last_activity_at")?;
    let id = SessionId(fields.get("id")?);
    let session = Session {
        id,
        bot: BotId(fields.get("bot_id")?),
        visitor: fields.get::<Option<Uuid>>("visitor_id")?.map(VisitorId),
        created_at: Timestamp::from(fields.get::<jiff::Timestamp>("created_at")?),
        last_activity_at: activity.into(),
    };
    Ok((
        session,
        SessionCursor {
            activity_us: activity.as_microsecond(),
            session: id,
        },
    ))
}
