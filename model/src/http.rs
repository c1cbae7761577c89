//! The addresses of the API. A handler validates, queues the job, waits for a worker and hands on
//! what it says; a client that goes away drops the channel, which ends the work.

#[cfg(test)]
mod tests;

use crate::api::{
    ApiError, ChatRequest, Completion, MODEL_ID, ModelList, Usage, sse_done, sse_event,
};
use crate::engine::Engine;
use crate::generation::{Event, FinishReason, Job, event_capacity};
use crate::template::prompt_tokens;
use crate::workers::Workers;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpResponse, ResponseError as _};
use bytes::Bytes;
use futures_util::stream;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Most bytes of a body: 16 KiB of text fill the context, the rest is room for JSON.
const BODY_LIMIT: usize = 256 * 1024;

/// Longest silence of a worker before an answer is given up: reading a full context takes about
/// 30 s on a slow core.
const STALL_TIMEOUT: Duration = Duration::from_mins(2);

/// What the handlers share.
#[derive(Debug)]
pub struct HttpState {
    /// The model, for its tokenizer.
    pub engine: Arc<dyn Engine>,
    /// Who computes.
    pub workers: Workers,
    /// Longest wait for a worker.
    pub queue_timeout: Duration,
}

/// Adds the addresses to an application that holds a `Data<HttpState>`.
pub fn routes(config: &mut ServiceConfig) {
    let wrong_method = || web::to(|| async { ApiError::MethodNotAllowed.error_response() });
    config
        .service(
            web::resource("/v1/chat/completions")
                .route(web::post().to(chat))
                .default_service(wrong_method()),
        )
        .service(
            web::resource("/v1/models")
                .route(web::get().to(models))
                .default_service(wrong_method()),
        )
        .service(
            web::resource("/health")
                .route(web::get().to(health))
                .default_service(wrong_method()),
        )
        .default_service(web::to(|| async { ApiError::NotFound.error_response() }));
}

async fn health() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({"status": "ok", "model": MODEL_ID}))
}

async fn models(state: Data<HttpState>) -> HttpResponse {
    HttpResponse::Ok().json(ModelList::of_context(state.engine.context_tokens()))
}

async fn chat(state: Data<HttpState>, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    let body = payload
        .to_bytes_limited(BODY_LIMIT)
        .await
        .map_err(|_| ApiError::TooLarge { limit: BODY_LIMIT })?
        .map_err(|_| ApiError::Malformed { line: 1, column: 0 })?;
    let request = ChatRequest::parse(&body)?;
    let engine = Arc::clone(&state.engine);
    let messages = request.messages;
    // A long body takes tens of milliseconds to cut into tokens: not on the thread of the sockets.
    let prompt = web::block(move || prompt_tokens(engine.as_ref(), &messages))
        .await
        .map_err(|_| ApiError::Failed)?
        .map_err(|error| {
            tracing::error!(%error, "a prompt was not tokenized");
            ApiError::Failed
        })?;
    let limit = state.engine.context_tokens();
    let prompt_tokens = prompt.len();
    let room = limit.saturating_sub(prompt_tokens);
    if room == 0 {
        return Err(ApiError::ContextLength {
            tokens: prompt_tokens,
            limit,
        });
    }
    let max_tokens = request.max_tokens.min(room);
    let (events, mut receiver) = mpsc::channel(event_capacity(max_tokens));
    let job = Job {
        prompt,
        max_tokens,
        sampling: request.sampling,
        stop: request.stop,
        events,
    };
    state.workers.submit(job).map_err(|_| ApiError::Busy)?;
    match tokio::time::timeout(state.queue_timeout, receiver.recv()).await {
        Ok(Some(_started)) => {}
        Ok(None) => return Err(ApiError::Failed),
        Err(_) => return Err(ApiError::Busy),
    }
    let answer = Answer {
        events: receiver,
        completion: Completion::begin(),
        prompt_tokens,
    };
    if request.stream {
        Ok(answer.streamed(request.include_usage))
    } else {
        answer.whole().await
    }
}

/// An answer under way.
struct Answer {
    events: mpsc::Receiver<Event>,
    completion: Completion,
    prompt_tokens: usize,
}

impl Answer {
    /// The next event; an error when the worker failed or stalls.
    async fn next(&mut self) -> Result<Event, ApiError> {
        match tokio::time::timeout(STALL_TIMEOUT, self.events.recv()).await {
            Ok(Some(event)) => Ok(event),
            Ok(None) | Err(_) => Err(ApiError::Failed),
        }
    }

    fn usage(&self, completion_tokens: usize) -> Usage {
        Usage::new(self.prompt_tokens, completion_tokens)
    }

    async fn whole(mut self) -> Result<HttpResponse, ApiError> {
        let mut text = String::new();
        loop {
            match self.next().await? {
                Event::Started => {}
                Event::Text(more) => text.push_str(&more),
                Event::Finished {
                    reason,
                    completion_tokens,
                } => {
                    let usage = self.usage(completion_tokens);
                    return Ok(HttpResponse::Ok().json(self.completion.whole(&text, reason, usage)));
                }
            }
        }
    }

    fn streamed(self, include_usage: bool) -> HttpResponse {
        let ready = VecDeque::from([self.completion.opening()]);
        let state = Stream {
            answer: self,
            include_usage,
            ready,
            over: false,
        };
        let body = stream::unfold(state, |mut state| async move {
            let event = state.next().await?;
            Some((Ok::<_, ApiError>(event), state))
        });
        HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"))
            .insert_header((CACHE_CONTROL, "no-cache"))
            .streaming(body)
    }
}

/// The server-sent events of an answer.
struct Stream {
    answer: Answer,
    include_usage: bool,
    /// Events not yet handed to the socket: at most three.
    ready: VecDeque<Bytes>,
    /// Nothing comes after what is ready.
    over: bool,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        while self.ready.is_empty() && !self.over {
            match self.answer.next().await {
                Ok(Event::Started) => {}
                Ok(Event::Text(text)) => self.ready.push_back(self.answer.completion.delta(&text)),
                Ok(Event::Finished {
                    reason,
                    completion_tokens,
                }) => {
                    self.finish(reason, completion_tokens);
                }
                Err(error) => {
                    // The status is long sent. Without `[DONE]` no client takes this for the end.
                    self.over = true;
                    self.ready.push_back(sse_event(&error.body()));
                }
            }
        }
        self.ready.pop_front()
    }

    fn finish(&mut self, reason: FinishReason, completion_tokens: usize) {
        self.over = true;
        self.ready.push_back(self.answer.completion.closing(reason));
        if self.include_usage {
            let usage = self.answer.usage(completion_tokens);
            self.ready.push_back(self.answer.completion.usage(usage));
        }
        self.ready.push_back(sse_done());
    }
}
