//! The batch's writes: messages, the replies they ask for, the replies that end. Each statement's own
//! result is checked: COMMIT of a failed transaction answers without an error.

use futures_util::future;
use hubbub_actors::ports::{OwedReply, ReplyFailure};
use hubbub_protocol::{Cut, Metadata, Timestamp, Usage};
use tokio_postgres::Statement;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::plan::Plan;
use super::rows::{EndRow, MessageRow};
use crate::StorageError;
use crate::fields::{Fields, bigint};
use crate::scope::Transaction;
use crate::tables::ledger;
use crate::tables::messages::role_number;

// The clock once for all rows and after the locks, so times never run against the numbers.
const INSERT_MESSAGES: &str = "INSERT INTO messages (tenant_id, session_id, seq, client_id, role, \
    author, body, body_sha256, metadata, reply_id, model, input_tokens, output_tokens, latency_ms, \
    client_id_spelling, cut, usage_estimated, cached_input_tokens, created_at) \
    SELECT t.*, clock.now FROM (SELECT clock_timestamp() AS now) AS clock CROSS JOIN \
    unnest($1::uuid[], $2::uuid[], $3::int8[], $4::uuid[], $5::int2[], $6::text[], $7::text[], \
    $8::bytea[], $9::json[], $10::uuid[], $11::text[], $12::int8[], $13::int8[], $14::int8[], \
    $15::int8[], $16::text[], $17::bool[], $18::int8[]) AS t \
    RETURNING created_at";
const INSERT_REPLIES: &str = "INSERT INTO replies (tenant_id, id, session_id, to_seq, state, \
    node_id, fence) SELECT tenant_id, id, session_id, to_seq, 'pending', node_id, fence \
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int8[], $5::uuid[], $6::int8[]) \
    AS t (tenant_id, id, session_id, to_seq, node_id, fence) RETURNING id";
// By the rows' places: they were found and locked in this transaction, and their state checked.
const END_REPLIES: &str = "UPDATE replies r SET state = t.state, body = t.body, model = t.model, \
    input_tokens = t.input_tokens, output_tokens = t.output_tokens, error_code = t.error_code, \
    error_message = t.error_message, first_token_ms = t.first_token_ms, \
    latency_ms = t.latency_ms, reason = t.reason, usage_estimated = t.usage_estimated, ended_at = clock_timestamp() \
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int8[], $5::text[], $6::text[], \
    $7::text[], $8::int8[], $9::int8[], $10::text[], $11::text[], $12::int8[], $13::int8[], $14::text[], $15::bool[]) \
    AS t (tenant_id, id, node_id, claim, state, body, model, input_tokens, output_tokens, \
    error_code, error_message, first_token_ms, latency_ms, reason, usage_estimated) \
    CROSS JOIN LATERAL (SELECT p.ctid AS at FROM replies p \
      WHERE p.tenant_id = t.tenant_id AND p.id = t.id OFFSET 0) AS p \
    WHERE r.ctid = p.at AND r.node_id = t.node_id AND r.claim = t.claim RETURNING r.id";

/// Writes the plan and commits, in one round trip; answers the messages' time.
pub(super) async fn write_and_commit(
    transaction: Transaction,
    plan: &Plan,
) -> Result<Option<Timestamp>, StorageError> {
    let asked: Vec<&MessageRow> = plan
        .messages
        .iter()
        .filter(|row| row.asks.is_some())
        .collect();
    let messages = transaction.prepare(INSERT_MESSAGES).await?;
    let replies = transaction.prepare(INSERT_REPLIES).await?;
    let ends = transaction.prepare(END_REPLIES).await?;
    let attempts = transaction.prepare(ledger::RECORD).await?;
    transaction
        .commit_behind(async |transaction| {
            let (at, asked, ended, recorded) = future::join4(
                insert_messages(transaction, &messages, &plan.messages),
                insert_replies(transaction, &replies, &asked),
                end_replies(transaction, &ends, &plan.ends),
                ledger::record(transaction, &attempts, &plan.attempts),
            )
            .await;
            let (at, inserted) = match at {
                Ok(at) => (at, Ok(())),
                Err(error) => (None, Err(error)),
            };
            StorageError::first_cause([inserted, asked, ended, recorded])?;
            Ok(at)
        })
        .await
}

async fn insert_messages(
    transaction: &Transaction,
    statement: &Statement,
    rows: &[MessageRow],
) -> Result<Option<Timestamp>, StorageError> {
    if rows.is_empty() {
        return Ok(None);
    }
    let tenants: Vec<Uuid> = rows.iter().map(|row| row.key.0.0).collect();
    let sessions: Vec<Uuid> = rows.iter().map(|row| row.key.1.0).collect();
    let seqs: Vec<i64> = rows.iter().map(|row| bigint(row.seq)).collect();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id.uuid()).collect();
    let roles: Vec<i16> = rows.iter().map(|row| role_number(row.role)).collect();
    let authors: Vec<&str> = rows.iter().map(|row| row.author.as_str()).collect();
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let digests: Vec<&[u8]> = rows.iter().map(|row| row.digest.as_slice()).collect();
    let spellings: Vec<i64> = rows.iter().map(|row| row.id.spelling()).collect();
    let metadata: Vec<Option<Json<&Metadata>>> = rows
        .iter()
        .map(|row| row.metadata.as_ref().map(Json))
        .collect();
    let replies: Vec<Option<Uuid>> = rows.iter().map(|row| row.reply.map(|id| id.0)).collect();
    let models: Vec<Option<&str>> = rows.iter().map(|row| row.model.as_deref()).collect();
    let inputs: Vec<Option<i64>> = rows
        .iter()
        .map(|row| row.usage.map(|usage| bigint(usage.input_tokens)))
        .collect();
    let outputs: Vec<Option<i64>> = rows
        .iter()
        .map(|row| row.usage.map(|usage| bigint(usage.output_tokens)))
        .collect();
    let latencies: Vec<Option<i64>> = rows.iter().map(|row| row.latency_ms.map(bigint)).collect();
    let cuts: Vec<Option<&str>> = rows.iter().map(|row| row.cut.map(Cut::as_str)).collect();
    let estimated: Vec<bool> = rows.iter().map(|row| is_estimated(row.usage)).collect();
    let cached: Vec<Option<i64>> = rows
        .iter()
        .map(|row| row.usage.map(|usage| bigint(usage.cached_input_tokens)))
        .collect();
    let params: [&(dyn ToSql + Sync); 18] = [
        &tenants, &sessions, &seqs, &ids, &roles, &authors, &texts, &digests, &metadata, &replies,
        &models, &inputs, &outputs, &latencies, &spellings, &cuts, &estimated, &cached,
    ];
    let inserted = transaction.run(statement, &params).await?;
    check("messages insert", inserted.len(), rows.len())?;
    let Some(first) = inserted.first() else {
        return Ok(None);
    };
    let at: jiff::Timestamp = Fields {
        table: "messages",
        row: first,
    }
    .get("created_at")?;
    Ok(Some(at.into()))
}

async fn insert_replies(
    transaction: &Transaction,
    statement: &Statement,
    rows: &[&MessageRow],
) -> Result<(), StorageError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut columns = (
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
    );
    for row in rows {
        let Some(OwedReply { reply, node, fence }) = row.asks else {
            continue;
        };
        columns.0.push(row.key.0.0);
        columns.1.push(reply.0);
        columns.2.push(row.key.1.0);
        columns.3.push(bigint(row.seq));
        columns.4.push(node.0);
        columns.5.push(bigint(fence.0));
    }
    let params: [&(dyn ToSql + Sync); 6] = [
        &columns.0, &columns.1, &columns.2, &columns.3, &columns.4, &columns.5,
    ];
    let inserted = transaction.run(statement, &params).await?;
    check("replies insert", inserted.len(), rows.len())
}

async fn end_replies(
    transaction: &Transaction,
    statement: &Statement,
    rows: &[EndRow],
) -> Result<(), StorageError> {
    if rows.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = rows.iter().map(|row| row.end.tenant.0).collect();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.end.reply.0).collect();
    let nodes: Vec<Uuid> = rows.iter().map(|row| row.end.node.0).collect();
    let claims: Vec<i64> = rows.iter().map(|row| bigint(row.end.claim.0)).collect();
    let states: Vec<&str> = rows.iter().map(|row| row.state).collect();
    let texts: Vec<&str> = rows.iter().map(EndRow::kept_text).collect();
    let models: Vec<Option<&str>> = rows.iter().map(|row| row.end.model.as_deref()).collect();
    let inputs: Vec<Option<i64>> = rows
        .iter()
        .map(|row| row.end.usage.map(|usage| bigint(usage.input_tokens)))
        .collect();
    let outputs: Vec<Option<i64>> = rows
        .iter()
        .map(|row| row.end.usage.map(|usage| bigint(usage.output_tokens)))
        .collect();
    let failures: Vec<Option<&ReplyFailure>> = rows.iter().map(EndRow::failure).collect();
    let codes: Vec<Option<&str>> = told(&failures, |failure| Some(failure.code.as_str()));
    let said: Vec<Option<&str>> = told(&failures, |failure| Some(failure.message.as_str()));
    let reasons: Vec<Option<&str>> = told(&failures, |failure| Some(failure.reason?.as_str()));
    let estimated: Vec<bool> = rows.iter().map(|row| is_estimated(row.end.usage)).collect();
    let firsts: Vec<Option<i64>> = rows
        .iter()
        .map(|row| row.end.first_token_ms.map(bigint))
        .collect();
    let latencies: Vec<i64> = rows.iter().map(|row| bigint(row.end.latency_ms)).collect();
    let params: [&(dyn ToSql + Sync); 15] = [
        &tenants, &ids, &nodes, &claims, &states, &texts, &models, &inputs, &outputs, &codes,
        &said, &firsts, &latencies, &reasons, &estimated,
    ];
    let ended = transaction.run(statement, &params).await?;
    check("replies end", ended.len(), rows.len())
}

/// One column of the replies that failed.
fn told<'a>(
    failures: &[Option<&'a ReplyFailure>],
    column: impl Fn(&'a ReplyFailure) -> Option<&'a str>,
) -> Vec<Option<&'a str>> {
    failures.iter().map(|failure| column((*failure)?)).collect()
}

pub(super) fn is_estimated(usage: Option<Usage>) -> bool {
    usage.is_some_and(|usage| usage.estimated)
}

fn check(statement: &'static str, changed: usize, expected: usize) -> Result<(), StorageError> {
    if changed == expected {
        return Ok(());
    }
    Err(StorageError::Rows {
        statement,
        changed,
        expected,
    })
}
