//! A few entries that are as expected: a statement each, in one round trip.
//!
//! Each statement reads what it depends on by the key at hand, so that one partition of the messages is
//! looked at and not all, and writes nothing unless all is as expected. It takes the number after the
//! newest that it sees. Whoever took that number meanwhile, the unique key tells: then all of the batch goes
//! the careful way.

use deadpool_postgres::Pool;
use futures_util::future;
use hubbub_actors::ports::{Append, Appended};
use hubbub_protocol::{Cut, ReplyId};
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Row, Statement};

use super::rows::{EndRow, MessageRow};
use super::write::is_estimated;
use crate::StorageError;
use crate::fields::{Fields, bigint};
use crate::messages::role_number;
use crate::scope::Transaction;
use crate::tables::ledger::{self, AttemptRow, recorded};

/// Beyond this, the careful way is cheaper, which takes any number in seven statements (ADR 22).
const FEW: usize = 8;

const SAY: &str = "WITH said AS ( \
      INSERT INTO messages (tenant_id, session_id, seq, client_id, role, author, body, body_sha256, \
        metadata, client_id_spelling, created_at) \
      SELECT $1, $2, coalesce((SELECT m.seq FROM messages m WHERE m.tenant_id = $1 \
          AND m.session_id = $2 ORDER BY m.seq DESC LIMIT 1), 0) + 1, \
        $3, $4, $5, $6, $7, $8, $9, clock_timestamp() \
      WHERE EXISTS (SELECT FROM sessions s WHERE s.tenant_id = $1 AND s.id = $2) \
      AND NOT EXISTS (SELECT FROM messages m WHERE m.tenant_id = $1 AND m.session_id = $2 \
        AND m.client_id = $3) \
      AND NOT EXISTS (SELECT FROM replies r WHERE r.tenant_id = $1 AND r.id = $3) \
      RETURNING seq, created_at), \
    asked AS ( \
      INSERT INTO replies (tenant_id, id, session_id, to_seq, state, node_id, fence) \
      SELECT $1, $10, $2, said.seq, 'pending', $11, $12 FROM said WHERE $10::uuid IS NOT NULL) \
    SELECT seq, created_at, \
      EXISTS (SELECT FROM budgets b WHERE b.tenant_id = $1) AS has_budget FROM said";

// The session's row is locked, so that its fence stands until the commit.
const END: &str = concat!(
    "WITH ",
    recorded!(),
    ", held AS MATERIALIZED ( \
      SELECT s.fence FROM sessions s WHERE s.tenant_id = $16 AND s.id = $17 FOR NO KEY UPDATE), \
    ended AS ( \
      UPDATE replies r SET state = $21, body = $22, model = $23, input_tokens = $24, \
        output_tokens = $25, error_code = $26, error_message = $27, first_token_ms = $28, \
        latency_ms = $29, reason = $30, usage_estimated = $31, ended_at = clock_timestamp() FROM held \
      WHERE r.tenant_id = $16 AND r.id = $18 AND r.session_id = $17 AND r.node_id = $19 \
      AND r.claim = $20 AND r.state = 'pending' AND ($21 <> 'completed' OR r.fence = held.fence) \
      RETURNING r.id), \
    said AS ( \
      INSERT INTO messages (tenant_id, session_id, seq, client_id, role, author, body, body_sha256, \
        reply_id, model, input_tokens, output_tokens, latency_ms, usage_estimated, \
        cached_input_tokens, cut, client_id_spelling, created_at) \
      SELECT $16, $17, coalesce((SELECT m.seq FROM messages m WHERE m.tenant_id = $16 \
          AND m.session_id = $17 ORDER BY m.seq DESC LIMIT 1), 0) + 1, \
        $18, 1, $32, $33, $34, $18, $23, $24, $25, $29, $31, $35, $36, $37, clock_timestamp() \
      FROM ended WHERE $21 = 'completed' RETURNING seq, created_at) \
    SELECT said.seq, said.created_at FROM ended LEFT JOIN said ON true"
);

/// Whether the batch is written here. Two ends in one transaction could lock the budgets that they
/// share crosswise with those of another batch.
pub(super) fn suits(batch: &[Append]) -> bool {
    let ends = batch
        .iter()
        .filter(|entry| matches!(entry, Append::Reply(_)));
    batch.len() <= FEW && ends.count() <= 1
}

/// Writes what is as expected of a batch and commits. `None` for an entry of which nothing is written but the
/// attempts of a reply, which are once and for all.
pub(super) async fn append(
    pool: &Pool,
    batch: &[Append],
) -> Result<Vec<Option<Appended>>, StorageError> {
    let transaction = Transaction::on(pool).await?;
    let statements = Statements {
        say: transaction.prepare(SAY).await?,
        end: transaction.prepare(END).await?,
    };
    let written = match batch {
        [] => return Ok(Vec::new()),
        // By itself: it is a transaction of its own.
        [entry] => statements
            .write(&transaction, entry)
            .await
            .map(|appended| vec![appended]),
        _ => write_all(transaction, &statements, batch).await,
    };
    match written {
        Err(error) if error.is_taken() => Ok(batch.iter().map(|_| None).collect()),
        other => other,
    }
}

async fn write_all(
    transaction: Transaction,
    statements: &Statements,
    batch: &[Append],
) -> Result<Vec<Option<Appended>>, StorageError> {
    // By session, each one's in their order: batches of several nodes wait for each other in the same order.
    let mut order: Vec<(usize, &Append)> = batch.iter().enumerate().collect();
    order.sort_by_key(|(_, entry)| (entry.session(), entry.tenant()));
    let written = transaction
        .commit_behind(async |transaction| {
            // Polled in this order, so sent in this order.
            let entries = order
                .iter()
                .map(|(_, entry)| statements.write(transaction, entry));
            let (begun, written) =
                future::join(transaction.begin(), future::join_all(entries)).await;
            begun?;
            StorageError::first_cause(written)
        })
        .await?;
    let mut written: Vec<_> = order.into_iter().zip(written).collect();
    written.sort_by_key(|((index, _), _)| *index);
    Ok(written.into_iter().map(|(_, appended)| appended).collect())
}

struct Statements {
    say: Statement,
    end: Statement,
}

impl Statements {
    async fn write(
        &self,
        transaction: &Transaction,
        entry: &Append,
    ) -> Result<Option<Appended>, StorageError> {
        match entry {
            Append::Message(new) => say(transaction, &self.say, MessageRow::of(new.clone())).await,
            Append::Reply(finished) => {
                let (row, attempts) = EndRow::of(finished.clone());
                end(transaction, &self.end, &row, &attempts).await
            }
        }
    }
}

async fn say(
    transaction: &Transaction,
    statement: &Statement,
    row: MessageRow,
) -> Result<Option<Appended>, StorageError> {
    let (tenant, session) = row.key;
    let asks = row.asks;
    let params: [&(dyn ToSql + Sync); 12] = [
        &tenant.0,
        &session.0,
        &row.id.uuid(),
        &role_number(row.role),
        &row.author,
        &row.text,
        &row.digest.as_slice(),
        &row.metadata.as_ref().map(Json),
        &row.id.spelling(),
        &asks.map(|owed| owed.reply.0),
        &asks.map(|owed| owed.node.0),
        &asks.map(|owed| bigint(owed.fence.0)),
    ];
    let rows = transaction.run(statement, &params).await?;
    let Some(written) = rows.first() else {
        return Ok(None);
    };
    let fields = Fields {
        table: "budgets",
        row: written,
    };
    let has_budget = fields.get("has_budget")?;
    message(written, row, asks.map(|owed| owed.reply), Some(has_budget)).map(Some)
}

async fn end(
    transaction: &Transaction,
    statement: &Statement,
    row: &EndRow,
    attempts: &[AttemptRow],
) -> Result<Option<Appended>, StorageError> {
    let end = &row.end;
    let (usage, failure, message_row) = (end.usage, row.failure(), row.message());
    let digest = message_row
        .as_ref()
        .map(|message| message.digest.as_slice());
    let columns = ledger::Columns::of(attempts);
    let reply: [&(dyn ToSql + Sync); 22] = [
        &end.tenant.0,
        &end.session.0,
        &end.reply.0,
        &end.node.0,
        &bigint(end.claim.0),
        &row.state,
        &row.kept_text(),
        &end.model,
        &usage.map(|usage| bigint(usage.input_tokens)),
        &usage.map(|usage| bigint(usage.output_tokens)),
        &failure.map(|failure| failure.code.as_str()),
        &failure.map(|failure| failure.message.as_str()),
        &end.first_token_ms.map(bigint),
        &bigint(end.latency_ms),
        &failure.and_then(|failure| Some(failure.reason?.as_str())),
        &is_estimated(usage),
        &end.author,
        &end.text,
        &digest,
        &usage.map(|usage| bigint(usage.cached_input_tokens)),
        &message_row
            .as_ref()
            .and_then(|message| message.cut)
            .map(Cut::as_str),
        &message_row.as_ref().map(|message| message.id.spelling()),
    ];
    let params = [columns.params().as_slice(), &reply].concat();
    let rows = transaction.run(statement, &params).await?;
    match (rows.first(), message_row) {
        (None, _) => Ok(None),
        (Some(_), None) => Ok(Some(Appended::ReplyEnded)),
        (Some(written), Some(row)) => message(written, row, None, None).map(Some),
    }
}

/// What was written, with the number and time that the database gave it.
fn message(
    written: &Row,
    row: MessageRow,
    reply: Option<ReplyId>,
    has_budget: Option<bool>,
) -> Result<Appended, StorageError> {
    let fields = Fields {
        table: "messages",
        row: written,
    };
    let at: jiff::Timestamp = fields.get("created_at")?;
    let row = MessageRow {
        seq: fields.count("seq")?,
        ..row
    };
    Ok(Appended::Message {
        message: row.stored(at.into()),
        duplicate: false,
        reply,
        has_budget,
    })
}
