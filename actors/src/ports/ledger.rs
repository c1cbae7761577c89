//! The port to the ledger: what every attempt took, and what may still be spent.

use std::time::Duration;

use futures_util::future::BoxFuture;
use hubbub_protocol::{BotId, ReplyId, SessionId, TenantId, Timestamp, Usage, VisitorId};

use super::error::StoreError;

/// Keeps budgets. Attempts reach the ledger with the end of their reply:
/// [`FinishedReply::attempts`](super::FinishedReply::attempts).
pub trait UsageLedger: Send + Sync + 'static {
    /// Sets aside what a reply may cost at most, for as long as it is pending. `Some` if a budget of its
    /// tenant, its bot or its visitor has not enough left; nothing is set aside then.
    fn reserve(
        &self,
        reservation: Reservation,
    ) -> BoxFuture<'_, Result<Option<Exhausted>, StoreError>>;
}

/// What a reply may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Who pays.
    pub tenant: TenantId,
    /// Where it is said.
    pub session: SessionId,
    /// The reply.
    pub reply: ReplyId,
    /// Who writes it.
    pub bot: BotId,
    /// Who asked; `None` for an API key.
    pub visitor: Option<VisitorId>,
    /// The models that may write it, each with its upstream's name. The dearest counts.
    pub models: Vec<(String, String)>,
    /// Estimated tokens of the prompt.
    pub input_tokens: u64,
    /// Most tokens of the answer.
    pub output_tokens: u64,
}

/// A budget that has not enough left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// How long until its next period begins.
    pub resets_in: Duration,
}

/// One request to an upstream, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whose answer it was for.
    pub bot: BotId,
    /// Who asked; `None` for an API key.
    pub visitor: Option<VisitorId>,
    /// The upstream's configured name.
    pub upstream: String,
    /// The model that was asked for.
    pub model: String,
    /// What it took.
    pub usage: Usage,
    /// Who says so.
    pub source: UsageSource,
    /// How it went.
    pub outcome: AttemptOutcome,
    /// When the request was sent; its price is that of this moment.
    pub started_at: Timestamp,
}

impl Attempt {
    /// What it took, if it took anything.
    pub fn taken(&self) -> Option<Usage> {
        (self.source != UsageSource::Counted).then_some(self.usage)
    }
}

/// Where the numbers of an attempt come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageSource {
    /// The upstream counted all of it.
    Reported,
    /// It took nothing: the upstream never began to work.
    Counted,
    /// At least a part of it is estimated from the texts.
    Estimated,
}

impl UsageSource {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Counted => "counted",
            Self::Estimated => "estimated",
        }
    }
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It wrote its answer to the end.
    Answered,
    /// It failed, or its answer was of no use.
    Failed,
    /// It was stopped.
    Cancelled,
}

impl AttemptOutcome {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}
