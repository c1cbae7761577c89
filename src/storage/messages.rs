//! Table `messages`: a session's log, read by keyset. Written by [`super::PostgresMessageStore`] only.
//!
//! The database guarantees that a number and a client id occur once in a session.

use std::ops::RangeInclusive;

use hubbub_actors::ports::{ENDED_LOOK_BACK, StoredMessage, Transcript};
use hubbub_protocol::{ClientMessageId, ReplyId, Role, Seq, SessionId, Usage};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{Fields, bigint};
use super::{StorageError, TenantScope, replies};

const LIST_AFTER: &str = "SELECT session_id, seq, client_id, role, author, body, metadata, \
    created_at, reply_id, model, input_tokens, output_tokens, latency_ms FROM messages \
    WHERE tenant_id = $1 AND session_id = $2 AND seq > $3 ORDER BY seq LIMIT $4";
const LIST_BEFORE: &str = "SELECT session_id, seq, client_id, role, author, body, metadata, \
    created_at, reply_id, model, input_tokens, output_tokens, latency_ms FROM messages \
    WHERE tenant_id = $1 AND session_id = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4";

/// Most messages one page has.
pub const PAGE_LIMIT: u32 = 1_000;

/// Messages with `seq > after`, oldest first, at most `limit` and [`PAGE_LIMIT`].
///
/// # Errors
/// The database could not.
pub async fn list_after(
    scope: &TenantScope,
    session: SessionId,
    after: Seq,
    limit: u32,
) -> Result<Transcript, StorageError> {
    let limit = limit.min(PAGE_LIMIT);
    let rows = scope
        .query(
            LIST_AFTER,
            &[
                &scope.tenant().0,
                &session.0,
                &bigint(after.0),
                &(i64::from(limit) + 1),
            ],
        )
        .await?;
    let more = rows.len() > limit as usize;
    let messages = rows
        .iter()
        .take(limit as usize)
        .map(read)
        .collect::<Result<Vec<_>, _>>()?;
    let from = Seq(after.0.saturating_sub(ENDED_LOOK_BACK));
    let to = messages.last().map_or(after, |last| last.seq);
    finish(scope, session, messages, more, from..=to).await
}

/// The newest messages with `seq < before` (of all if `None`), oldest first, at most `limit` and
/// [`PAGE_LIMIT`].
///
/// # Errors
/// The database could not.
pub async fn list_before(
    scope: &TenantScope,
    session: SessionId,
    before: Option<Seq>,
    limit: u32,
) -> Result<Transcript, StorageError> {
    let limit = limit.min(PAGE_LIMIT);
    let before = before.map_or(i64::MAX, |seq| bigint(seq.0));
    let rows = scope
        .query(
            LIST_BEFORE,
            &[
                &scope.tenant().0,
                &session.0,
                &before,
                &(i64::from(limit) + 1),
            ],
        )
        .await?;
    let more = rows.len() > limit as usize;
    let messages = rows
        .iter()
        .take(limit as usize)
        .rev()
        .map(read)
        .collect::<Result<Vec<_>, _>>()?;
    let seq = |message: Option<&StoredMessage>| message.map_or(Seq::ZERO, |message| message.seq);
    let questions = seq(messages.first())..=seq(messages.last());
    finish(scope, session, messages, more, questions).await
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
