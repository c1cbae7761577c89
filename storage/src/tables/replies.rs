//! Table `replies`: the answers that are owed, and how they ended. A message has at most one.
//!
//! Written by [`crate::PostgresMessageStore`] only: a reply is ended in the transaction that stores
//! its message, by the node that owns it, under its claim.

use std::ops::RangeInclusive;

use hubbub_actors::capacity::ENDED_TEXT_BYTES;
use hubbub_actors::ports::{Claim, ENDED_LOOK_BACK, Fence, PendingReply};
use hubbub_protocol::reply::ErrorBody;
use hubbub_protocol::{EndedReply, ErrorCode, NodeId, ReplyId, ReplyState, Seq, SessionId};
use tokio_postgres::Row;

use crate::fields::{Fields, bigint};
use crate::{StorageError, TenantScope};

const LIST_PENDING: &str = "SELECT id, session_id, to_seq, node_id, fence, claim, created_at FROM replies \
    WHERE tenant_id = $1 AND session_id = $2 AND state = 'pending' ORDER BY to_seq LIMIT 1000";
// A character has at least one byte, so so many characters are enough; the rest stays on disk.
const LIST_ENDED: &str = "SELECT id, to_seq, state, \
    CASE WHEN octet_length(body) > $5 THEN left(body, $5) ELSE body END AS body, \
    octet_length(body) AS body_bytes, error_code, error_message, reason FROM replies \
    WHERE tenant_id = $1 AND session_id = $2 AND to_seq BETWEEN $3 AND $4 \
    AND state IN ('failed', 'cancelled') ORDER BY to_seq";
// The newest come first when it is said whose texts still fit.
const LIST_MISSED: &str = "SELECT id, to_seq, state, \
      CASE WHEN bytes_before < $6 THEN left(body, $5) ELSE '' END AS body, \
      octet_length(body) AS body_bytes, error_code, error_message, reason \
    FROM (SELECT id, to_seq, state, body, error_code, error_message, reason, \
      sum(least(octet_length(body), $5)) OVER (ORDER BY to_seq DESC) \
        - least(octet_length(body), $5) AS bytes_before FROM replies \
      WHERE tenant_id = $1 AND session_id = $2 AND to_seq BETWEEN $3 AND $4 \
      AND state IN ('failed', 'cancelled')) AS missed ORDER BY to_seq";

/// A session's replies without an end, oldest first.
///
/// How much a page takes of the text of a reply that failed or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedText {
    /// All of it, however long.
    Whole,
    /// At most [`ENDED_TEXT_BYTES`]: what a frame carries.
    Beginning,
}

impl EndedText {
    /// Most bytes of one text.
    pub(crate) fn bytes(self) -> i32 {
        match self {
            Self::Whole => i32::MAX,
            Self::Beginning => i32::try_from(ENDED_TEXT_BYTES).unwrap_or(i32::MAX),
        }
    }
}

/// # Errors
/// The database could not.
pub async fn list_pending(
    scope: &TenantScope,
    session: SessionId,
) -> Result<Vec<PendingReply>, StorageError> {
    let rows = scope
        .query(LIST_PENDING, &[&scope.tenant().0, &session.0])
        .await?;
    rows.iter().map(read_pending).collect()
}

/// Failed and cancelled replies to these messages.
///
/// # Errors
/// The database could not.
pub async fn list_ended(
    scope: &TenantScope,
    session: SessionId,
    to: RangeInclusive<Seq>,
    text: EndedText,
) -> Result<Vec<EndedReply>, StorageError> {
    let (tenant, session) = (&scope.tenant().0, &session.0);
    let (first, last) = (bigint(to.start().0), bigint(to.end().0));
    let rows = scope
        .query(LIST_ENDED, &[tenant, session, &first, &last, &text.bytes()])
        .await?;
    rows.iter().map(|row| read_ended(row, text)).collect()
}

/// Failed and cancelled replies to the [`ENDED_LOOK_BACK`] messages up to `to`, with the beginnings of their
/// texts until the newest of them add up to so many bytes.
///
/// # Errors
/// The database could not.
pub async fn list_missed(
    scope: &TenantScope,
    session: SessionId,
    to: Seq,
    bytes: u32,
) -> Result<Vec<EndedReply>, StorageError> {
    let text = EndedText::Beginning;
    let (tenant, session) = (&scope.tenant().0, &session.0);
    let first = bigint(to.0.saturating_sub(ENDED_LOOK_BACK));
    let (last, bytes) = (bigint(to.0), i64::from(bytes));
    let rows = scope
        .query(
            LIST_MISSED,
            &[tenant, session, &first, &last, &text.bytes(), &bytes],
        )
        .await?;
    rows.iter().map(|row| read_ended(row, text)).collect()
}

pub(crate) fn read_pending(row: &Row) -> Result<PendingReply, StorageError> {
    let fields = Fields {
        table: "replies",
        row,
    };
    Ok(PendingReply {
        session: SessionId(fields.get("session_id")?),
        reply: ReplyId(fields.get("id")?),
        to: Seq(fields.count("to_seq")?),
        node: NodeId(fields.get("node_id")?),
        fence: Fence(fields.count("fence")?),
        claim: Claim(fields.count("claim")?),
        asked_at: fields.get::<jiff::Timestamp>("created_at")?.into(),
    })
}

fn read_ended(row: &Row, text: EndedText) -> Result<EndedReply, StorageError> {
    let fields = Fields {
        table: "replies",
        row,
    };
    let state = match fields.get::<&str>("state")? {
        "cancelled" => ReplyState::Cancelled,
        "failed" => {
            // One of another version of this program: it failed in any case.
            let code: Option<ErrorCode> = fields.optional_word("error_code")?;
            let code = code.unwrap_or(ErrorCode::Internal);
            let message = fields.get::<Option<String>>("error_message")?;
            let error = ErrorBody::new(code, message.unwrap_or_default());
            ReplyState::Failed {
                error: error.reason(fields.optional_word("reason")?),
            }
        }
        _ => return Err(fields.unreadable("state")),
    };
    let (mut body, bytes): (String, i32) = (fields.get("body")?, fields.get("body_bytes")?);
    body.truncate(body.floor_char_boundary(usize::try_from(text.bytes()).unwrap_or(usize::MAX)));
    let bytes = u64::try_from(bytes).unwrap_or(0);
    Ok(EndedReply {
        reply: ReplyId(fields.get("id")?),
        to: Seq(fields.count("to_seq")?),
        state,
        text_bytes: Some(bytes).filter(|bytes| *bytes > body.len() as u64),
        text: body,
    })
}
