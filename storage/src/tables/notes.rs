//! Table `notes`: what operators write for each other.

use hubbub_actors::ports::{NewNote, Noted};
use hubbub_protocol::{ClientMessageId, NoteFrame, Seq, SessionId};
use tokio_postgres::Row;

use crate::fields::Fields;
use crate::{StorageError, TenantScope};

const INSERT: &str = "INSERT INTO notes (tenant_id, session_id, id, id_spelling, follows, author_id, author, body) \
    SELECT $1, $2, $3, $7, coalesce(max(seq), 0), $4, $5, $6 FROM messages WHERE tenant_id = $1 AND session_id = $2 \
    ON CONFLICT DO NOTHING RETURNING id, id_spelling, follows, author, body, created_at";
const FIND: &str = "SELECT id, id_spelling, follows, author, body, created_at FROM notes \
    WHERE tenant_id = $1 AND session_id = $2 AND id = $3 AND author_id = $4 AND body = $5";
const LIST: &str = "SELECT id, id_spelling, follows, author, body, created_at FROM notes \
    WHERE tenant_id = $1 AND session_id = $2 ORDER BY created_at DESC, id DESC LIMIT $3";

/// Most notes that are listed: the newest.
const LISTED: i64 = 200;

/// Stores a note, once.
///
/// # Errors
/// The session does not exist, or the database could not.
pub async fn insert(scope: &TenantScope, note: NewNote) -> Result<Noted, StorageError> {
    let NewNote {
        tenant,
        session,
        id,
        author_id,
        author,
        text,
    } = note;
    let (tenant, of, spelling, id) = (tenant.0, session.0, id.spelling(), id.uuid());
    let inserted = scope
        .query_opt(
            INSERT,
            &[&tenant, &of, &id, &author_id, &author, &text, &spelling],
        )
        .await?;
    if let Some(row) = inserted {
        let (note, duplicate) = (read(session, &row)?, false);
        return Ok(Noted::Stored { note, duplicate });
    }
    let found = scope
        .query_opt(FIND, &[&tenant, &of, &id, &author_id, &text])
        .await?;
    Ok(match found {
        Some(row) => Noted::Stored {
            note: read(session, &row)?,
            duplicate: true,
        },
        None => Noted::Conflict,
    })
}

/// The newest notes of a session, oldest first.
///
/// # Errors
/// The database could not.
pub async fn list(scope: &TenantScope, session: SessionId) -> Result<Vec<NoteFrame>, StorageError> {
    let newest = scope
        .query(LIST, &[&scope.tenant().0, &session.0, &LISTED])
        .await?;
    newest.iter().rev().map(|row| read(session, row)).collect()
}

fn read(session: SessionId, row: &Row) -> Result<NoteFrame, StorageError> {
    let fields = Fields {
        table: "notes",
        row,
    };
    Ok(NoteFrame {
        session,
        follows: Seq(fields.count("follows")?),
        id: ClientMessageId::spelled(fields.get("id")?, fields.get("id_spelling")?),
        author: fields.get("author")?,
        text: fields.get("body")?,
        at: fields.get::<jiff::Timestamp>("created_at")?.into(),
    })
}
