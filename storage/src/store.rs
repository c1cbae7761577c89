//! [`PostgresMessageStore`]: the actors' port to durable storage.
//!
//! Made by [`crate::Storage`], shared by every actor, holds nothing but pools: nothing is lost with it.
//! Reads and new sessions go through a tenant's scope; the batch, activity and leases, which concern
//! many tenants at once, through the writer's role.

use std::time::Duration;

use deadpool_postgres::Pool;
use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture};
use hubbub_actors::ports::{
    Append, AppendRefusal, Appended, BotConfig, Conversation, Exhausted, Fence, HandlerChange,
    MessageStore, NewNote, NewSession, Noted, PageSize, PendingReply, Reservation, SessionRecord,
    StoreError, TenantLimits, Transcript, UsageLedger,
};
use hubbub_protocol::{BotId, NodeId, Seq, SessionId, TenantId};
use uuid::Uuid;

use crate::fields::Fields;
use crate::health::Health;

use crate::messages::EndedText;
use crate::scope::Transaction;
use crate::tables::leases::renew_lease;
use crate::visitors::{self, Visitor};
use crate::{
    StorageError, TenantScope, batch, bots, budgets, messages, notes, prompts, replies, sessions,
    tenants,
};

// Locked in order, as a batch does: an UPDATE alone takes its rows in any order and may deadlock.
const TOUCH: &str = "WITH locked AS MATERIALIZED (SELECT s.at \
      FROM unnest($1::uuid[], $2::uuid[]) AS k (tenant_id, id) CROSS JOIN LATERAL \
      (SELECT s.ctid AS at FROM sessions s WHERE s.tenant_id = k.tenant_id AND s.id = k.id \
       FOR NO KEY UPDATE) AS s) \
    UPDATE sessions s SET last_activity_at = clock_timestamp() FROM locked \
    WHERE s.ctid = locked.at";
const RELEASE: &str = "DELETE FROM nodes WHERE id = $1";
const CLAIM: &str = "UPDATE replies r SET node_id = $1, claim = r.claim + 1 FROM ( \
      SELECT p.tenant_id, p.id FROM replies p WHERE p.state = 'pending' AND p.node_id <> $1 \
      AND NOT EXISTS (SELECT FROM nodes n WHERE n.id = p.node_id AND n.alive_until > now()) \
      ORDER BY p.created_at LIMIT $2 FOR NO KEY UPDATE OF p SKIP LOCKED) AS orphan \
    WHERE r.tenant_id = orphan.tenant_id AND r.id = orphan.id \
    RETURNING r.tenant_id, r.id, r.session_id, r.to_seq, r.node_id, r.fence, r.claim, r.created_at";

/// Sessions, messages and replies in PostgreSQL.
#[derive(Clone)]
pub struct PostgresMessageStore {
    app: Pool,
    writer: Pool,
    deadline: Duration,
    health: Health,
}

impl PostgresMessageStore {
    pub(crate) fn new(app: Pool, writer: Pool, deadline: Duration, health: Health) -> Self {
        Self {
            app,
            writer,
            deadline,
            health,
        }
    }

    /// Takes a node's lease, without which it would count as dead, and ends its predecessor's.
    ///
    /// # Errors
    /// The database could not; [`StorageError::outage`] may tell why.
    pub async fn take_lease(
        &self,
        node: NodeId,
        predecessor: Option<NodeId>,
    ) -> Result<(), StorageError> {
        let take = async {
            renew_lease(&self.writer, node).await?;
            match predecessor {
                Some(predecessor) => self.release(predecessor).await,
                None => Ok(()),
            }
        };
        tokio::time::timeout(self.deadline, take)
            .await
            .unwrap_or(Err(StorageError::Deadline(self.deadline)))?;
        self.health.end();
        Ok(())
    }

    async fn release(&self, node: NodeId) -> Result<(), StorageError> {
        let transaction = Transaction::on(&self.writer).await?;
        transaction.begin().await?;
        transaction.execute(RELEASE, &[&node.0]).await?;
        transaction.commit().await
    }

    /// Ends the lease of a node that is known to be dead: its replies may be claimed at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the database could not.
    pub async fn release_lease(&self, node: NodeId) -> Result<(), StoreError> {
        self.answer("nodes.release", self.release(node)).await
    }

    /// Ends an operation in time and logs why it failed.
    fn answer<'a, T: Send + 'a>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StorageError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        if self.health.refuses_all().is_some() {
            return std::future::ready(Err(StoreError::Down)).boxed();
        }
        let (deadline, health) = (self.deadline, self.health.clone());
        tokio::time::timeout(deadline, work)
            .map(move |ended| {
                ended
                    .unwrap_or(Err(StorageError::Deadline(deadline)))
                    .inspect_err(|error| health.note(error))
                    .map_err(|error| error.into_store_error(operation))
            })
            .boxed()
    }

    async fn touch_all(&self, sessions: Vec<(TenantId, SessionId)>) -> Result<(), StorageError> {
        let mut sessions = sessions;
        sessions.sort_unstable_by_key(|(tenant, session)| (*session, *tenant));
        let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) = sessions
            .into_iter()
            .map(|(tenant, session)| (tenant.0, session.0))
            .unzip();
        if ids.is_empty() {
            return Ok(());
        }
        let transaction = Transaction::on(&self.writer).await?;
        transaction.begin().await?;
        transaction.execute(TOUCH, &[&tenants, &ids]).await?;
        transaction.commit().await
    }

    async fn open(&self, session: NewSession) -> Result<Option<SessionRecord>, StorageError> {
        match self.insert(&session).await {
            // Connected for longer than somebody without a session is remembered: known anew.
            Err(error) if error.constraint() == Some("sessions_visitor_fkey") => {
                self.remember(&session).await?;
                self.insert(&session).await
            }
            inserted => inserted,
        }
    }

    async fn remember(&self, session: &NewSession) -> Result<(), StorageError> {
        let Some(visitor) = session.visitor else {
            return Ok(());
        };
        let scope = TenantScope::open(&self.app, session.tenant).await?;
        let visitor = Visitor::anonymous(visitor, session.bot);
        visitors::insert(&scope, &visitor, None).await?;
        scope.commit().await
    }

    async fn insert(&self, session: &NewSession) -> Result<Option<SessionRecord>, StorageError> {
        let scope = TenantScope::open(&self.app, session.tenant).await?;
        match sessions::insert(&scope, session).await {
            Err(error) if error.constraint() == Some("sessions_bot_fkey") => return Ok(None),
            other => other?,
        }
        let record = sessions::load(&scope, session.session).await?;
        scope.commit().await?;
        record.map(Some).ok_or(StorageError::Rows {
            statement: "sessions insert",
            changed: 0,
            expected: 1,
        })
    }

    async fn claim(
        &self,
        node: NodeId,
        limit: u32,
    ) -> Result<Vec<(TenantId, PendingReply)>, StorageError> {
        let transaction = Transaction::on(&self.writer).await?;
        transaction.begin().await?;
        let rows = transaction
            .query(CLAIM, &[&node.0, &i64::from(limit)])
            .await?;
        let mut claimed = rows
            .iter()
            .map(|row| {
                let tenant = Fields {
                    table: "replies",
                    row,
                }
                .get("tenant_id")?;
                Ok((TenantId(tenant), replies::read_pending(row)?))
            })
            .collect::<Result<Vec<_>, StorageError>>()?;
        transaction.commit().await?;
        claimed.sort_by_key(|(_, reply)| reply.asked_at);
        Ok(claimed)
    }
}

impl UsageLedger for PostgresMessageStore {
    fn reserve(
        &self,
        reservation: Reservation,
    ) -> BoxFuture<'_, Result<Option<Exhausted>, StoreError>> {
        self.answer("budgets.reserve", async move {
            let scope = TenantScope::open(&self.app, reservation.tenant).await?;
            let exhausted = budgets::reserve(&scope, &reservation).await?;
            scope.commit().await?;
            Ok(exhausted)
        })
    }
}

impl MessageStore for PostgresMessageStore {
    fn append(
        &self,
        batch: Vec<Append>,
    ) -> BoxFuture<'_, Result<Vec<Result<Appended, AppendRefusal>>, StoreError>> {
        if self.health.refuses_writes().is_some() {
            return std::future::ready(Err(StoreError::Down)).boxed();
        }
        self.answer("messages.append", batch::append(&self.writer, batch))
    }

    fn touch(&self, sessions: Vec<(TenantId, SessionId)>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.answer("sessions.touch", self.touch_all(sessions))
    }

    fn open_session(
        &self,
        session: NewSession,
    ) -> BoxFuture<'_, Result<SessionRecord, StoreError>> {
        let opened = self.answer("sessions.insert", self.open(session));
        async move { opened.await?.ok_or(StoreError::NoBot) }.boxed()
    }

    fn change_handler(
        &self,
        change: HandlerChange,
    ) -> BoxFuture<'_, Result<Option<Fence>, StoreError>> {
        self.answer("sessions.change_handler", async move {
            let scope = TenantScope::open(&self.app, change.tenant).await?;
            let fence = sessions::change_handler(&scope, &change).await?;
            scope.commit().await?;
            Ok(fence)
        })
    }

    fn add_note(&self, note: NewNote) -> BoxFuture<'_, Result<Noted, StoreError>> {
        self.answer("notes.insert", async move {
            let scope = TenantScope::open(&self.app, note.tenant).await?;
            let noted = notes::insert(&scope, note).await?;
            scope.commit().await?;
            Ok(noted)
        })
    }

    fn load_session(
        &self,
        tenant: TenantId,
        session: SessionId,
    ) -> BoxFuture<'_, Result<Option<SessionRecord>, StoreError>> {
        self.answer("sessions.load", async move {
            let scope = TenantScope::open(&self.app, tenant).await?;
            sessions::load(&scope, session).await
        })
    }

    fn list_after(
        &self,
        tenant: TenantId,
        session: SessionId,
        after: Seq,
        size: PageSize,
    ) -> BoxFuture<'_, Result<Transcript, StoreError>> {
        self.answer("messages.list_after", async move {
            let scope = TenantScope::open(&self.app, tenant).await?;
            let beginning = EndedText::Beginning;
            let (page, missed) = future::try_join(
                messages::list_after(&scope, session, after, size, beginning),
                replies::list_missed(&scope, session, after, size.bytes),
            )
            .await?;
            let ended = missed.into_iter().chain(page.ended).collect();
            Ok(Transcript { ended, ..page })
        })
    }

    fn list_before(
        &self,
        tenant: TenantId,
        session: SessionId,
        before: Option<Seq>,
        size: PageSize,
    ) -> BoxFuture<'_, Result<Transcript, StoreError>> {
        self.answer("messages.list_before", async move {
            let scope = TenantScope::open(&self.app, tenant).await?;
            messages::list_before(&scope, session, before, size, EndedText::Beginning).await
        })
    }

    fn list_prompt(
        &self,
        tenant: TenantId,
        session: SessionId,
        to: Seq,
        size: PageSize,
    ) -> BoxFuture<'_, Result<Conversation, StoreError>> {
        self.answer("prompts.list", async move {
            let scope = TenantScope::open(&self.app, tenant).await?;
            let (said, has_budget) = future::try_join(
                prompts::list(&scope, session, to, size),
                budgets::exist(&scope),
            )
            .await?;
            Ok(Conversation { said, has_budget })
        })
    }

    fn find_bot(
        &self,
        tenant: TenantId,
        bot: BotId,
    ) -> BoxFuture<'_, Result<Option<BotConfig>, StoreError>> {
        self.answer("bots.find", async move {
            let scope = TenantScope::open(&self.app, tenant).await?;
            let found = bots::find(&scope, bot).await?;
            Ok(found.map(|bot| BotConfig {
                bot: bot.id,
                name: bot.name,
                prompt: bot.prompt,
                route: bot.route,
                model: bot.model,
                replies: bot.replies,
                max_output_tokens: bot.max_output_tokens,
                escalation: bot.escalation,
                answer_cache: Duration::from_secs(bot.answer_cache_s.into()),
            }))
        })
    }

    fn find_tenant(
        &self,
        tenant: TenantId,
    ) -> BoxFuture<'_, Result<Option<TenantLimits>, StoreError>> {
        self.answer("tenants.find_limits", async move {
            let scope = TenantScope::open(&self.app, tenant).await?;
            tenants::find_limits(&scope).await
        })
    }

    fn renew_lease(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.answer("nodes.renew", renew_lease(&self.writer, node))
    }

    fn claim_orphans(
        &self,
        node: NodeId,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<(TenantId, PendingReply)>, StoreError>> {
        self.answer("replies.claim", self.claim(node, limit))
    }
}
