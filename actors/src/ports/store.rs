//! The port to durable storage.

use std::time::Duration;

use futures_util::future::BoxFuture;
use hubbub_protocol::{
    BotId, EndedReply, Epoch, Escalation, NodeId, ReplyId, Role, Seq, SessionHandler, SessionId,
    TenantId, Timestamp, VisitorId,
};

use super::append::{Append, AppendRefusal, Appended, StoredMessage};
use super::error::StoreError;
use super::fencing::{Claim, Fence};
use super::ledger::UsageLedger;
use super::notes::{NewNote, Noted};

/// How many seqs before the requested messages to look for ends of replies: more than the questions that may
/// wait in a session, with what is said around them.
pub const ENDED_LOOK_BACK: u64 = 32;

/// How much of a log is read at once. One message is read whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    /// Most messages.
    pub messages: u32,
    /// Most bytes of their texts, their metadata, and the texts of the replies to them that failed or were
    /// cancelled, so that a page of long messages fills no memory.
    pub bytes: u32,
}

/// Durable storage of sessions, messages and replies, and of what they cost. Implemented by PostgreSQL.
///
/// Every method has a deadline of its own and returns [`StoreError::Unavailable`] when it passes.
pub trait MessageStore: UsageLedger {
    /// Commits a batch in one transaction and answers each entry, in order.
    ///
    /// Numbers are given inside the transaction, after deduplication, gap-free in each session, in the
    /// order of the batch. An error means nothing of the batch is known to be stored: because every
    /// entry is idempotent, the caller may send the same batch again.
    fn append(
        &self,
        batch: Vec<Append>,
    ) -> BoxFuture<'_, Result<Vec<Result<Appended, AppendRefusal>>, StoreError>>;

    /// Notes that sessions were active now. Coalesced by the caller; losing one call harms nothing.
    fn touch(&self, sessions: Vec<(TenantId, SessionId)>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Creates a session.
    fn open_session(&self, session: NewSession)
    -> BoxFuture<'_, Result<SessionRecord, StoreError>>;

    /// Has somebody else handle a session, and raises its fence: the new one, or `None` if the fence is
    /// another than `change.fence`, because it changed hands meanwhile.
    fn change_handler(
        &self,
        change: HandlerChange,
    ) -> BoxFuture<'_, Result<Option<Fence>, StoreError>>;

    /// Stores a note of an operator's, after the newest message.
    fn add_note(&self, note: NewNote) -> BoxFuture<'_, Result<Noted, StoreError>>;

    /// What a session's actor needs to start; `None` if the tenant has no such session.
    fn load_session(
        &self,
        tenant: TenantId,
        session: SessionId,
    ) -> BoxFuture<'_, Result<Option<SessionRecord>, StoreError>>;

    /// Messages with `seq > after`, oldest first, as many as the page holds, and the replies to them, and
    /// to the [`ENDED_LOOK_BACK`] seqs up to `after`, that failed or were cancelled: a reader who was away
    /// may hold a question whose end it missed. Of the text of such a reply it reads at most
    /// [`ENDED_TEXT_BYTES`](crate::capacity::ENDED_TEXT_BYTES); of those before the page, nothing more
    /// once the newest of them add up to the page's bytes.
    fn list_after(
        &self,
        tenant: TenantId,
        session: SessionId,
        after: Seq,
        size: PageSize,
    ) -> BoxFuture<'_, Result<Transcript, StoreError>>;

    /// The newest messages with `seq < before` (of all if `None`), oldest first, as many as the page
    /// holds, and the replies to them that failed or were cancelled, each with the beginning of its text.
    fn list_before(
        &self,
        tenant: TenantId,
        session: SessionId,
        before: Option<Seq>,
        size: PageSize,
    ) -> BoxFuture<'_, Result<Transcript, StoreError>>;

    /// What was said up to the question `to`, as much of the newest as the page holds, in the order of the
    /// conversation: each answer after its question, also where later questions were stored before it,
    /// and what was shown of replies that failed or were cancelled.
    fn list_prompt(
        &self,
        tenant: TenantId,
        session: SessionId,
        to: Seq,
        size: PageSize,
    ) -> BoxFuture<'_, Result<Conversation, StoreError>>;

    /// A bot's configuration; `None` if the tenant has no such bot.
    fn find_bot(
        &self,
        tenant: TenantId,
        bot: BotId,
    ) -> BoxFuture<'_, Result<Option<BotConfig>, StoreError>>;

    /// A tenant's limits; `None` if there is no such tenant.
    fn find_tenant(
        &self,
        tenant: TenantId,
    ) -> BoxFuture<'_, Result<Option<TenantLimits>, StoreError>>;

    /// Extends this node's lease on the replies it is writing.
    fn renew_lease(&self, node: NodeId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Takes over at most `limit` pending replies whose node's lease has run out. Each is this node's
    /// afterwards, under a higher claim, so the old node can no longer end it.
    fn claim_orphans(
        &self,
        node: NodeId,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<(TenantId, PendingReply)>, StoreError>>;
}

/// A page of a session's log.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// Oldest first.
    pub messages: Vec<StoredMessage>,
    /// Failed and cancelled replies to these messages.
    pub ended: Vec<EndedReply>,
    /// Whether there are more in the direction asked for.
    pub more: bool,
}

/// What a reply begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// What was said, oldest first.
    pub said: Vec<Said>,
    /// Whether its tenant has a budget: then what the reply may cost is to be reserved.
    pub has_budget: bool,
}

/// Something that was said, as a prompt needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its place in the conversation: a message's own seq, an answer's question's.
    pub at: Seq,
    /// In which role.
    pub role: Role,
    /// Whether it answers what was said at `at`, and comes after it.
    pub answers: bool,
    /// Whether a content filter refused the question or stopped this answer.
    pub filtered: bool,
    /// What was said.
    pub text: String,
}

/// A session to create.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its id, a UUIDv7 made by the server.
    pub session: SessionId,
    /// Its bot, which must be the tenant's: else [`StoreError::NoBot`].
    pub bot: BotId,
    /// Who opened it; `None` for an API key.
    pub visitor: Option<VisitorId>,
}

/// What a session's actor starts from.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its id.
    pub session: SessionId,
    /// Its bot.
    pub bot: BotId,
    /// Who opened it; `None` for an API key.
    pub visitor: Option<VisitorId>,
    /// The newest seq.
    pub head: Seq,
    /// Who handles it.
    pub handler: SessionHandler,
    /// What the operator who gave it back to the bot last tells the bot.
    pub summary: Option<String>,
    /// Rises with every change of handler.
    pub fence: Fence,
    /// The log its seqs belong to.
    pub epoch: Epoch,
    /// Replies that have no end yet, oldest first.
    pub pending: Vec<PendingReply>,
}

/// Who is to handle a session from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerChange {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its id.
    pub session: SessionId,
    /// The fence under which that was decided.
    pub fence: Fence,
    /// Who.
    pub handler: SessionHandler,
    /// What the bot is told of what happened while a person handled it.
    pub summary: Option<String>,
}

/// A reply without an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingReply {
    /// Its session.
    pub session: SessionId,
    /// The reply.
    pub reply: ReplyId,
    /// The seq it answers.
    pub to: Seq,
    /// The node that writes it.
    pub node: NodeId,
    /// The session's fence when it was asked for.
    pub fence: Fence,
    /// Under which the node ends it.
    pub claim: Claim,
    /// When its question was stored.
    pub asked_at: Timestamp,
}

/// A bot, as far as answering needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotConfig {
    /// Its id.
    pub bot: BotId,
    /// Author of its messages.
    pub name: String,
    /// The system prompt.
    pub prompt: String,
    /// Names of upstreams to try in order; empty means the server's default route.
    pub route: Vec<String>,
    /// Overrides the upstreams' own default model.
    pub model: Option<String>,
    /// Whether it answers at all.
    pub replies: bool,
    /// Most tokens in one answer.
    pub max_output_tokens: u32,
    /// When a person is called by itself.
    pub escalation: Escalation,
    /// For how long the answer to a conversation's first question is given to whoever asks the same; zero is never.
    pub answer_cache: Duration,
}

/// What a tenant may use on one node. The server's configuration gives the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// Most connections at once; `None` for the server's default.
    pub connections: Option<u32>,
    /// Most live sessions at once; `None` for the server's default.
    pub sessions: Option<u32>,
    /// Messages a second; `None` for the server's default.
    pub messages_per_second: Option<u32>,
    /// Its share of the models, beside those of other tenants; `None` for 1.
    pub weight: Option<u32>,
}
