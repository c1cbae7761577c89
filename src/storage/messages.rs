//! Table `messages`: a session's log, read by keyset. Written by [`super::PostgresMessageStore`] only.
//!
//! The database guarantees that a number and a client id occur once in a session.

use std::ops::RangeInclusive;

use hubbub_actors::ports::{ENDED_LOOK_BACK, PageSize, StoredMessage, Transcript};
use hubbub_protocol::{ClientMessageId, ReplyId, Role, Seq, SessionId, Usage};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{Fields, bigint};
use super::{StorageError, TenantScope, replies};

// The length of a body is known without reading it, so what exceeds the page stays on disk.
const LIST_AFTER: &str = "SELECT * FROM (SELECT page.*, count(*) OVER () AS found, \
      sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS bytes_before \
      FROM (SELECT session_id, seq, client_id, role, author, body, metadata, created_at, reply_id, \
        model, input_tokens, output_tokens, latency_ms FROM messages \
        WHERE tenant_id = $1 AND session_id = $2 AND seq > $3 ORDER BY seq LIMIT $4) AS page) \
      AS page WHERE bytes_before < $5 ORDER BY seq";
const LIST_BEFORE: &str = "SELECT * FROM (SELECT page.*, count(*) OVER () AS found, \
      sum(octet_length(body)) OVER (ORDER BY seq DESC) - octet_length(body) AS bytes_before \
      FROM (SELECT session_id, seq, client_id, role, author, body, metadata, created_at, reply_id, \
        model, input_tokens, output_tokens, latency_ms FROM messages \
        WHERE tenant_id = $1 AND session_id = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4) AS page) \
      AS page WHERE bytes_before < $5 ORDER BY seq DESC";

/// Messages with `seq > after`, oldest first, as many as the page holds.
///
/// # Errors
/// The database could not.
pub async fn list_after(
    scope: &TenantScope,
    session: SessionId,
    after: Seq,
    size: PageSize,
) -> Result<Transcript, StorageError> {
    let rows = scope
        .query(
            LIST_AFTER,
            &[
                &scope.tenant().0,
                &session.0,
                &bigint(after.0),
                &(i64::from(size.messages) + 1),
                &i64::from(size.bytes),
            ],
        )
        .await?;
    let (rows, more) = fitting(&rows, size)?;
    let messages = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let from = Seq(after.0.saturating_sub(ENDED_LOOK_BACK));
    let to = messages.last().map_or(after, |last| last.seq);
    finish(scope, session, messages, more, from..=to).await
}

/// The newest messages with `seq < before` (of all if `None`), oldest first, as many as the page holds.
///
/// # Errors
/// The database could not.
pub async fn list_before(
    scope: &TenantScope,
    session: SessionId,
    before: Option<Seq>,
    size: PageSize,
) -> Result<Transcript, StorageError> {
    let (messages, more) = newest(scope, session, before, size).await?;
    let seq = |message: Option<&StoredMessage>| message.map_or(Seq::ZERO, |message| message.seq);
    let questions = seq(messages.first())..=seq(messages.last());
    finish(scope, session, messages, more, questions).await
}

/// As [`list_before`] without the ends of replies, and whether there are more.
///
/// # Errors
/// The database could not.
pub(super) async fn newest(
    scope: &TenantScope,
    session: SessionId,
    before: Option<Seq>,
    size: PageSize,
) -> Result<(Vec<StoredMessage>, bool), StorageError> {
    let before = before.map_or(i64::MAX, |seq| bigint(seq.0));
    let rows = scope
        .query(
            LIST_BEFORE,
            &[
                &scope.tenant().0,
                &session.0,
                &before,
                &(i64::from(size.messages) + 1),
                &i64::from(size.bytes),
            ],
        )
        .await?;
    let (rows, more) = fitting(&rows, size)?;
    let messages = rows.iter().rev().map(read).collect::<Result<_, _>>()?;
    Ok((messages, more))
}

/// The rows of the page, and whether there are more.
fn fitting(rows: &[Row], size: PageSize) -> Result<(&[Row], bool), StorageError> {
    let Some(first) = rows.first() else {
        return Ok((rows, false));
    };
    let found = Fields {
        table: "messages",
        row: first,
    }
    .count("found")?;
    let page = rows.get(..size.messages as usize).unwrap_or(rows);
    Ok((page, found > page.len() as u64))
}

async fn finish(
    scope: &TenantScope,
    session: SessionId,
    messages: Vec<StoredMessage>,
    more: bool,
    questions: RangeInclusive<Seq>,
) -> Result<Transcript, StorageError> {
    let (first, last) = questions.into_inner();
    // Before the first message nothing was asked.
    let ended = if last == Seq::ZERO {
        Vec::new()
    } else {
        replies::list_ended(scope, session, first, last).await?
    };
    Ok(Transcript {
        messages,
        ended,
        more,
    })
}

fn read(row: &Row) -> Result<StoredMessage, StorageError> {
    let fields = Fields {
        table: "messages",
        row,
    };
    let text = fields.get("body")?;
    read_with(&fields, text)
}

/// A message from a row that may lack the body.
pub(super) fn read_with(fields: &Fields<'_>, text: String) -> Result<StoredMessage, StorageError> {
    let metadata = match fields.get::<Option<Value>>("metadata")? {
        None => None,
        Some(Value::Object(map)) => Some(map),
        Some(_) => return Err(fields.unreadable("metadata")),
    };
    let usage = match (
        fields.optional_count("input_tokens")?,
        fields.optional_count("output_tokens")?,
    ) {
        (Some(input_tokens), Some(output_tokens)) => Some(Usage {
            input_tokens,
            output_tokens,
        }),
        _ => None,
    };
    Ok(StoredMessage {
        session: SessionId(fields.get("session_id")?),
        seq: Seq(fields.count("seq")?),
        id: ClientMessageId(fields.get("client_id")?),
        role: role_of(fields.get("role")?).ok_or_else(|| fields.unreadable("role"))?,
        author: fields.get("author")?,
        text,
        attachments: Vec::new(),
        metadata,
        at: fields.get::<jiff::Timestamp>("created_at")?.into(),
        reply: fields.get::<Option<Uuid>>("reply_id")?.map(ReplyId),
        model: fields.get("model")?,
        usage,
        latency_ms: fields.optional_count("latency_ms")?,
    })
}

/// A role as the column stores it.
pub(super) fn role_number(role: Role) -> i16 {
    match role {
        Role::Visitor => 0,
        Role::Assistant => 1,
        Role::Operator => 2,
        Role::System => 3,
    }
}

fn role_of(number: i16) -> Option<Role> {
    [Role::Visitor, Role::Assistant, Role::Operator, Role::System]
        .into_iter()
        .find(|role| role_number(*role) == number)
}
