//! Storage in memory, as faithful as PostgreSQL and less reliable, on demand.

mod ledger;
mod notes;
mod port;
mod rows;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hubbub_protocol::{
    BotId, EndedReply, Epoch, Escalation, NodeId, Seq, SessionId, TenantId, Usage,
};

use crate::ports::{
    Append, AppendRefusal, Appended, Attempt, BotConfig, PendingReply, StoreError, StoredMessage,
    TenantLimits,
};
use rows::Rows;

/// What goes wrong, once, at the next call that it concerns. Several are taken in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next append stores nothing and fails.
    AppendFails(StoreError),
    /// The next append is committed, and yet its caller learns only that storage is away.
    AppendUnanswered,
    /// The next append panics before it stores anything.
    AppendPanics,
    /// The next append is committed, then panics.
    AppendPanicsAfterCommit,
    /// The next reading of messages fails.
    ListFails(StoreError),
    /// The next reading of messages panics.
    ListPanics,
    /// The next loading of a session panics.
    LoadPanics,
    /// The next change of handler fails.
    ChangeHandlerFails(StoreError),
    /// The next look at a bot panics.
    FindBotPanics,
}

/// Sessions, messages and replies in memory. Tests keep a second `Arc` to look inside and to break it.
pub struct MemoryStore {
    rows: Mutex<Rows>,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    next: Vec<Fault>,
    away: bool,
    poison: Option<String>,
    latency: Duration,
    appends: usize,
    lists: usize,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            rows: Mutex::new(Rows::new()),
            faults: Mutex::default(),
        }
    }
}

impl MemoryStore {
    /// An empty store. A node's lease lasts 10 s of tokio's time.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a tenant.
    pub fn add_tenant(&self, limits: TenantLimits) -> TenantId {
        let tenant = TenantId::generate();
        self.rows().tenants.insert(tenant, limits);
        tenant
    }

    /// Adds a bot that answers, on the default route.
    pub fn add_bot(&self, tenant: TenantId) -> BotId {
        let bot = BotId::generate();
        let config = BotConfig {
            bot,
            name: "Bot".to_owned(),
            prompt: "Be brief.".to_owned(),
            route: Vec::new(),
            model: None,
            replies: true,
            max_output_tokens: 512,
            escalation: Escalation::default(),
            answer_cache: Duration::ZERO,
        };
        self.rows().bots.insert((tenant, bot), config);
        bot
    }

    /// Changes a bot; nothing if there is none.
    pub fn change_bot(&self, tenant: TenantId, bot: BotId, change: impl FnOnce(&mut BotConfig)) {
        if let Some(config) = self.rows().bots.get_mut(&(tenant, bot)) {
            change(config);
        }
    }

    /// Deletes a bot.
    pub fn delete_bot(&self, tenant: TenantId, bot: BotId) {
        self.rows().bots.remove(&(tenant, bot));
    }

    /// Everything is unavailable until told otherwise.
    pub fn set_away(&self, away: bool) {
        self.faults().away = away;
    }

    /// Every call takes that long, of tokio's time.
    pub fn set_latency(&self, latency: Duration) {
        self.faults().latency = latency;
    }

    /// Something goes wrong at the next call that it concerns.
    pub fn break_next(&self, fault: Fault) {
        self.faults().next.push(fault);
    }

    /// Forgets the fault that would come next; `false` if there is none.
    pub fn mend_next(&self) -> bool {
        self.take_fault(|_| true).is_some()
    }

    /// Every append of a message that says just this panics, until told otherwise.
    pub fn set_poison(&self, text: Option<&str>) {
        self.faults().poison = text.map(str::to_owned);
    }

    /// Appends so far, whatever became of them.
    pub fn appends(&self) -> usize {
        self.faults().appends
    }

    /// Readings of messages so far, whatever became of them.
    pub fn lists(&self) -> usize {
        self.faults().lists
    }

    /// Everything stored of a session, oldest first.
    pub fn messages(&self, session: SessionId) -> Vec<StoredMessage> {
        self.rows().messages(session)
    }

    /// The failed and cancelled replies of a session, in the order of their questions.
    pub fn ended(&self, session: SessionId) -> Vec<EndedReply> {
        self.rows().ended(session, Seq::ZERO, Seq(u64::MAX))
    }

    /// What they took, as stored, in the same order.
    pub fn usage_of_ended(&self, session: SessionId) -> Vec<Option<Usage>> {
        self.rows().usage_of_ended(session)
    }

    /// The ledger of a session, in the order in which it was written.
    pub fn attempts(&self, session: SessionId) -> Vec<Attempt> {
        self.rows().ledger.attempts(session)
    }

    /// So many tokens, of prompt and answer together, may be reserved from now on, by all tenants.
    pub fn set_budget(&self, tokens: u64) {
        self.rows().ledger.budget = Some(tokens);
    }

    /// The replies of a session that have no end.
    pub fn pending(&self, session: SessionId) -> Vec<PendingReply> {
        self.rows().pending(session)
    }

    /// The node's lease runs out now.
    pub fn expire_lease(&self, node: NodeId) {
        self.rows().expire(node);
    }

    /// Gives the log another epoch, as restoring a backup does.
    pub fn restore_backup(&self) -> Epoch {
        let epoch = Epoch::generate();
        self.rows().epoch = epoch;
        epoch
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the first coming fault that `concerns` this call.
    fn take_fault(&self, concerns: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut faults = self.faults();
        let at = faults.next.iter().position(concerns)?;
        Some(faults.next.remove(at))
    }

    /// Waits out the latency; fails while storage is away.
    async fn reach(&self) -> Result<(), StoreError> {
        let latency = self.faults().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if self.faults().away {
            Err(StoreError::Unavailable)
        } else {
            Ok(())
        }
    }

    async fn reach_list(&self) -> Result<(), StoreError> {
        self.faults().lists += 1;
        self.reach().await?;
        match self.take_fault(|f| matches!(f, Fault::ListFails(_) | Fault::ListPanics)) {
            Some(Fault::ListFails(error)) => Err(error),
            Some(_) => asked_for(),
            None => Ok(()),
        }
    }

    async fn commit(
        &self,
        batch: Vec<Append>,
    ) -> Result<Vec<Result<Appended, AppendRefusal>>, StoreError> {
        self.faults().appends += 1;
        self.reach().await?;
        let poison = self.faults().poison.clone();
        let is_poison = |append: &Append| matches!(append, Append::Message(message) if Some(&message.text) == poison.as_ref());
        if batch.iter().any(is_poison) {
            asked_for();
        }
        let fault = self.take_fault(|fault| {
            matches!(
                fault,
                Fault::AppendFails(_)
                    | Fault::AppendUnanswered
                    | Fault::AppendPanics
                    | Fault::AppendPanicsAfterCommit
            )
        });
        match fault {
            Some(Fault::AppendFails(error)) => return Err(error),
            Some(Fault::AppendPanics) => asked_for(),
            _ => {}
        }
        let answers = {
            let mut rows = self.rows();
            batch
                .into_iter()
                .map(|append| rows.append(append))
                .collect()
        };
        match fault {
            Some(Fault::AppendUnanswered) => Err(StoreError::Unavailable),
            Some(Fault::AppendPanicsAfterCommit) => asked_for(),
            _ => Ok(answers),
        }
    }
}

fn asked_for() -> ! {
    super::panic_as_asked("a panic that the test asked for")
}
