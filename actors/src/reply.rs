//! Reply: one answer being generated.
//!
//! Started by its session, on the same worker; ends with its stream. It waits for a slot, builds the
//! prompt, streams, and retries or goes to the next upstream as long as nothing was shown. If it dies,
//! its session notices and the reply ends as failed; if its session dies, it stops at the next word and
//! the upstream's request is closed.

pub(crate) mod attempts;
pub(crate) mod messages;
pub(crate) mod prompt;

use std::sync::Arc;

use actix::prelude::*;
use futures_util::StreamExt;
use hubbub_protocol::{ErrorCode, ReplyId, Seq, SessionId, TenantId, Usage};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::capacity;
use crate::ending::failed;
use crate::pool::{Outcome, Permit};
use crate::ports::{BotConfig, ChatRequest, MessageStore, ReplyEnd, UpstreamError, UpstreamEvent};
use crate::rejection::Rejection;
use crate::session_ports::SessionPorts;
use crate::supervision::spawn_watched;
use attempts::Attempts;
use messages::{ReplyProgress, ReplyStep};

/// What to answer, and as whom. The turn ends on the configuration it started with.
#[derive(Clone, Debug)]
pub(crate) struct ReplyTask {
    pub(crate) tenant: TenantId,
    pub(crate) session: SessionId,
    pub(crate) to: Seq,
    pub(crate) bot: Arc<BotConfig>,
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
        fence: u64,
        task: ReplyTask,
        ports: Arc<SessionPorts>,
        session: Recipient<ReplyProgress>,
    ) -> (Addr<Self>, JoinHandle<()>) {
        let work = Work {
            reply,
            fence,
            task,
            ports,
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

/// How a stream ended.
enum Streamed {
    Finished(Option<Usage>),
    Failed(UpstreamError),
}

struct Work {
    reply: ReplyId,
    fence: u64,
    task: ReplyTask,
    ports: Arc<SessionPorts>,
    session: Recipient<ReplyProgress>,
}

impl Work {
    async fn run(self) {
        let ended = match self.answer().await {
            Ok(usage) => {
                self.tell(ReplyStep::Ended {
                    end: ReplyEnd::Completed,
                    usage,
                })
                .await
            }
            Err(Stopped::Rejected(rejection)) => {
                tracing::info!(code = %rejection.code, "the reply failed");
                self.tell(ReplyStep::Ended {
                    end: failed(&rejection),
                    usage: None,
                })
                .await
            }
            Err(Stopped::Unwanted) => Err(Unwanted),
        };
        if ended.is_err() {
            tracing::debug!("the session of a reply is gone");
        }
    }

    async fn answer(&self) -> Result<Option<Usage>, Stopped> {
        let route: Arc<[String]> = self.task.bot.route.clone().into();
        let mut attempts = Attempts::default();
        let mut avoid = None;
        loop {
            let permit = self.acquire(route.clone(), avoid).await?;
            // Built per attempt: upstreams differ in how much they can read. No slot of the database
            // is held while the answer streams.
            let request = self.request(&permit).await?;
            let model = request
                .model
                .clone()
                .unwrap_or_else(|| permit.upstream().default_model().to_owned());
            self.tell(ReplyStep::Started { model }).await?;
            let mut shown = false;
            let streamed = self.stream(&permit, request, &mut shown).await?;
            let (index, error) = match streamed {
                Streamed::Finished(usage) if shown => {
                    permit.release(Outcome::Answered);
                    return Ok(usage);
                }
                // An answer without a word is no answer.
                Streamed::Finished(_) => (permit.index(), UpstreamError::Garbage),
                Streamed::Failed(error) => (permit.index(), error),
            };
            let name = permit.upstream().name().to_owned();
            permit.release(error.into());
            metrics::counter!("hubbub_llm_attempts_failed_total").increment(1);
            tracing::warn!(upstream = name, %error, attempt = attempts.made(), "an attempt failed");
            // After the first word another answer would be spliced to this one: fail instead.
            if shown || !error.is_transient() {
                return Err(Stopped::Rejected(no_answer()));
            }
            let pause = attempts.pause_after(error, &mut rand::rng());
            tokio::time::sleep(pause.ok_or(Stopped::Rejected(no_answer()))?).await;
            avoid = Some(index);
        }
    }

    /// Waits for a slot and tells the session its place meanwhile.
    async fn acquire(&self, route: Arc<[String]>, avoid: Option<usize>) -> Result<Permit, Stopped> {
        let (place, mut places) = watch::channel(None);
        let granted = self.ports.pool.acquire(route, avoid, place);
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

    async fn request(&self, permit: &Permit) -> Result<ChatRequest, Stopped> {
        let ReplyTask {
            tenant,
            session,
            to,
            bot,
        } = &self.task;
        let store: &dyn MessageStore = &*self.ports.store;
        let window = permit.upstream().context_tokens();
        let messages = store
            .list_prompt(*tenant, *session, *to, prompt::page_size(window))
            .await
            .map_err(|error| Stopped::Rejected(error.into()))?;
        let turns =
            prompt::build(bot, &messages, window).ok_or(Stopped::Rejected(Rejection::new(
                ErrorCode::TooLarge,
                "the message is too long for this assistant",
            )))?;
        Ok(ChatRequest {
            model: bot.model.clone(),
            turns,
            max_output_tokens: bot.max_output_tokens,
            request_id: self.reply.to_string(),
        })
    }

    /// Streams one attempt. Everything that has arrived by now goes to the session as one piece: the
    /// fewer messages a token costs, the more of them fit.
    async fn stream(
        &self,
        permit: &Permit,
        request: ChatRequest,
        shown: &mut bool,
    ) -> Result<Streamed, Stopped> {
        let mut events = permit.upstream().stream(request).ready_chunks(64);
        let mut written = 0;
        while let Some(batch) = events.next().await {
            let mut text = String::new();
            let mut end = None;
            for event in batch {
                match event {
                    Ok(UpstreamEvent::Alive) => {}
                    Ok(UpstreamEvent::Text(piece)) => text.push_str(&piece),
                    Ok(UpstreamEvent::Finished { usage, .. }) => {
                        end = Some(Streamed::Finished(usage));
                        break;
                    }
                    Err(error) => {
                        end = Some(Streamed::Failed(error));
                        break;
                    }
                }
            }
            if !text.is_empty() {
                *shown = true;
                written += text.len();
                self.tell(ReplyStep::Text(text)).await?;
            }
            if let Some(end) = end {
                return Ok(end);
            }
            if written > capacity::REPLY_BYTES {
                return Ok(Streamed::Failed(UpstreamError::Garbage));
            }
        }
        Ok(Streamed::Failed(UpstreamError::Garbage))
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

enum Stopped {
    Rejected(Rejection),
    Unwanted,
}

impl From<Unwanted> for Stopped {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}

fn no_answer() -> Rejection {
    Rejection::later(
        ErrorCode::Unavailable,
        "the assistant could not answer",
        1_000,
    )
}
