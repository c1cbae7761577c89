//! Table `attempts`: the ledger. Written with the ends of replies, by the writer; read by tenants.
//!
//! A row is written once, whatever becomes of its reply's end: it has a key of its own, and a batch that is
//! sent again finds it there. Each row is reckoned in the statement that writes it, and added to the budgets that
//! cover it.

use hubbub_actors::ports::{Attempt, Claim};
use hubbub_protocol::{ReplyId, SessionId, TenantId};
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::StorageError;
use crate::fields::bigint;
use crate::scope::Transaction;

/// The statement's common table expressions: attempts that are not written yet, from the fifteen arrays $1 to
/// $15, and what they add to their budgets. Budgets in the order of their keys: two batches add to those they
/// share in the same order.
macro_rules! recorded {
    () => {
        "kept AS ( \
      INSERT INTO attempts (tenant_id, reply_id, claim, number, session_id, bot_id, visitor_id, upstream, \
        model, outcome, source, input_tokens, cached_input_tokens, output_tokens, started_at, price_id, \
        cost, ended_at) \
      SELECT t.*, p.id, cost_of(p, t.input, t.cached, t.output), clock_timestamp() \
      FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::int4[], $5::uuid[], $6::uuid[], $7::uuid[], \
        $8::text[], $9::text[], $10::text[], $11::text[], $12::int8[], $13::int8[], $14::int8[], \
        $15::timestamptz[]) AS t (tenant, reply, claim, number, session, bot, visitor, upstream, model, \
        outcome, source, input, cached, output, started_at) \
      LEFT JOIN LATERAL price_at(t.upstream, t.model, t.started_at) AS p ON true \
      ON CONFLICT (tenant_id, reply_id, claim, number) DO NOTHING \
      RETURNING tenant_id, bot_id, visitor_id, cost, ended_at), \
    added AS ( \
      INSERT INTO spending (tenant_id, budget_id, subject_id, period_start, spent) \
      SELECT b.tenant_id, b.id, s.subject, date_trunc(b.period, k.ended_at, 'UTC'), sum(k.cost) \
      FROM kept k JOIN budgets b ON b.tenant_id = k.tenant_id AND (b.bot_id IS NULL OR b.bot_id = k.bot_id) \
      CROSS JOIN LATERAL (SELECT CASE b.scope WHEN 'tenant' THEN k.tenant_id WHEN 'bot' THEN k.bot_id \
        ELSE k.visitor_id END AS subject) AS s \
      WHERE s.subject IS NOT NULL AND k.cost > 0 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 \
      ON CONFLICT (tenant_id, budget_id, subject_id, period_start) \
      DO UPDATE SET spent = least(spending.spent::numeric + excluded.spent, 9000000000000000000)::int8)"
    };
}
pub(crate) use recorded;

pub(crate) const RECORD: &str = concat!("WITH ", recorded!(), " SELECT");

/// A row to write.
#[derive(Debug)]
pub(crate) struct AttemptRow {
    pub tenant: TenantId,
    pub session: SessionId,
    pub reply: ReplyId,
    pub claim: Claim,
    /// From 1.
    pub number: i32,
    pub attempt: Attempt,
}

/// Tokens of one attempt beyond this are a fault of whoever counted them, and count as this.
const MOST_TOKENS: u64 = 1_000_000_000;

/// Rows as the arrays that `recorded!` takes.
pub(crate) struct Columns<'a> {
    tenants: Vec<Uuid>,
    replies: Vec<Uuid>,
    claims: Vec<i64>,
    numbers: Vec<i32>,
    sessions: Vec<Uuid>,
    bots: Vec<Uuid>,
    visitors: Vec<Option<Uuid>>,
    upstreams: Vec<&'a str>,
    models: Vec<&'a str>,
    outcomes: Vec<&'a str>,
    sources: Vec<&'a str>,
    inputs: Vec<i64>,
    cached: Vec<i64>,
    outputs: Vec<i64>,
    starts: Vec<jiff::Timestamp>,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(rows: &'a [AttemptRow]) -> Self {
        let ids = |of: fn(&AttemptRow) -> Uuid| rows.iter().map(of).collect();
        let words = |of: fn(&Attempt) -> &str| rows.iter().map(|row| of(&row.attempt)).collect();
        let tokens = |of: fn(&Attempt) -> u64| {
            let counts = rows.iter().map(|row| of(&row.attempt).min(MOST_TOKENS));
            counts.map(bigint).collect()
        };
        let starts = rows.iter().map(|row| {
            let started_at = row.attempt.started_at.unix_ms();
            jiff::Timestamp::from_millisecond(started_at).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        });
        let visitors = rows.iter().map(|row| row.attempt.visitor.map(|id| id.0));
        Self {
            tenants: ids(|row| row.tenant.0),
            replies: ids(|row| row.reply.0),
            claims: rows.iter().map(|row| bigint(row.claim.0)).collect(),
            numbers: rows.iter().map(|row| row.number).collect(),
            sessions: ids(|row| row.session.0),
            bots: ids(|row| row.attempt.bot.0),
            visitors: visitors.collect(),
            upstreams: words(|attempt| &attempt.upstream),
            models: words(|attempt| &attempt.model),
            outcomes: words(|attempt| attempt.outcome.as_str()),
            sources: words(|attempt| attempt.source.as_str()),
            inputs: tokens(|attempt| attempt.usage.input_tokens),
            cached: tokens(|attempt| {
                let usage = attempt.usage;
                usage.cached_input_tokens.min(usage.input_tokens)
            }),
            outputs: tokens(|attempt| attempt.usage.output_tokens),
            starts: starts.collect(),
        }
    }

    /// $1 to $15.
    pub(crate) fn params(&self) -> [&(dyn ToSql + Sync); 15] {
        [
            &self.tenants,
            &self.replies,
            &self.claims,
            &self.numbers,
            &self.sessions,
            &self.bots,
            &self.visitors,
            &self.upstreams,
            &self.models,
            &self.outcomes,
            &self.sources,
            &self.inputs,
            &self.cached,
            &self.outputs,
            &self.starts,
        ]
    }
}

/// Writes rows that are not written yet, and adds what they cost to their budgets.
pub(crate) async fn record(
    transaction: &Transaction,
    statement: &Statement,
    rows: &[AttemptRow],
) -> Result<(), StorageError> {
    if !rows.is_empty() {
        let columns = Columns::of(rows);
        transaction.run(statement, &columns.params()).await?;
    }
    Ok(())
}
