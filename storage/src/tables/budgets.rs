//! Tables `budgets` and `spending`: how much may be spent in a period, and what was.
//!
//! What is set aside lies with the pending replies themselves, so it ends with them, whoever ends them and
//! whatever died before.

use std::str::FromStr;
use std::time::Duration;

use hubbub_actors::ports::{Exhausted, Reservation};
use hubbub_protocol::BotId;
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::fields::{Fields, bigint};
use crate::{StorageError, TenantScope};

const EXISTS: &str = "SELECT EXISTS (SELECT FROM budgets WHERE tenant_id = $1) AS has_budget";
// Whoever reserves holds the tenant's budgets until it commits, so two never reserve the same rest.
const LOCK: &str = "SELECT id FROM budgets WHERE tenant_id = $1 ORDER BY id FOR NO KEY UPDATE";
// A statement of its own: it takes its snapshot after the lock is held.
const RESERVE: &str = "WITH wanted AS ( \
      SELECT coalesce(max(cost_of(p, $6, 0, $7)), 0) AS cost FROM unnest($8::text[], $9::text[]) \
        AS m (upstream, model) CROSS JOIN LATERAL price_at(m.upstream, m.model, now()) AS p), \
    budget AS ( \
      SELECT b.id, b.scope, b.amount, date_trunc(b.period, now(), 'UTC') AS period_start, \
        (date_trunc(b.period, now(), 'UTC') + ('1 ' || b.period)::interval) AS period_end, \
        CASE b.scope WHEN 'tenant' THEN b.tenant_id WHEN 'bot' THEN b.bot_id ELSE $5::uuid END AS subject \
      FROM budgets b WHERE b.tenant_id = $1 AND (b.scope = 'tenant' OR b.scope = 'bot' AND b.bot_id = $4 \
        OR b.scope = 'visitor' AND $5::uuid IS NOT NULL)), \
    pending AS ( \
      SELECT r.reserved, s.bot_id, s.visitor_id FROM replies r \
      JOIN sessions s ON s.tenant_id = r.tenant_id AND s.id = r.session_id \
      WHERE r.tenant_id = $1 AND r.state = 'pending' AND r.reserved > 0 AND r.id <> $3), \
    exceeded AS ( \
      SELECT max(budget.period_end) AS period_end FROM budget CROSS JOIN wanted \
      LEFT JOIN spending s ON s.tenant_id = $1 AND s.budget_id = budget.id \
        AND s.subject_id = budget.subject AND s.period_start = budget.period_start \
      CROSS JOIN LATERAL (SELECT coalesce(sum(p.reserved), 0) AS reserved FROM pending p \
        WHERE budget.scope = 'tenant' OR budget.scope = 'bot' AND p.bot_id = $4 \
          OR budget.scope = 'visitor' AND p.visitor_id = $5) AS p \
      WHERE coalesce(s.spent, 0) + p.reserved + wanted.cost > budget.amount), \
    kept AS ( \
      UPDATE replies r SET reserved = wanted.cost FROM wanted, exceeded \
      WHERE r.tenant_id = $1 AND r.id = $3 AND r.session_id = $2 AND r.state = 'pending' \
        AND exceeded.period_end IS NULL) \
    SELECT extract(epoch FROM period_end - now())::float8 AS resets_in FROM exceeded \
    WHERE period_end IS NOT NULL";
// Nothing is added to the ledger until the budget counts what is there.
const LOCK_LEDGER: &str = "SELECT lock_attempts()";
const SET: &str = "INSERT INTO budgets (tenant_id, id, scope, bot_id, period, amount) \
    VALUES ($1, $2, $3, $4, $5, $6) \
    ON CONFLICT ON CONSTRAINT budgets_key DO UPDATE SET amount = excluded.amount RETURNING id";
// What was spent in its period before it was set.
const COUNT_SPENT: &str = "INSERT INTO spending (tenant_id, budget_id, subject_id, period_start, spent) \
    SELECT b.tenant_id, b.id, s.subject, p.start, sum(a.cost) FROM budgets b \
    CROSS JOIN LATERAL (SELECT date_trunc(b.period, now(), 'UTC') AS start) AS p \
    JOIN attempts a ON a.tenant_id = b.tenant_id AND a.ended_at >= p.start \
      AND (b.bot_id IS NULL OR b.bot_id = a.bot_id) \
    CROSS JOIN LATERAL (SELECT CASE b.scope WHEN 'tenant' THEN a.tenant_id WHEN 'bot' THEN a.bot_id \
      ELSE a.visitor_id END AS subject) AS s \
    WHERE b.tenant_id = $1 AND b.id = $2 AND s.subject IS NOT NULL GROUP BY 1, 2, 3, 4 \
    ON CONFLICT (tenant_id, budget_id, subject_id, period_start) DO NOTHING";
// A visitors' budget is each visitor's own, so no single amount was spent of it.
const LIST: &str = "SELECT b.id, b.scope, b.bot_id, b.period, b.amount, \
      CASE WHEN b.scope <> 'visitor' THEN coalesce(s.spent, 0) END AS spent \
    FROM budgets b LEFT JOIN spending s ON s.tenant_id = b.tenant_id AND s.budget_id = b.id \
      AND s.subject_id = coalesce(b.bot_id, b.tenant_id) \
      AND s.period_start = date_trunc(b.period, now(), 'UTC') \
    WHERE b.tenant_id = $1 ORDER BY b.scope, b.bot_id, b.period";
const REMOVE: &str = "DELETE FROM budgets WHERE tenant_id = $1 AND id = $2";

/// Whom a budget covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetScope {
    /// Everything of the tenant.
    Tenant,
    /// One of its bots.
    Bot(BotId),
    /// Each of its visitors by themselves.
    Visitor,
}

/// How long a budget lasts before it begins again. Calendar days and months in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A day.
    Day,
    /// A month.
    Month,
}

impl FromStr for Period {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "day" => Ok(Self::Day),
            "month" => Ok(Self::Month),
            _ => Err("must be day or month"),
        }
    }
}

/// A budget.
#[derive(Clone, Debug, Serialize)]
pub struct Budget {
    /// Its id.
    pub id: Uuid,
    /// `tenant`, `bot` or `visitor`.
    pub scope: String,
    /// The bot, if it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bot: Option<BotId>,
    /// `day` or `month`.
    pub period: String,
    /// Micro-cents that may be spent in each period.
    pub amount: u64,
    /// Micro-cents that were spent in this one; `None` for visitors, who have one each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spent: Option<u64>,
}

/// Whether the scope's tenant has any.
pub(crate) async fn exist(scope: &TenantScope) -> Result<bool, StorageError> {
    let row = scope.query_opt(EXISTS, &[&scope.tenant().0]).await?;
    row.map_or(Ok(false), |row| fields(&row).get("has_budget"))
}

/// See [`UsageLedger::reserve`](hubbub_actors::ports::UsageLedger::reserve).
pub(crate) async fn reserve(
    scope: &TenantScope,
    reservation: &Reservation,
) -> Result<Option<Exhausted>, StorageError> {
    let tenant = scope.tenant().0;
    scope.query(LOCK, &[&tenant]).await?;
    let (upstreams, models): (Vec<&str>, Vec<&str>) = reservation
        .models
        .iter()
        .map(|(upstream, model)| (upstream.as_str(), model.as_str()))
        .unzip();
    let exhausted = scope
        .query_opt(
            RESERVE,
            &[
                &tenant,
                &reservation.session.0,
                &reservation.reply.0,
                &reservation.bot.0,
                &reservation.visitor.map(|visitor| visitor.0),
                &bigint(reservation.input_tokens),
                &bigint(reservation.output_tokens),
                &upstreams,
                &models,
            ],
        )
        .await?;
    exhausted
        .map(|row| {
            let seconds: f64 = fields(&row).get("resets_in")?;
            let resets_in = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            Ok(Exhausted { resets_in })
        })
        .transpose()
}

/// Sets a budget of the scope's tenant, in micro-cents, or changes its amount. What was spent in its period
/// before counts.
///
/// # Errors
/// There is no such tenant or bot, or the database could not.
pub async fn set(
    scope: &TenantScope,
    of: BudgetScope,
    period: Period,
    amount: u64,
) -> Result<Uuid, StorageError> {
    let tenant = scope.tenant().0;
    let (of, bot) = match of {
        BudgetScope::Tenant => ("tenant", None),
        BudgetScope::Bot(bot) => ("bot", Some(bot.0)),
        BudgetScope::Visitor => ("visitor", None),
    };
    let period = match period {
        Period::Day => "day",
        Period::Month => "month",
    };
    scope.query(LOCK_LEDGER, &[]).await?;
    let id = Uuid::now_v7();
    let set = scope
        .query_opt(SET, &[&tenant, &id, &of, &bot, &period, &bigint(amount)])
        .await?;
    let id = set.map_or(Ok(id), |row| fields(&row).get("id"))?;
    scope.execute(COUNT_SPENT, &[&tenant, &id]).await?;
    Ok(id)
}

/// The scope's tenant's budgets.
///
/// # Errors
/// The database could not.
pub async fn list(scope: &TenantScope) -> Result<Vec<Budget>, StorageError> {
    let rows = scope.query(LIST, &[&scope.tenant().0]).await?;
    let read = |row| {
        let fields = fields(row);
        Ok(Budget {
            id: fields.get("id")?,
            scope: fields.get("scope")?,
            bot: fields.get::<Option<Uuid>>("bot_id")?.map(BotId),
            period: fields.get("period")?,
            amount: fields.count("amount")?,
            spent: fields.optional_count("spent")?,
        })
    };
    rows.iter().map(read).collect()
}

/// Removes a budget of the scope's tenant; `false` if there is none of this id.
///
/// # Errors
/// The database could not.
pub async fn remove(scope: &TenantScope, id: Uuid) -> Result<bool, StorageError> {
    let removed = scope.execute(REMOVE, &[&scope.tenant().0, &id]).await?;
    Ok(removed > 0)
}

fn fields(row: &Row) -> Fields<'_> {
    Fields {
        table: "budgets",
        row,
    }
}
