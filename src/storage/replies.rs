//! Table `replies`: the answers that are owed, and how they ended. A message has at most one.
//!
//! Written by [`super::PostgresMessageStore`] only: a reply is ended in the transaction that stores
//! its message, by the node and under the fence that own it.

use hubbub_actors::ports::PendingReply;
use hubbub_protocol::server::ErrorBody;
use hubbub_protocol::{EndedReply, ErrorCode, NodeId, ReplyId, ReplyState, Seq, SessionId};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use tokio_postgres::Row;

use super::error::{Fields, bigint};
use super::{StorageError, TenantScope};

const LIST_PENDING: &str = "SELECT id, session_id, to_seq, node_id, fence, created_at FROM replies \
    WHERE tenant_id = $1 AND session_id = $2 AND state = 'pending' ORDER BY to_seq LIMIT 1000";
const LIST_ENDED: &str = "SELECT id, to_seq, state, body, error_code, error_message FROM replies \
    WHERE tenant_id = $1 AND session_id = $2 AND to_seq BETWEEN $3 AND $4 \
    AND state IN ('failed', 'cancelled') ORDER BY to_seq";

/// A session's replies without an end, oldest first.
///
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

/// Failed and cancelled replies to the messages `first..=last`.
///
/// # Errors
/// The database could not.
pub async fn list_ended(
    scope: &TenantScope,
    session: SessionId,
    first: Seq,
    last: Seq,
) -> Result<Vec<EndedReply>, StorageError> {
    let rows = scope
        .query(
            LIST_ENDED,
            &[
                &scope.tenant().0,
                &session.0,
                &bigint(first.0),
                &bigint(last.0),
            ],
        )
        .await?;
    rows.iter().map(read_ended).collect()
}

pub(super) fn read_pending(row: &Row) -> Result<PendingReply, StorageError> {
    let fields = Fields {
        table: "replies",
        row,
    };
    Ok(PendingReply {
        session: SessionId(fields.get("session_id")?),
        reply: ReplyId(fields.get("id")?),
        to: Seq(fields.count("to_seq")?),
        node: NodeId(fields.get("node_id")?),
        fence: fields.count("fence")?,
        asked_at: fields.get::<jiff::Timestamp>("created_at")?.into(),
    })
}

fn read_ended(row: &Row) -> Result<EndedReply, StorageError> {
    let fields = Fields {
        table: "replies",
        row,
    };
    let state = match fields.get::<&str>("state")? {
        "cancelled" => ReplyState::Cancelled,
        "failed" => {
            let code: &str = fields.get("error_code")?;
            let code: StrDeserializer<'_, ValueError> = code.into_deserializer();
            let code = ErrorCode::deserialize(code).map_err(|_| fields.unreadable("error_code"))?;
            let message = fields.get::<Option<String>>("error_message")?;
            let error = ErrorBody::new(code, message.unwrap_or_default());
            ReplyState::Failed { error }
        }
        _ => return Err(fields.unreadable("state")),
    };
    Ok(EndedReply {
        reply: ReplyId(fields.get("id")?),
        to: Seq(fields.count("to_seq")?),
        state,
        text: fields.get("body")?,
    })
}
