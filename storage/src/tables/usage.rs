//! The ledger, summed up.

use std::time::Duration;

use hubbub_protocol::usage::{UsageBy, UsageItem, UsageReport, UsageTotals};
use hubbub_protocol::{BotId, SessionId, Timestamp, VisitorId};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::fields::Fields;
use crate::{StorageError, TenantScope};

// The total comes first, and from the same snapshot as its items.
const SUM: &str = "SELECT key, GROUPING(key) = 1 AS is_total, count(*)::int8 AS attempts, \
      count(*) FILTER (WHERE source = 'estimated')::int8 AS estimated, \
      least(coalesce(sum(input_tokens), 0), 9000000000000000000)::int8 AS input_tokens, \
      least(coalesce(sum(cached_input_tokens), 0), 9000000000000000000)::int8 AS cached_input_tokens, \
      least(coalesce(sum(output_tokens), 0), 9000000000000000000)::int8 AS output_tokens, least(coalesce(sum(cost), 0), 9000000000000000000)::int8 AS cost \
    FROM (SELECT CASE $4 WHEN 'bot' THEN bot_id::text WHEN 'session' THEN session_id::text \
        WHEN 'visitor' THEN coalesce(visitor_id::text, '') WHEN 'model' THEN upstream || '/' || model \
        WHEN 'day' THEN to_char(ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') ELSE tenant_id::text END AS key, \
        source, input_tokens, cached_input_tokens, output_tokens, cost FROM attempts \
      WHERE tenant_id = $1 AND ended_at >= $2 AND ended_at < $3 AND ($5::uuid IS NULL OR bot_id = $5) \
        AND ($6::uuid IS NULL OR visitor_id = $6) AND ($7::uuid IS NULL OR session_id = $7)) AS a \
    GROUP BY GROUPING SETS ((key), ()) \
    ORDER BY is_total DESC, CASE $4 WHEN 'day' THEN key END, cost DESC, input_tokens DESC, key LIMIT $8";

const MILLISECOND: Duration = Duration::from_millis(1);

/// Which attempts.
#[derive(Clone, Copy, Debug)]
pub struct UsageFilter {
    /// That ended then or later …
    pub from: Timestamp,
    /// … and before that.
    pub to: Timestamp,
    /// Of one bot.
    pub bot: Option<BotId>,
    /// For one visitor.
    pub visitor: Option<VisitorId>,
    /// In one session.
    pub session: Option<SessionId>,
}

impl UsageFilter {
    /// Everything of this month, in UTC, until now: to the end of this millisecond, or what ended in it would be
    /// left out.
    pub fn this_month() -> Self {
        let now = jiff::Timestamp::now();
        let first = now.to_zoned(jiff::tz::TimeZone::UTC).first_of_month();
        let start = first.and_then(|first| first.start_of_day());
        Self {
            from: start.map_or(now, |start| start.timestamp()).into(),
            to: now.saturating_add(MILLISECOND).unwrap_or(now).into(),
            bot: None,
            visitor: None,
            session: None,
        }
    }
}

/// Sums up the scope's tenant's attempts, in at most `limit` items.
///
/// # Errors
/// The database could not.
pub async fn sum(
    scope: &TenantScope,
    filter: UsageFilter,
    by: UsageBy,
    limit: u32,
) -> Result<UsageReport, StorageError> {
    let instant = |at: Timestamp| jiff::Timestamp::from_millisecond(at.unix_ms());
    // What a time cannot express lies beyond every attempt.
    let from = instant(filter.from).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let to = instant(filter.to).unwrap_or(jiff::Timestamp::MAX);
    let of: [Option<Uuid>; 3] = [
        filter.bot.map(|id| id.0),
        filter.visitor.map(|id| id.0),
        filter.session.map(|id| id.0),
    ];
    let (tenant, by_name) = (scope.tenant().0, by.as_str());
    let wanted = i64::from(limit) + 2;
    let params: [&(dyn ToSql + Sync); 8] = [
        &tenant, &from, &to, &by_name, &of[0], &of[1], &of[2], &wanted,
    ];
    let rows = scope.query(SUM, &params).await?;
    let mut report = UsageReport {
        from: filter.from,
        to: filter.to,
        by,
        total: UsageTotals::default(),
        items: Vec::new(),
        more: false,
    };
    for row in &rows {
        let (key, totals) = read(row)?;
        match key {
            None => report.total = totals,
            Some(_) if report.items.len() >= limit as usize => report.more = true,
            Some(key) => report.items.push(UsageItem { key, totals }),
        }
    }
    Ok(report)
}

/// Sums, and of what; `None` of all.
fn read(row: &Row) -> Result<(Option<String>, UsageTotals), StorageError> {
    let fields = Fields {
        table: "attempts",
        row,
    };
    let is_total: bool = fields.get("is_total")?;
    let key = (!is_total).then(|| fields.get("key")).transpose()?;
    let totals = UsageTotals {
        attempts: fields.count("attempts")?,
        estimated: fields.count("estimated")?,
        input_tokens: fields.count("input_tokens")?,
        cached_input_tokens: fields.count("cached_input_tokens")?,
        output_tokens: fields.count("output_tokens")?,
        cost_microcents: fields.count("cost")?,
    };
    Ok((key, totals))
}
