//! The port that it implements.

use super::{Fault, MemoryStore, asked_for};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubbub_protocol::{BotId, NodeId, Seq, SessionId, TenantId};

use crate::ports::{
    Append, AppendRefusal, Appended, BotConfig, Conversation, Exhausted, Fence, HandlerChange,
    MessageStore, NewNote, NewSession, Noted, PageSize, PendingReply, Reservation, SessionRecord,
    StoreError, TenantLimits, Transcript, UsageLedger,
};

impl UsageLedger for MemoryStore {
    fn reserve(
        &self,
        reservation: Reservation,
    ) -> BoxFuture<'_, Result<Option<Exhausted>, StoreError>> {
        async move {
            self.reach().await?;
            Ok(self.rows().ledger.reserve(&reservation))
        }
        .boxed()
    }
}

impl MessageStore for MemoryStore {
    fn append(
        &self,
        batch: Vec<Append>,
    ) -> BoxFuture<'_, Result<Vec<Result<Appended, AppendRefusal>>, StoreError>> {
        self.commit(batch).boxed()
    }

    fn touch(&self, _: Vec<(TenantId, SessionId)>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.reach().boxed()
    }

    fn open_session(
        &self,
        session: NewSession,
    ) -> BoxFuture<'_, Result<SessionRecord, StoreError>> {
        async move {
            self.reach().await?;
            self.rows().open(session)
        }
        .boxed()
    }

    fn change_handler(
        &self,
        change: HandlerChange,
    ) -> BoxFuture<'_, Result<Option<Fence>, StoreError>> {
        async move {
            self.reach().await?;
            match self.take_fault(|f| matches!(f, Fault::ChangeHandlerFails(_))) {
                Some(Fault::ChangeHandlerFails(error)) => Err(error),
                _ => Ok(self.rows().change_handler(change)),
            }
        }
        .boxed()
    }

    fn add_note(&self, note: NewNote) -> BoxFuture<'_, Result<Noted, StoreError>> {
        async move {
            self.reach().await?;
            let mut rows = self.rows();
            let record = rows.record(note.tenant, note.session);
            let head = record.ok_or(StoreError::Internal)?.head;
            Ok(rows.notes.add(note, head))
        }
        .boxed()
    }

    fn load_session(
        &self,
        tenant: TenantId,
        session: SessionId,
    ) -> BoxFuture<'_, Result<Option<SessionRecord>, StoreError>> {
        async move {
            self.reach().await?;
            if self.take_fault(|f| *f == Fault::LoadPanics).is_some() {
                asked_for();
            }
            Ok(self.rows().record(tenant, session))
        }
        .boxed()
    }

    fn list_after(
        &self,
        tenant: TenantId,
        session: SessionId,
        after: Seq,
        size: PageSize,
    ) -> BoxFuture<'_, Result<Transcript, StoreError>> {
        async move {
            self.reach_list().await?;
            Ok(self.rows().list_after(tenant, session, after, size))
        }
        .boxed()
    }

    fn list_before(
        &self,
        tenant: TenantId,
        session: SessionId,
        before: Option<Seq>,
        size: PageSize,
    ) -> BoxFuture<'_, Result<Transcript, StoreError>> {
        async move {
            self.reach_list().await?;
            Ok(self.rows().list_before(tenant, session, before, size))
        }
        .boxed()
    }

    fn list_prompt(
        &self,
        tenant: TenantId,
        session: SessionId,
        to: Seq,
        size: PageSize,
    ) -> BoxFuture<'_, Result<Conversation, StoreError>> {
        async move {
            self.reach_list().await?;
            let rows = self.rows();
            Ok(Conversation {
                said: rows.list_prompt(tenant, session, to, size),
                has_budget: rows.ledger.budget.is_some(),
            })
        }
        .boxed()
    }

    fn find_bot(
        &self,
        tenant: TenantId,
        bot: BotId,
    ) -> BoxFuture<'_, Result<Option<BotConfig>, StoreError>> {
        async move {
            self.reach().await?;
            if self.take_fault(|f| *f == Fault::FindBotPanics).is_some() {
                asked_for();
            }
            Ok(self.rows().bots.get(&(tenant, bot)).cloned())
        }
        .boxed()
    }

    fn find_tenant(
        &self,
        tenant: TenantId,
    ) -> BoxFuture<'_, Result<Option<TenantLimits>, StoreError>> {
        async move {
            self.reach().await?;
            Ok(self.rows().tenants.get(&tenant).copied())
        }
        .boxed()
    }

    fn renew_lease(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.reach().await?;
            self.rows().renew(node);
            Ok(())
        }
        .boxed()
    }

    fn claim_orphans(
        &self,
        node: NodeId,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<(TenantId, PendingReply)>, StoreError>> {
        async move {
            self.reach().await?;
            Ok(self.rows().claim(node, limit))
        }
        .boxed()
    }
}
