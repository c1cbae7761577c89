//! Reply: one answer being generated.
//!
//! Started by its session, on the same worker; ends with its stream. It reads the conversation, waits for a
//! slot, streams, and retries or goes to the next upstream as long as nothing was shown. If it dies,
//! its session notices and the reply ends as failed; if its session dies, it stops at the next word and
//! the upstream's request is closed.

mod attempt;
mod attempts;
mod ends;
mod hedge;
pub(crate) mod messages;
mod prompt;
mod score;
mod shared;
mod stream;
pub(crate) mod tab;
mod turns;
pub(crate) mod usage;

use std::sync::Arc;

use actix::prelude::*;
use hubbub_protocol::{ReplyClass, ReplyId, Seq, SessionId, TenantId, VisitorId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use crate::absence::Absence;
use crate::answers::{Question, Shared};
use crate::capacity;
use crate::ending::failed;
use crate::node::Node;
use crate::pool::{Permit, Request, Route};
use crate::ports::{
    BotConfig, ChatTurn, Conversation, Fence, ReplyEnd, Reservation, Said, StoreError,
    UpstreamError,
};
use crate::rejection::Rejection;
use crate::supervision::spawn_watched;
use attempt::Attempted;
use attempts::Attempts;
use messages::{ReplyProgress, ReplyStep};
use tab::Tab;

/// What to answer, and as whom. The turn ends on the configuration it started with.
#[derive(Clone, Debug)]
pub(crate) struct ReplyTask {
    pub(crate) tenant: TenantId,
    pub(crate) class: ReplyClass,
    /// How much of what there is the tenant may have, beside others.
    pub(crate) weight: u32,
    pub(crate) session: SessionId,
    pub(crate) visitor: Option<VisitorId>,
    pub(crate) to: Seq,
    pub(crate) bot: Arc<BotConfig>,
    pub(crate) absence: Absence,
    pub(crate) tab: Tab,
    /// The upstream that has read the conversation last.
    pub(crate) read_by: Option<String>,
    /// What people told the bot when they gave the conversation back to it.
    pub(crate) summary: Option<String>,
    /// What was said up to the question, in any order; `None`: it is to be read.
    pub(crate) conversation: Option<Conversation>,
}

/// Stops the reply: its stream is dropped, which closes the upstream's request.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CancelReply;

/// The actor.
pub(crate) struct Reply {
    work: Option<Work>,
}

impl Reply {
    /// Starts writing. The task ends with an error only if the reply panicked.
    pub(crate) fn spawn(
        reply: ReplyId,
        fence: Fence,
        task: ReplyTask,
        node: Arc<Node>,
        session: Recipient<ReplyProgress>,
    ) -> (Addr<Self>, JoinHandle<()>) {
        let work = Work {
            reply,
            fence,
            task,
            node,
            session,
        };
        spawn_watched(capacity::REPLY_MAILBOX, |_| Self { work: Some(work) })
    }
}

impl Actor for Reply {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(work) = self.work.take() else { return };
        let span = tracing::info_span!(
            "actor.reply", reply = %work.reply, session = %work.task.session,
            tenant = %work.task.tenant
        );
        ctx.spawn(
            work.run()
                .instrument(span)
                .into_actor(self)
                .map(|(), _, ctx| ctx.stop()),
        );
    }
}

impl Handler<CancelReply> for Reply {
    type Result = ();

    fn handle(&mut self, _: CancelReply, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// The session is gone, or does not want this reply any more.
struct Unwanted;

struct Work {
    reply: ReplyId,
    fence: Fence,
    task: ReplyTask,
    node: Arc<Node>,
    session: Recipient<ReplyProgress>,
}

impl Work {
    async fn run(self) {
        let answered = match self.answer().await {
            Err(Stopped::Rejected(rejection)) => Ok(failed(&rejection)),
            Err(Stopped::Unwanted) => Err(Unwanted),
            Ok(end) => Ok(end),
        };
        let ended = match answered {
            Ok(end) => {
                if let ReplyEnd::Failed(failure) = &end {
                    tracing::info!(code = %failure.code, reason = ?failure.reason, "the reply failed");
                }
                self.tell(ReplyStep::Ended(end)).await
            }
            Err(unwanted) => Err(unwanted),
        };
        if ended.is_err() {
            tracing::debug!("the session of a reply is gone");
        }
    }

    /// Answers, as far as there is anything to answer with.
    async fn answer(&self) -> Result<ReplyEnd, Stopped> {
        let pool = &self.node.pool;
        let ReplyTask {
            bot,
            to,
            session,
            read_by,
            summary,
            ..
        } = &self.task;
        let summary = summary.as_deref();
        let mut route = pool.route(&bot.route, *session, read_by.as_deref());
        if route.upstreams.is_empty() {
            return Err(Stopped::Rejected(Rejection::unavailable()));
        }
        let Conversation { said, has_budget } = self.conversation(&route.upstreams).await?;
        // What cannot read as much is not asked.
        let reads = |index: &usize| {
            prompt::fitting(bot, summary, &said, *to, pool.window(*index)).is_some()
        };
        route.upstreams.retain(reads);
        let turns = self
            .largest_window(&route.upstreams)
            .and_then(|window| self.turns(&said, window));
        let turns = turns.ok_or(Stopped::Rejected(ends::too_large()))?;
        let tokens = usage::prompt_tokens(&turns);
        drop(turns);
        let prompt = Prompt {
            said,
            tokens,
            has_budget,
        };
        let question = Question::of(self.task.tenant, self.task.class, bot, &prompt.said, *to);
        // What people said of this visitor is for no other.
        match question.filter(|_| summary.is_none()) {
            Some(question) => self.share(question, route, &prompt).await,
            None => self.generate(route, &prompt).await.map(|(end, _)| end),
        }
    }

    /// Attempts an answer until there is one, or no more is to be attempted. Returns its text with its end.
    async fn generate(&self, route: Route, prompt: &Prompt) -> Result<(ReplyEnd, Shared), Stopped> {
        if prompt.has_budget {
            self.reserve(&route.upstreams, prompt.tokens).await?;
        }
        let mut attempts = Attempts::new(route, self.node.pool.first_sign_wait());
        // The pause before an upstream is asked again.
        let mut owed = None;
        loop {
            let mut permit = self.acquire(prompt, &attempts).await?;
            if attempts.tried().contains(&permit.index())
                && let Some(pause) = owed.take()
            {
                // Another was to be asked, and takes nothing now.
                drop(permit);
                tokio::time::sleep(pause).await;
                permit = self.acquire(prompt, &attempts).await?;
            }
            attempts.begin(Instant::now());
            let (index, error) = match self.attempt(permit, prompt, &mut attempts).await? {
                Attempted::Ended(end, shared) => return Ok((end, shared)),
                Attempted::Failed(index, error) => (index, error),
            };
            let next = attempts.after(index, error, Instant::now(), &mut rand::rng());
            let next = match (next, error) {
                (Some(next), _) => next,
                (None, UpstreamError::Filtered) => {
                    return Ok((ends::filtered(), Shared::default()));
                }
                (None, _) => return Err(Stopped::Rejected(ends::no_answer())),
            };
            owed = next.elsewhere.then_some(next.pause);
            if !next.elsewhere {
                tokio::time::sleep(next.pause).await;
            }
        }
    }

    /// Waits for a slot. Whoever is not there to read the answer goes to the end of the queue, again and
    /// again, and so stands in nobody's way for long. The longest wait holds for all of it.
    async fn acquire(&self, prompt: &Prompt, attempts: &Attempts) -> Result<Permit, Stopped> {
        let mut absence = self.task.absence.clone();
        let latest = Instant::now() + self.node.pool.queue_wait();
        let until = attempts
            .deadline()
            .map_or(latest, |until| until.min(latest));
        loop {
            tokio::select! {
                biased;
                acquired = self.wait_in_line(prompt, attempts, until) => return acquired,
                () = absence.lasts() => {}
            }
        }
    }

    /// Waits for a slot and tells the session its place meanwhile.
    async fn wait_in_line(
        &self,
        prompt: &Prompt,
        attempts: &Attempts,
        until: Instant,
    ) -> Result<Permit, Stopped> {
        let request = Request {
            home: attempts.home(),
            tried: attempts.tried().to_vec(),
            ..self.request(prompt, attempts.left().collect())
        };
        let (place, mut places) = watch::channel(None);
        let granted = self.node.pool.acquire(request, until, place);
        tokio::pin!(granted);
        loop {
            tokio::select! {
                biased;
                result = &mut granted => return result.map_err(Stopped::Rejected),
                Ok(()) = places.changed() => {
                    let place = *places.borrow_and_update();
                    if let Some(place) = place {
                        self.tell(ReplyStep::Queued(place)).await?;
                    }
                }
            }
        }
    }

    /// Asks for a slot of one of these upstreams.
    fn request(&self, prompt: &Prompt, route: Vec<usize>) -> Request {
        let ReplyTask { bot, .. } = &self.task;
        Request {
            tenant: self.task.tenant,
            class: self.task.class,
            weight: self.task.weight,
            session: self.task.session,
            bot: bot.bot,
            model: bot.model.clone(),
            input_tokens: prompt.tokens,
            max_output_tokens: bot.max_output_tokens,
            route,
            home: None,
            tried: Vec::new(),
        }
    }

    /// The conversation, as much of it as the largest window of the route holds. Read, if it has to be, before
    /// there is a slot: none is held while the database works, nor the database's while the answer streams.
    async fn conversation(&self, route: &[usize]) -> Result<Conversation, Stopped> {
        let task = &self.task;
        let conversation = if let Some(known) = &task.conversation {
            known.clone()
        } else {
            let largest = self.largest_window(route);
            let size = prompt::page_size(largest.unwrap_or_default());
            let store = &self.node.store;
            let read = store.list_prompt(task.tenant, task.session, task.to, size);
            read.await.map_err(Stopped::store)?
        };
        Ok(Conversation {
            said: turns::conversation(conversation.said, task.to),
            ..conversation
        })
    }

    /// Tokens that whoever can read most of the route can read.
    fn largest_window(&self, route: &[usize]) -> Option<u32> {
        let windows = route.iter().map(|index| self.node.pool.window(*index));
        windows.max()
    }

    /// Sets aside what the answer may cost at most.
    async fn reserve(&self, route: &[usize], input_tokens: u64) -> Result<(), Stopped> {
        let ReplyTask { bot, .. } = &self.task;
        // Two may read the prompt.
        let may_hedge = route.len() > 1 && self.node.pool.hedge_after().is_some();
        let readers = 1 + u64::from(may_hedge);
        let reservation = Reservation {
            tenant: self.task.tenant,
            session: self.task.session,
            reply: self.reply,
            bot: bot.bot,
            visitor: self.task.visitor,
            models: self.node.pool.models(route, bot.model.as_deref()),
            input_tokens: input_tokens.saturating_mul(readers),
            output_tokens: bot.max_output_tokens.into(),
        };
        let reserved = self.node.store.reserve(reservation);
        match reserved.await.map_err(Stopped::store)? {
            Some(exhausted) => Err(Stopped::Rejected(ends::over_budget(exhausted))),
            None => Ok(()),
        }
    }

    /// The prompt for a window of tokens; `None` if the question does not fit in it.
    fn turns(&self, said: &[Said], window: u32) -> Option<Vec<ChatTurn>> {
        let ReplyTask {
            bot, summary, to, ..
        } = &self.task;
        prompt::build(bot, summary.as_deref(), said, *to, window)
    }

    async fn tell_score(&self, score: Option<u8>) -> Result<(), Unwanted> {
        match score {
            Some(score) => self.tell(ReplyStep::Scored(score)).await,
            None => Ok(()),
        }
    }

    /// Tells the session, one message at a time: a full mailbox slows the reading of the upstream.
    async fn tell(&self, step: ReplyStep) -> Result<(), Unwanted> {
        let progress = ReplyProgress {
            reply: self.reply,
            fence: self.fence,
            step,
        };
        self.session.send(progress).await.map_err(|_| Unwanted)
    }
}

/// What is known of a prompt before it is known who reads it.
struct Prompt {
    /// The conversation.
    said: Vec<Said>,
    /// Estimated tokens of it, for whoever can read most.
    tokens: u64,
    /// What it costs is set aside before.
    has_budget: bool,
}

enum Stopped {
    Rejected(Rejection),
    Unwanted,
}

impl Stopped {
    fn store(error: StoreError) -> Self {
        Self::Rejected(error.into())
    }
}

impl From<Unwanted> for Stopped {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}
