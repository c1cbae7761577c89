//! Table `bots`: a tenant's assistants.

use deadpool_postgres::Pool;
use hubbub_protocol::{BotId, Escalation, TenantId, http::Bot};
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::fields::{Fields, bigint};
use crate::{StorageError, TenantScope};

const INSERT: &str = "INSERT INTO bots (tenant_id, id, name, prompt, route, model, replies, \
    max_output_tokens, allowed_origins, escalation, answer_cache_s) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
    RETURNING id, name, prompt, route, model, replies, max_output_tokens, allowed_origins, \
    escalation, answer_cache_s, created_at, updated_at";
const FIND: &str = "SELECT id, name, prompt, route, model, replies, max_output_tokens, \
    allowed_origins, escalation, answer_cache_s, created_at, updated_at FROM bots WHERE tenant_id = $1 AND id = $2";
const LIST: &str = "SELECT * FROM (SELECT page.*, \
      sum(octet_length(prompt)) OVER (ORDER BY id) - octet_length(prompt) AS bytes_before \
      FROM (SELECT id, name, prompt, route, model, replies, max_output_tokens, \
        allowed_origins, escalation, answer_cache_s, created_at, updated_at FROM bots \
        WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3) AS page) AS page \
    WHERE bytes_before < $4 ORDER BY id";
const UPDATE: &str = "UPDATE bots SET name = coalesce($3, name), prompt = coalesce($4, prompt), \
    route = coalesce($5, route), model = CASE WHEN $6 THEN $7 ELSE model END, \
    replies = coalesce($8, replies), max_output_tokens = coalesce($9, max_output_tokens), \
    allowed_origins = coalesce($10, allowed_origins), escalation = coalesce($11, escalation), \
    answer_cache_s = coalesce($12, answer_cache_s), updated_at = now() \
    WHERE tenant_id = $1 AND id = $2 \
    RETURNING id, name, prompt, route, model, replies, max_output_tokens, allowed_origins, \
    escalation, answer_cache_s, created_at, updated_at";
const ALLOWS: &str = "SELECT EXISTS (SELECT FROM bots WHERE tenant_id = $1 \
    AND ($2::uuid IS NULL OR id = $2) AND $3 = ANY (allowed_origins)) AS allowed";
const FIND_WIDGET: &str = "SELECT tenant_id, allowed_origins FROM find_widget_bot($1)";

/// Most rows one page has.
pub const PAGE_LIMIT: u32 = 200;

/// Bytes of prompts with which a page is full: one has up to 128,000.
const PAGE_BYTES: i64 = 512 * 1024;

/// A bot to create.
#[derive(Clone, Debug)]
pub struct NewBot {
    /// Its id.
    pub id: BotId,
    /// Author of its messages; not empty.
    pub name: String,
    /// The system prompt.
    pub prompt: String,
    /// Upstreams in order; empty: the server's default route.
    pub route: Vec<String>,
    /// Overrides the upstreams' model.
    pub model: Option<String>,
    /// Whether it answers.
    pub replies: bool,
    /// Most tokens in one answer; at least 1.
    pub max_output_tokens: u32,
    /// Origins that may embed the widget.
    pub allowed_origins: Vec<String>,
    /// When a person is called by itself.
    pub escalation: Escalation,
    /// Seconds for which a first question's answer is given to others; 0 is never.
    pub answer_cache_s: u32,
}

/// What to change of a bot; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct BotChanges {
    /// Author of its messages.
    pub name: Option<String>,
    /// The system prompt.
    pub prompt: Option<String>,
    /// Upstreams in order.
    pub route: Option<Vec<String>>,
    /// `Some(None)` returns to the upstreams' own default.
    pub model: Option<Option<String>>,
    /// Whether it answers.
    pub replies: Option<bool>,
    /// Most tokens in one answer.
    pub max_output_tokens: Option<u32>,
    /// Origins that may embed the widget.
    pub allowed_origins: Option<Vec<String>>,
    /// When a person is called by itself.
    pub escalation: Option<Escalation>,
    /// Seconds for which a first question's answer is given to others.
    pub answer_cache_s: Option<u32>,
}

/// What is known of a bot before its tenant is: enough to mint a widget ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WidgetBot {
    /// Whose bot it is.
    pub tenant: TenantId,
    /// Origins that may embed it.
    pub allowed_origins: Vec<String>,
}

/// Creates a bot.
///
/// # Errors
/// The tenant does not exist, or the database could not.
pub async fn insert(scope: &TenantScope, bot: &NewBot) -> Result<Bot, StorageError> {
    let tokens = int4(bot.max_output_tokens);
    let rows = scope
        .query(
            INSERT,
            &[
                &scope.tenant().0,
                &bot.id.0,
                &bot.name,
                &bot.prompt,
                &bot.route,
                &bot.model,
                &bot.replies,
                &tokens,
                &bot.allowed_origins,
                &Json(&bot.escalation),
                &int4(bot.answer_cache_s),
            ],
        )
        .await?;
    let row = rows.first().ok_or(StorageError::Rows {
        statement: "bots insert",
        changed: 0,
        expected: 1,
    })?;
    read(row)
}

/// One bot.
///
/// # Errors
/// The database could not.
pub async fn find(scope: &TenantScope, bot: BotId) -> Result<Option<Bot>, StorageError> {
    let row = scope.query_opt(FIND, &[&scope.tenant().0, &bot.0]).await?;
    row.as_ref().map(read).transpose()
}

/// Bots by id, those after `after`; at most `limit` and [`PAGE_LIMIT`], or fewer whose prompts are long.
///
/// # Errors
/// The database could not.
pub async fn list(
    scope: &TenantScope,
    after: Option<BotId>,
    limit: u32,
) -> Result<Vec<Bot>, StorageError> {
    let after = after.map(|id| id.0);
    let limit = i64::from(limit.min(PAGE_LIMIT));
    let rows = scope
        .query(LIST, &[&scope.tenant().0, &after, &limit, &PAGE_BYTES])
        .await?;
    rows.iter().map(read).collect()
}

/// Whether a page of at most `limit` may have another after it.
pub fn is_full(page: &[Bot], limit: u32) -> bool {
    let bytes: usize = page.iter().map(|bot| bot.prompt.len()).sum();
    page.len() >= limit.min(PAGE_LIMIT) as usize || bigint(bytes as u64) >= PAGE_BYTES
}

/// Changes a bot; `None` if there is none.
///
/// # Errors
/// The database could not.
pub async fn update(
    scope: &TenantScope,
    bot: BotId,
    changes: &BotChanges,
) -> Result<Option<Bot>, StorageError> {
    let tokens = changes.max_output_tokens.map(int4);
    let model = changes.model.clone().flatten();
    let row = scope
        .query_opt(
            UPDATE,
            &[
                &scope.tenant().0,
                &bot.0,
                &changes.name,
                &changes.prompt,
                &changes.route,
                &changes.model.is_some(),
                &model,
                &changes.replies,
                &tokens,
                &changes.allowed_origins,
                &changes.escalation.as_ref().map(Json),
                &changes.answer_cache_s.map(int4),
            ],
        )
        .await?;
    row.as_ref().map(read).transpose()
}

/// Whether pages of this origin may talk to the bot; of none: to any bot of the tenant.
///
/// # Errors
/// The database could not.
pub async fn allows(
    scope: &TenantScope,
    bot: Option<BotId>,
    origin: &str,
) -> Result<bool, StorageError> {
    let bot = bot.map(|id| id.0);
    let rows = scope
        .query(ALLOWS, &[&scope.tenant().0, &bot, &origin])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    Fields { table: "bots", row }.get("allowed")
}

/// The tenant of a bot that a public widget names.
pub(crate) async fn find_widget(
    pool: &Pool,
    bot: BotId,
) -> Result<Option<WidgetBot>, StorageError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(FIND_WIDGET).await?;
    let row = client.query_opt(&statement, &[&bot.0]).await?;
    row.map(|row| {
        let fields = Fields {
            table: "bots",
            row: &row,
        };
        Ok(WidgetBot {
            tenant: TenantId(fields.get::<Uuid>("tenant_id")?),
            allowed_origins: fields.get("allowed_origins")?,
        })
    })
    .transpose()
}

fn read(row: &Row) -> Result<Bot, StorageError> {
    let fields = Fields { table: "bots", row };
    let count = |column: &'static str| {
        let count: i32 = fields.get(column)?;
        u32::try_from(count).map_err(|_| fields.unreadable(column))
    };
    Ok(Bot {
        id: BotId(fields.get("id")?),
        name: fields.get("name")?,
        prompt: fields.get("prompt")?,
        route: fields.get("route")?,
        model: fields.get("model")?,
        replies: fields.get("replies")?,
        max_output_tokens: count("max_output_tokens")?,
        allowed_origins: fields.get("allowed_origins")?,
        escalation: fields.get::<Json<Escalation>>("escalation")?.0,
        answer_cache_s: count("answer_cache_s")?,
        created_at: fields.get::<jiff::Timestamp>("created_at")?.into(),
        updated_at: fields.get::<jiff::Timestamp>("updated_at")?.into(),
    })
}

/// The columns are signed; no model writes two billion tokens.
fn int4(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
