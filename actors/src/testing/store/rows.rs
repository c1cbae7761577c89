//! The rows, and the rules that PostgreSQL's constraints and the batch enforce.

mod session;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hubbub_protocol::{
    BotId, EndedReply, Epoch, NodeId, Seq, SessionHandler, SessionId, TenantId, Usage,
};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::notes::Notes;
use crate::ports::{
    Append, AppendRefusal, Appended, BotConfig, ENDED_LOOK_BACK, Fence, FinishedReply,
    HandlerChange, NewSession, PageSize, PendingReply, Said, SessionRecord, StoreError,
    StoredMessage, TenantLimits, Transcript,
};

/// Of an ended reply's text, what a page carries.
const ENDED_TEXT: usize = crate::capacity::ENDED_TEXT_BYTES as usize;

/// How long a node's lease lasts after it was renewed.
const LEASE: Duration = Duration::from_secs(10);

pub(super) struct Rows {
    pub(super) tenants: HashMap<TenantId, TenantLimits>,
    pub(super) bots: HashMap<(TenantId, BotId), BotConfig>,
    pub(super) epoch: Epoch,
    pub(super) ledger: Ledger,
    pub(super) notes: Notes,
    sessions: HashMap<SessionId, SessionRow>,
    leases: HashMap<NodeId, Instant>,
}

struct SessionRow {
    new: NewSession,
    handler: SessionHandler,
    summary: Option<String>,
    fence: Fence,
    messages: Vec<StoredMessage>,
    replies: BTreeMap<Seq, ReplyRow>,
}

struct ReplyRow {
    pending: PendingReply,
    end: Option<FinishedReply>,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self {
            tenants: HashMap::new(),
            bots: HashMap::new(),
            epoch: Epoch::generate(),
            ledger: Ledger::default(),
            notes: Notes::default(),
            sessions: HashMap::new(),
            leases: HashMap::new(),
        }
    }

    pub(super) fn open(&mut self, new: NewSession) -> Result<SessionRecord, StoreError> {
        if !self.bots.contains_key(&(new.tenant, new.bot)) {
            return Err(StoreError::NoBot);
        }
        let (tenant, session) = (new.tenant, new.session);
        let row = SessionRow {
            new,
            handler: SessionHandler::Bot,
            summary: None,
            fence: Fence::default(),
            messages: Vec::new(),
            replies: BTreeMap::new(),
        };
        self.sessions.insert(session, row);
        self.record(tenant, session).ok_or(StoreError::Internal)
    }

    pub(super) fn record(&self, tenant: TenantId, session: SessionId) -> Option<SessionRecord> {
        let row = self.session(tenant, session)?;
        Some(SessionRecord {
            tenant,
            session,
            bot: row.new.bot,
            visitor: row.new.visitor,
            head: row.head(),
            handler: row.handler.clone(),
            summary: row.summary.clone(),
            fence: row.fence,
            epoch: self.epoch,
            pending: self.pending(session),
        })
    }

    pub(super) fn change_handler(&mut self, change: HandlerChange) -> Option<Fence> {
        let row = self.sessions.get_mut(&change.session)?;
        if row.new.tenant != change.tenant || row.fence != change.fence {
            return None;
        }
        row.handler = change.handler;
        row.summary = change.summary;
        row.fence = row.fence.next();
        Some(row.fence)
    }

    pub(super) fn append(&mut self, append: Append) -> Result<Appended, AppendRefusal> {
        let (tenant, session) = (append.tenant(), append.session());
        if let Append::Reply(end) = &append {
            self.ledger.record(end);
        }
        let has_budget = self.ledger.budget.is_some();
        let row = self
            .sessions
            .get_mut(&session)
            .filter(|row| row.new.tenant == tenant)
            .ok_or(AppendRefusal::NoSession)?;
        match append {
            Append::Message(message) => row.store(message, has_budget),
            Append::Reply(end) => row.end(&end),
        }
    }

    pub(super) fn messages(&self, session: SessionId) -> Vec<StoredMessage> {
        let row = self.sessions.get(&session);
        row.map(|row| row.messages.clone()).unwrap_or_default()
    }

    pub(super) fn list_after(
        &self,
        tenant: TenantId,
        session: SessionId,
        after: Seq,
        size: PageSize,
    ) -> Transcript {
        let mut messages = self.messages_of(tenant, session);
        messages.retain(|message| message.seq > after);
        let fitting = self.fitting(messages.iter(), size);
        let more = messages.len() > fitting;
        messages.truncate(fitting);
        let mut ended = self.missed(session, after, size);
        let page = self.page(session, messages, more);
        ended.extend(page.ended);
        Transcript { ended, ..page }
    }

    /// The replies that ended before a page, with texts as far as they fit: the newest come first.
    fn missed(&self, session: SessionId, after: Seq, size: PageSize) -> Vec<EndedReply> {
        let from = Seq(after.0.saturating_sub(ENDED_LOOK_BACK));
        let mut missed = self.ended(session, from, after);
        let mut bytes = 0;
        for ended in missed.iter_mut().rev() {
            let whole = ended.text.len();
            cut(
                ended,
                if bytes < size.bytes as usize {
                    ENDED_TEXT
                } else {
                    0
                },
            );
            bytes += whole.min(ENDED_TEXT);
        }
        missed
    }

    pub(super) fn list_before(
        &self,
        tenant: TenantId,
        session: SessionId,
        before: Option<Seq>,
        size: PageSize,
    ) -> Transcript {
        let mut messages = self.messages_of(tenant, session);
        messages.retain(|message| before.is_none_or(|before| message.seq < before));
        let surplus = messages.len() - self.fitting(messages.iter().rev(), size);
        messages.drain(..surplus);
        self.page(session, messages, surplus > 0)
    }

    pub(super) fn list_prompt(
        &self,
        tenant: TenantId,
        session: SessionId,
        to: Seq,
        size: PageSize,
    ) -> Vec<Said> {
        let Some(row) = self.session(tenant, session) else {
            return Vec::new();
        };
        let mut said: Vec<Said> = row.messages.iter().map(|m| row.said(m)).collect();
        said.extend(row.replies.values().filter_map(ReplyRow::said));
        said.retain(|said| said.at < to || (said.at == to && !said.answers));
        said.sort_by_key(|said| (said.at, said.answers));
        let texts = said.iter().rev().map(|said| said.text.len());
        let surplus = said.len() - fitting(texts, size);
        said.split_off(surplus)
    }

    pub(super) fn ended(&self, session: SessionId, first: Seq, last: Seq) -> Vec<EndedReply> {
        let Some(row) = self.sessions.get(&session) else {
            return Vec::new();
        };
        let in_page = row.replies.range(first..=last);
        in_page.filter_map(|(_, reply)| reply.ended()).collect()
    }

    pub(super) fn usage_of_ended(&self, session: SessionId) -> Vec<Option<Usage>> {
        let Some(row) = self.sessions.get(&session) else {
            return Vec::new();
        };
        let ends = row.replies.values().filter(|reply| reply.ended().is_some());
        ends.map(|reply| reply.end.as_ref()?.usage).collect()
    }

    pub(super) fn pending(&self, session: SessionId) -> Vec<PendingReply> {
        let Some(row) = self.sessions.get(&session) else {
            return Vec::new();
        };
        let pending = row.replies.values().filter(|reply| reply.end.is_none());
        pending.map(|reply| reply.pending.clone()).collect()
    }

    pub(super) fn renew(&mut self, node: NodeId) {
        self.leases.insert(node, Instant::now() + LEASE);
    }

    pub(super) fn expire(&mut self, node: NodeId) {
        self.leases.remove(&node);
    }

    pub(super) fn claim(&mut self, node: NodeId, limit: u32) -> Vec<(TenantId, PendingReply)> {
        let now = Instant::now();
        let leases = &self.leases;
        let is_orphan = |reply: &&mut ReplyRow| {
            let owner = reply.pending.node;
            reply.end.is_none()
                && owner != node
                && leases.get(&owner).is_none_or(|until| *until <= now)
        };
        let mut claimed = Vec::new();
        for row in self.sessions.values_mut() {
            for reply in row.replies.values_mut().filter(is_orphan) {
                if claimed.len() >= limit as usize {
                    return claimed;
                }
                reply.pending.node = node;
                reply.pending.claim = reply.pending.claim.next();
                claimed.push((row.new.tenant, reply.pending.clone()));
            }
        }
        claimed
    }

    /// How many of these messages, in their order, one page holds.
    fn fitting<'a>(
        &self,
        messages: impl Iterator<Item = &'a StoredMessage>,
        size: PageSize,
    ) -> usize {
        let bytes = messages.map(|message| {
            let ended = self.ended(message.session, message.seq, message.seq);
            let ended = ended.iter().map(|ended| ended.text.len().min(ENDED_TEXT));
            let metadata = message.metadata.as_ref().map_or(0, |m| m.as_str().len());
            message.text.len() + metadata + ended.sum::<usize>()
        });
        fitting(bytes, size)
    }

    fn session(&self, tenant: TenantId, session: SessionId) -> Option<&SessionRow> {
        let row = self.sessions.get(&session);
        row.filter(|row| row.new.tenant == tenant)
    }

    fn messages_of(&self, tenant: TenantId, session: SessionId) -> Vec<StoredMessage> {
        let row = self.session(tenant, session);
        row.map(|row| row.messages.clone()).unwrap_or_default()
    }

    fn page(&self, session: SessionId, messages: Vec<StoredMessage>, more: bool) -> Transcript {
        let mut ended = match (messages.first(), messages.last()) {
            (Some(first), Some(last)) => self.ended(session, first.seq, last.seq),
            _ => Vec::new(),
        };
        for ended in &mut ended {
            cut(ended, ENDED_TEXT);
        }
        Transcript {
            messages,
            ended,
            more,
        }
    }
}

/// Leaves the beginning of a text.
fn cut(ended: &mut EndedReply, bytes: usize) {
    let whole = ended.text.len();
    ended.text.truncate(ended.text.floor_char_boundary(bytes));
    ended.text_bytes = (ended.text.len() < whole).then_some(whole as u64);
}

/// How many texts of these lengths, in their order, one page holds.
fn fitting(lengths: impl Iterator<Item = usize>, size: PageSize) -> usize {
    let mut bytes = 0;
    lengths
        .take(size.messages as usize)
        .take_while(|length| {
            let fits = bytes < size.bytes as usize;
            bytes += length;
            fits
        })
        .count()
}
