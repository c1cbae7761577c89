//! Any batch: one transaction of two round trips. The first locks the sessions and reads what the batch
//! touches, the second writes what [`plan`](super::plan) decided and commits.

use std::collections::{BTreeSet, HashSet};

use deadpool_postgres::Pool;
use futures_util::future;
use hubbub_actors::ports::{Append, Appended, Claim, Fence};
use hubbub_protocol::{NodeId, SessionId, TenantId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Results;
use super::plan::{self, AppendOutcome, Known, KnownReply, Plan, Snapshot, Stored};
use super::write::write_and_commit;
use crate::StorageError;
use crate::fields::Fields;
use crate::scope::Transaction;

// Ordered, or two batches that share two sessions deadlock. NO KEY, or it would wait for the foreign
// keys' share locks.
// LATERAL everywhere: the keys lead and each finds its rows by an index. A plain join may be planned the
// other way round while a table is small, and stay cached: then every batch reads the whole table.
// Locks are taken in the order of the keys, which are sorted by session.
const LOCK_SESSIONS: &str = "SELECT s.tenant_id, s.id, s.fence \
    FROM unnest($1::uuid[], $2::uuid[]) AS k (tenant_id, id) CROSS JOIN LATERAL \
    (SELECT s.tenant_id, s.id, s.fence FROM sessions s \
     WHERE s.tenant_id = k.tenant_id AND s.id = k.id FOR NO KEY UPDATE) AS s";
// Statements of their own: each takes its snapshot after the locks are held.
const FIND_HEADS: &str = "SELECT k.tenant_id, k.id, h.seq AS head \
    FROM unnest($1::uuid[], $2::uuid[]) AS k (tenant_id, id) CROSS JOIN LATERAL \
    (SELECT m.seq FROM messages m WHERE m.tenant_id = k.tenant_id AND m.session_id = k.id \
     ORDER BY m.seq DESC LIMIT 1) AS h";
const FIND_MESSAGES: &str = "SELECT m.tenant_id, m.session_id, m.seq, m.client_id, m.role, \
    m.author, m.body_sha256, m.metadata, m.created_at, m.reply_id, m.model, m.input_tokens, \
    m.output_tokens, m.latency_ms, m.client_id_spelling, m.cut, m.usage_estimated, m.cached_input_tokens, r.id AS asked_reply \
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS k (tenant_id, session_id, client_id) \
    CROSS JOIN LATERAL (SELECT m.tenant_id, m.session_id, m.seq, m.client_id, m.role, m.author, \
      m.body_sha256, m.metadata, m.created_at, m.reply_id, m.model, m.input_tokens, \
      m.output_tokens, m.latency_ms, m.client_id_spelling, m.cut, m.usage_estimated, m.cached_input_tokens FROM messages m \
      WHERE m.tenant_id = k.tenant_id \
      AND m.session_id = k.session_id AND m.client_id = k.client_id OFFSET 0) AS m \
    LEFT JOIN LATERAL (SELECT r.id FROM replies r WHERE r.tenant_id = m.tenant_id \
      AND r.session_id = m.session_id AND r.to_seq = m.seq OFFSET 0) AS r ON true";
const LOCK_REPLIES: &str = "SELECT r.tenant_id, r.id, r.session_id, r.state, r.node_id, r.fence, r.claim \
    FROM unnest($1::uuid[], $2::uuid[]) AS k (tenant_id, id) CROSS JOIN LATERAL \
    (SELECT r.tenant_id, r.id, r.session_id, r.state, r.node_id, r.fence, r.claim FROM replies r \
     WHERE r.tenant_id = k.tenant_id AND r.id = k.id FOR NO KEY UPDATE) AS r";

/// Commits a batch; see [`hubbub_actors::ports::MessageStore::append`].
pub(super) async fn append(pool: &Pool, batch: Vec<Append>) -> Result<Results, StorageError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let transaction = Transaction::on(pool).await?;
    let snapshot = read(&transaction, &batch).await?;
    let plan = plan::plan(batch, snapshot);
    let at = write_and_commit(transaction, &plan).await?;
    answers(plan, at)
}

/// The keys a batch looks up, each once.
#[derive(Default)]
struct Keys {
    session_tenants: Vec<Uuid>,
    sessions: Vec<Uuid>,
    id_tenants: Vec<Uuid>,
    id_sessions: Vec<Uuid>,
    ids: Vec<Uuid>,
}

impl Keys {
    fn of(batch: &[Append]) -> Self {
        let mut keys = Self::default();
        // Sorted, so that two batches lock the sessions they share in the same order.
        let sessions: BTreeSet<_> = batch
            .iter()
            .map(|e| (e.session().0, e.tenant().0))
            .collect();
        (keys.sessions, keys.session_tenants) = sessions.into_iter().unzip();
        let mut ids = HashSet::new();
        for entry in batch {
            let (tenant, session) = (entry.tenant().0, entry.session().0);
            let found = match entry {
                Append::Message(new) => [Some(new.id.uuid()), new.reply.map(|owed| owed.reply.0)],
                Append::Reply(end) => [Some(end.reply.0), None],
            };
            for id in found.into_iter().flatten() {
                if ids.insert((tenant, session, id)) {
                    keys.id_tenants.push(tenant);
                    keys.id_sessions.push(session);
                    keys.ids.push(id);
                }
            }
        }
        keys
    }
}

async fn read(transaction: &Transaction, batch: &[Append]) -> Result<Snapshot, StorageError> {
    let keys = Keys::of(batch);
    let lock = transaction.prepare(LOCK_SESSIONS).await?;
    let heads = transaction.prepare(FIND_HEADS).await?;
    let messages = transaction.prepare(FIND_MESSAGES).await?;
    let replies = transaction.prepare(LOCK_REPLIES).await?;
    let sessions: [&(dyn ToSql + Sync); 2] = [&keys.session_tenants, &keys.sessions];
    let ids: [&(dyn ToSql + Sync); 3] = [&keys.id_tenants, &keys.id_sessions, &keys.ids];
    let reply_ids: [&(dyn ToSql + Sync); 2] = [&keys.id_tenants, &keys.ids];
    // Polled in this order, so sent in this order.
    let (begun, locked, heads, messages, replies) = future::join5(
        transaction.begin(),
        transaction.run(&lock, &sessions),
        transaction.run(&heads, &sessions),
        transaction.run(&messages, &ids),
        transaction.run(&replies, &reply_ids),
    )
    .await;
    begun?;
    snapshot(&locked?, &heads?, &messages?, &replies?)
}

fn snapshot(
    locked: &[Row],
    heads: &[Row],
    messages: &[Row],
    replies: &[Row],
) -> Result<Snapshot, StorageError> {
    let mut snapshot = Snapshot::default();
    for row in locked {
        let fields = Fields {
            table: "sessions",
            row,
        };
        let key = (
            TenantId(fields.get("tenant_id")?),
            SessionId(fields.get("id")?),
        );
        snapshot.heads.insert(key, 0);
        snapshot.fences.insert(key, Fence(fields.count("fence")?));
    }
    for row in heads {
        let fields = Fields {
            table: "messages",
            row,
        };
        let key = (
            TenantId(fields.get("tenant_id")?),
            SessionId(fields.get("id")?),
        );
        // Without a lock there is no session of this tenant.
        if let Some(head) = snapshot.heads.get_mut(&key) {
            *head = fields.count("head")?;
        }
    }
    for row in messages {
        let fields = Fields {
            table: "messages",
            row,
        };
        let key = (
            TenantId(fields.get("tenant_id")?),
            SessionId(fields.get("session_id")?),
        );
        let stored = Known::Stored(Box::new(Stored::read(&fields)?));
        snapshot
            .messages
            .insert((key, fields.get("client_id")?), stored);
    }
    for row in replies {
        let fields = Fields {
            table: "replies",
            row,
        };
        let reply = KnownReply {
            session: SessionId(fields.get("session_id")?),
            state: fields.get("state")?,
            node: NodeId(fields.get("node_id")?),
            fence: Fence(fields.count("fence")?),
            claim: Claim(fields.count("claim")?),
        };
        snapshot.replies.insert(
            (TenantId(fields.get("tenant_id")?), fields.get("id")?),
            reply,
        );
    }
    Ok(snapshot)
}

fn answers(plan: Plan, at: Option<Timestamp>) -> Result<Results, StorageError> {
    let Plan {
        messages, outcomes, ..
    } = plan;
    let lost = || StorageError::Rows {
        statement: "messages insert",
        changed: 0,
        expected: 1,
    };
    outcomes
        .into_iter()
        .map(|outcome| {
            Ok(match outcome {
                AppendOutcome::Refused(refusal) => Err(refusal),
                AppendOutcome::Ended => Ok(Appended::ReplyEnded),
                AppendOutcome::Duplicate { message, reply } => Ok(Appended::Message {
                    message: *message,
                    duplicate: true,
                    reply,
                    has_budget: None,
                }),
                AppendOutcome::Planned { index, duplicate } => {
                    let row = messages.get(index).ok_or_else(lost)?;
                    Ok(Appended::Message {
                        message: row.stored(at.ok_or_else(lost)?),
                        duplicate,
                        reply: row.asks.map(|owed| owed.reply),
                        has_budget: None,
                    })
                }
            })
        })
        .collect()
}
