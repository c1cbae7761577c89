//! Table `messages`: a session's log, read by keyset. Written by [`crate::PostgresMessageStore`] only.
//!
//! The database guarantees that a number and a client id occur once in a session.

use hubbub_actors::ports::{PageSize, StoredMessage, Transcript};
use hubbub_protocol::{ClientMessageId, Metadata, ReplyId, Role, Seq, SessionId, Timestamp, Usage};
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::replies;
pub use super::replies::EndedText;
use crate::fields::{Fields, bigint};
use crate::{StorageError, TenantScope};

// The length of a body is known without reading it, so what exceeds the page stays on disk. With a message
// count its metadata and the text of the reply to it that failed or was cancelled, each up to $6 bytes.
const LIST_AFTER: &str = "SELECT * FROM (SELECT page.*, count(*) OVER () AS found, \
      sum(bytes) OVER (ORDER BY seq) - bytes AS bytes_before \
      FROM (SELECT session_id, seq, client_id, client_id_spelling, role, author, body, metadata, \
        created_at, reply_id, model, input_tokens, output_tokens, latency_ms, cut, usage_estimated, \
        cached_input_tokens, \
        octet_length(body) + least(coalesce(octet_length(metadata::text), 0), $6) + coalesce(( \
          SELECT least(octet_length(r.body), $6) FROM replies r WHERE r.tenant_id = m.tenant_id \
          AND r.session_id = m.session_id AND r.to_seq = m.seq \
          AND r.state IN ('failed', 'cancelled')), 0) AS bytes FROM messages m \
        WHERE tenant_id = $1 AND session_id = $2 AND seq > $3 ORDER BY seq LIMIT $4) AS page) \
      AS page WHERE bytes_before < $5 ORDER BY seq";
const LIST_BEFORE: &str = "SELECT * FROM (SELECT page.*, count(*) OVER () AS found, \
      sum(bytes) OVER (ORDER BY seq DESC) - bytes AS bytes_before \
      FROM (SELECT session_id, seq, client_id, client_id_spelling, role, author, body, metadata, \
        created_at, reply_id, model, input_tokens, output_tokens, latency_ms, cut, usage_estimated, \
        cached_input_tokens, \
        octet_length(body) + least(coalesce(octet_length(metadata::text), 0), $6) + coalesce(( \
          SELECT least(octet_length(r.body), $6) FROM replies r WHERE r.tenant_id = m.tenant_id \
          AND r.session_id = m.session_id AND r.to_seq = m.seq \
          AND r.state IN ('failed', 'cancelled')), 0) AS bytes FROM messages m \
        WHERE tenant_id = $1 AND session_id = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4) AS page) \
      AS page WHERE bytes_before < $5 ORDER BY seq DESC";

/// Messages with `seq > after`, oldest first, as many as the page holds, and the replies to them that
/// failed or were cancelled.
///
/// # Errors
/// The database could not.
pub async fn list_after(
    scope: &TenantScope,
    session: SessionId,
    after: Seq,
    size: PageSize,
    ended: EndedText,
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
                &ended.bytes(),
            ],
        )
        .await?;
    let (rows, more) = fitting(&rows, size)?;
    let messages = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    finish(scope, session, messages, more, ended).await
}

/// The newest messages with `seq < before` (of all if `None`), oldest first, as many as the page holds, and
/// the replies to them that failed or were cancelled.
///
/// # Errors
/// The database could not.
pub async fn list_before(
    scope: &TenantScope,
    session: SessionId,
    before: Option<Seq>,
    size: PageSize,
    ended: EndedText,
) -> Result<Transcript, StorageError> {
    let (messages, more) = newest(scope, session, before, size, ended.bytes()).await?;
    finish(scope, session, messages, more, ended).await
}

/// As [`list_before`] without the ends of replies, and whether there are more. Of metadata and of the text of
/// an end, so many bytes count towards the page.
async fn newest(
    scope: &TenantScope,
    session: SessionId,
    before: Option<Seq>,
    size: PageSize,
    ended_bytes: i32,
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
                &ended_bytes,
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
    ended: EndedText,
) -> Result<Transcript, StorageError> {
    let ended = match (messages.first(), messages.last()) {
        (Some(first), Some(last)) => {
            replies::list_ended(scope, session, first.seq..=last.seq, ended).await?
        }
        _ => Vec::new(),
    };
    Ok(Transcript {
        messages,
        ended,
        more,
    })
}

/// A row that means nothing to this program must not hide the whole page: the log has what is wrong, and
/// in its place the reader finds that there is something.
fn read(row: &Row) -> Result<StoredMessage, StorageError> {
    let fields = Fields {
        table: "messages",
        row,
    };
    let message = fields.get("body").and_then(|text| read_with(&fields, text));
    message.or_else(|error| {
        tracing::error!(%error, "a message cannot be read");
        Ok(StoredMessage {
            session: SessionId(fields.get("session_id")?),
            seq: Seq(fields.count("seq")?),
            id: fields.get::<Uuid>("client_id")?.into(),
            role: Role::System,
            author: String::new(),
            text: "This message cannot be shown.".to_owned(),
            attachments: Vec::new(),
            metadata: None,
            at: fields
                .get::<jiff::Timestamp>("created_at")
                .map_or(Timestamp::from_unix_ms(0), Timestamp::from),
            reply: None,
            model: None,
            usage: None,
            latency_ms: None,
            cut: None,
        })
    })
}

/// A message from a row that may lack the body.
pub(crate) fn read_with(fields: &Fields<'_>, text: String) -> Result<StoredMessage, StorageError> {
    let metadata: Option<Json<Metadata>> = fields.get("metadata")?;
    let usage = match (
        fields.optional_count("input_tokens")?,
        fields.optional_count("output_tokens")?,
    ) {
        (Some(input_tokens), Some(output_tokens)) => Some(Usage {
            input_tokens,
            output_tokens,
            estimated: fields.get("usage_estimated")?,
            cached_input_tokens: fields.optional_count("cached_input_tokens")?.unwrap_or(0),
        }),
        _ => None,
    };
    Ok(StoredMessage {
        session: SessionId(fields.get("session_id")?),
        seq: Seq(fields.count("seq")?),
        id: ClientMessageId::spelled(fields.get("client_id")?, fields.get("client_id_spelling")?),
        role: role_of(fields.get("role")?).ok_or_else(|| fields.unreadable("role"))?,
        author: fields.get("author")?,
        text,
        attachments: Vec::new(),
        metadata: metadata.map(|Json(metadata)| metadata),
        at: fields.get::<jiff::Timestamp>("created_at")?.into(),
        reply: fields.get::<Option<Uuid>>("reply_id")?.map(ReplyId),
        model: fields.get("model")?,
        usage,
        latency_ms: fields.optional_count("latency_ms")?,
        cut: fields.optional_word("cut")?,
    })
}

/// A role as the column stores it.
pub(crate) fn role_number(role: Role) -> i16 {
    match role {
        Role::Visitor => 0,
        Role::Assistant => 1,
        Role::Operator => 2,
        Role::System => 3,
    }
}

pub(crate) fn role_of(number: i16) -> Option<Role> {
    [Role::Visitor, Role::Assistant, Role::Operator, Role::System]
        .into_iter()
        .find(|role| role_number(*role) == number)
}
