//! Answers once for many: whoever asks first what was asked first before is given the answer that there is.
//!
//! Exact questions only, of conversations that hold nothing else: no answer is shared that something personal went
//! into. Never across tenants, and never of a bot that has changed since. While an answer is being written, others
//! who ask the same wait for it; if it fails, each asks for itself.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hubbub_protocol::{ReplyClass, Role, Seq, TenantId};
use moka::Expiry;
use moka::future::Cache;

use crate::ports::{BotConfig, Said};

/// Most memory that answers take, in bytes, with their questions and what their bots were.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// Of that, what one takes beside its texts.
const ENTRY_BYTES: usize = 512;

/// What is asked, of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    tenant: TenantId,
    /// Whoever is waited for must not wait for one that has time.
    class: ReplyClass,
    /// As it was when it was asked.
    bot: Arc<BotConfig>,
    text: String,
}

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What is equal hashes alike; what differs in its bot's settings alone is rare.
        (self.tenant, self.bot.bot, &self.text).hash(state);
    }
}

impl Question {
    /// The question, if its answer may be shared: nothing else was said.
    pub(crate) fn of(
        tenant: TenantId,
        class: ReplyClass,
        bot: &Arc<BotConfig>,
        said: &[Said],
        to: Seq,
    ) -> Option<Self> {
        match said {
            [only]
                if only.role == Role::Visitor && only.at == to && !bot.answer_cache.is_zero() =>
            {
                Some(Self {
                    tenant,
                    class,
                    bot: bot.clone(),
                    text: only.text.clone(),
                })
            }
            _ => None,
        }
    }
}

/// An answer that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) model: String,
    pub(crate) text: String,
    /// How sure the model says it is of it, from 0 to 100.
    pub(crate) score: Option<u8>,
}

/// Nothing came of it that could be shared.
#[derive(Debug)]
pub(crate) struct Unshared;

/// The answers of one node.
#[derive(Clone, Debug)]
pub(crate) struct Answers(Cache<Question, Arc<Shared>>);

impl Default for Answers {
    fn default() -> Self {
        let bytes = |question: &Question, shared: &Arc<Shared>| {
            // Others may hold the same bot; it counts for each, since any may be the last.
            let texts = question.text.len() + question.bot.prompt.len() + shared.text.len();
            u32::try_from(ENTRY_BYTES + texts).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder()
            .max_capacity(KEPT_BYTES)
            .weigher(bytes)
            .expire_after(AsBotsSay);
        Self(cache.build())
    }
}

impl Answers {
    /// The answer to a question: one there is, one that somebody is given at this moment, or the one that `write`
    /// comes to.
    pub(crate) async fn answer(
        &self,
        question: Question,
        write: impl Future<Output = Result<Arc<Shared>, Unshared>>,
    ) -> Option<Arc<Shared>> {
        self.0.try_get_with(question, write).await.ok()
    }
}

/// Each bot says how long.
struct AsBotsSay;

impl Expiry<Question, Arc<Shared>> for AsBotsSay {
    fn expire_after_create(
        &self,
        question: &Question,
        _: &Arc<Shared>,
        _: Instant,
    ) -> Option<Duration> {
        Some(question.bot.answer_cache)
    }
}
