//! What is asked of the pool.

use hubbub_protocol::{BotId, ReplyClass, SessionId, TenantId};

/// What a reply asks for: a slot, for a prompt that exists.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// For whom.
    pub(crate) tenant: TenantId,
    /// How soon it is wanted.
    pub(crate) class: ReplyClass,
    /// How much of what there is the tenant may have, beside others.
    pub(crate) weight: u32,
    /// In which conversation.
    pub(crate) session: SessionId,
    /// Whose answer it is going to be.
    pub(crate) bot: BotId,
    /// The model asked for, if not each upstream's own.
    pub(crate) model: Option<String>,
    /// Estimated tokens of the prompt.
    pub(crate) input_tokens: u64,
    /// Most tokens of the answer.
    pub(crate) max_output_tokens: u32,
    /// Upstreams that will do, best first.
    pub(crate) route: Vec<usize>,
    /// The first of them, if it is one of several equals: it has read this conversation before, the others
    /// have not.
    pub(crate) home: Option<usize>,
    /// Those that have failed this reply, as often as they did: others go first.
    pub(crate) tried: Vec<usize>,
}

/// Somebody who asked for a slot; also names the attempt that is made with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(super) u64);
