//! What a prompt is built from, of the tables `messages` and `replies`, in the order of the conversation.
//!
//! An answer is stored under the next number when it ends, and by then further questions may have taken
//! theirs: what it answers tells its place, not its number.

use hubbub_actors::ports::{PageSize, Said};
use hubbub_protocol::{Seq, SessionId};
use tokio_postgres::Row;

use super::messages::role_of;
use crate::fields::{Fields, bigint};
use crate::{StorageError, TenantScope};

// Three kinds: messages up to the question, answers to earlier ones that were stored after it, and what was
// shown of replies without a message. The length of a body is known without reading it, so what exceeds the
// page stays on disk.
const LIST: &str = "WITH newest AS ( \
      SELECT seq, role, body, reply_id FROM messages \
      WHERE tenant_id = $1 AND session_id = $2 AND seq <= $3 ORDER BY seq DESC LIMIT $4), \
    said AS ( \
      SELECT coalesce(r.to_seq, m.seq) AS place, r.id IS NOT NULL AS answers, m.role, m.body, \
        false AS filtered \
      FROM newest m LEFT JOIN replies r ON r.tenant_id = $1 AND r.id = m.reply_id \
      UNION ALL \
      SELECT r.to_seq, true, m.role, m.body, false FROM replies r \
      JOIN messages m ON m.tenant_id = $1 AND m.session_id = $2 AND m.client_id = r.id \
      WHERE r.tenant_id = $1 AND r.session_id = $2 AND r.to_seq < $3 \
        AND r.to_seq >= (SELECT min(seq) FROM newest) AND r.state = 'completed' AND m.seq > $3 \
      UNION ALL \
      SELECT r.to_seq, true, 1::int2, r.body, coalesce(r.reason = 'filtered', false) FROM replies r \
      WHERE r.tenant_id = $1 AND r.session_id = $2 AND r.to_seq < $3 \
        AND r.to_seq >= (SELECT min(seq) FROM newest) AND r.state IN ('failed', 'cancelled')) \
    SELECT place, answers, role, body, filtered FROM ( \
      SELECT said.*, sum(octet_length(body)) OVER (ORDER BY place DESC, answers DESC) \
        - octet_length(body) AS bytes_before FROM said) AS said \
    WHERE bytes_before < $5 ORDER BY place DESC, answers DESC LIMIT $4";

/// What was said up to the question `to`, in the order of the conversation, as much of the newest as the
/// page holds.
///
/// # Errors
/// The database could not.
pub async fn list(
    scope: &TenantScope,
    session: SessionId,
    to: Seq,
    size: PageSize,
) -> Result<Vec<Said>, StorageError> {
    let rows = scope
        .query(
            LIST,
            &[
                &scope.tenant().0,
                &session.0,
                &bigint(to.0),
                &i64::from(size.messages),
                &i64::from(size.bytes),
            ],
        )
        .await?;
    // A row that means nothing to this program is left out: the rest is still a conversation.
    let said = rows.iter().rev().filter_map(|row| {
        read(row)
            .inspect_err(|error| tracing::error!(%error, "a message cannot be read"))
            .ok()
    });
    Ok(said.collect())
}

fn read(row: &Row) -> Result<Said, StorageError> {
    let fields = Fields {
        table: "messages",
        row,
    };
    Ok(Said {
        at: Seq(fields.count("place")?),
        role: role_of(fields.get("role")?).ok_or_else(|| fields.unreadable("role"))?,
        answers: fields.get("answers")?,
        filtered: fields.get("filtered")?,
        text: fields.get("body")?,
    })
}
