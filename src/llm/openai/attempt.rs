//! One attempt: a request, its answer as it streams, and its time-outs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use hubbub_actors::ports::{ChatRequest, UpstreamError, UpstreamEvent};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::UpstreamConfig;
use crate::telemetry::logs::truncated;

use super::client::Endpoint;
use super::wire::{self, Decoder, Events};

/// Most bytes of a refusal that are read, and most time for it: it is only for the log.
const REFUSAL_BYTES: usize = 512;
const REFUSAL_WAIT: Duration = Duration::from_millis(500);

/// An upstream that asks for a longer pause is as good as down.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// One attempt, driven by whoever polls its stream.
pub(super) struct Attempt {
    phase: Phase,
    upstream: String,
    model: String,
    token_timeout: Duration,
    decoder: Decoder,
    events: Events,
    /// When the first token, later the next, is overdue.
    deadline: Instant,
    /// Fires no later than `deadline`. Moving a timer for every token costs more than to look at the
    /// clock, so it is only moved when it fires early.
    timer: Pin<Box<Sleep>>,
    started: Instant,
    first_text: bool,
    outcome: &'static str,
}

enum Phase {
    Created(Arc<Endpoint>, ChatRequest),
    Streaming(BoxStream<'static, reqwest::Result<Bytes>>),
    Over,
}

impl Attempt {
    pub(super) fn new(
        config: &UpstreamConfig,
        endpoint: Arc<Endpoint>,
        request: ChatRequest,
    ) -> Self {
        let started = Instant::now();
        let deadline = started + config.first_token_timeout;
        Self {
            phase: Phase::Created(endpoint, request),
            upstream: config.name.clone(),
            model: config.model.clone(),
            token_timeout: config.token_timeout,
            decoder: Decoder::default(),
            events: Events::new(),
            deadline,
            timer: Box::pin(sleep_until(deadline)),
            started,
            first_text: false,
            outcome: "cancelled",
        }
    }

    /// The next event; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<Result<UpstreamEvent, UpstreamError>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                self.note(&event);
                return Some(event);
            }
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return None,
                Phase::Created(endpoint, request) => match self.send(&endpoint, &request).await {
                    Ok(body) => self.phase = Phase::Streaming(body),
                    Err(error) => self.events.push_back(Err(error)),
                },
                Phase::Streaming(mut body) => {
                    let chunk = match self.until_deadline(body.next()).await {
                        Some(chunk) => chunk.map(|chunk| chunk.map_err(|error| broken(&error))),
                        None => Some(Err(UpstreamError::TimedOut)),
                    };
                    self.take(chunk);
                    let over = matches!(
                        self.events.back(),
                        Some(Err(_) | Ok(UpstreamEvent::Finished { .. }))
                    );
                    if !over {
                        self.phase = Phase::Streaming(body);
                    } else if self.events.back().is_some_and(Result::is_ok) {
                        Self::give_back(body).await;
                    }
                }
            }
        }
    }

    async fn send(
        &mut self,
        endpoint: &Endpoint,
        request: &ChatRequest,
    ) -> Result<BoxStream<'static, reqwest::Result<Bytes>>, UpstreamError> {
        let body = wire::body(request, &self.model, endpoint.is_openai).map_err(|error| {
            tracing::error!(%error, "the request cannot be written");
            UpstreamError::Refused
        })?;
        let request = endpoint.request(&request.request_id).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "no HTTP client");
            UpstreamError::Unreachable
        })?;
        let response = self
            .until_deadline(request.body(body).send())
            .await
            .ok_or(UpstreamError::TimedOut)?
            .map_err(|error| broken(&error))?;
        accepted(response).await
    }

    /// `None` is the end of the body.
    fn take(&mut self, chunk: Option<Result<Bytes, UpstreamError>>) {
        let (failure, bytes) = match chunk {
            Some(Ok(bytes)) => (None, Some(bytes)),
            Some(Err(error)) => (Some(error), None),
            None => (Some(UpstreamError::Garbage), None),
        };
        if let Some(bytes) = bytes {
            let had_event = self.decoder.feed(&bytes, &mut self.events);
            // Before its first text an upstream may send its role, or think aloud: that is not a token.
            if had_event && (self.first_text || !self.events.is_empty()) {
                self.deadline = Instant::now() + self.token_timeout;
            }
        } else if let Some(failure) = failure {
            // When all text is there, how the connection ends does not matter.
            self.events.push_back(self.decoder.close().ok_or(failure));
        }
    }

    /// `None` when the deadline passes first.
    async fn until_deadline<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        if self.timer.deadline() > self.deadline {
            self.timer.as_mut().reset(self.deadline);
        }
        loop {
            tokio::select! {
                biased;
                output = &mut future => return Some(output),
                () = &mut self.timer => {
                    if Instant::now() >= self.deadline {
                        return None;
                    }
                    self.timer.as_mut().reset(self.deadline);
                }
            }
        }
    }

    /// Reads the end of the body, if it is there already: only then is the connection used again.
    async fn give_back(mut body: BoxStream<'static, reqwest::Result<Bytes>>) {
        let rest = async { while let Some(Ok(_)) = body.next().await {} };
        // Dropping the body otherwise closes the connection, which is all that is lost.
        drop(tokio::time::timeout(Duration::from_millis(5), rest).await);
    }

    fn note(&mut self, event: &Result<UpstreamEvent, UpstreamError>) {
        match event {
            Ok(UpstreamEvent::Alive) => {}
            Ok(UpstreamEvent::Text(_)) if self.first_text => {}
            Ok(UpstreamEvent::Text(_)) => {
                self.first_text = true;
                metrics::histogram!(
                    "hubbub_llm_first_token_seconds", "upstream" => self.upstream.clone()
                )
                .record(self.started.elapsed());
            }
            Ok(UpstreamEvent::Finished { .. }) => self.outcome = "finished",
            Err(error) => {
                self.outcome = match error {
                    UpstreamError::Unreachable => "unreachable",
                    UpstreamError::TimedOut => "timed_out",
                    UpstreamError::Busy(_) => "busy",
                    UpstreamError::Failed => "failed",
                    UpstreamError::Misconfigured => "misconfigured",
                    UpstreamError::Refused => "refused",
                    UpstreamError::Filtered => "filtered",
                    UpstreamError::Cut => "cut",
                    UpstreamError::Garbage => "garbage",
                };
                tracing::warn!(outcome = self.outcome, "an attempt failed");
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let upstream = std::mem::take(&mut self.upstream);
        metrics::histogram!("hubbub_llm_attempt_seconds", "upstream" => upstream.clone())
            .record(self.started.elapsed());
        metrics::counter!(
            "hubbub_llm_attempts_total", "upstream" => upstream, "outcome" => self.outcome
        )
        .increment(1);
    }
}

/// The body of an answer that is one.
async fn accepted(
    response: Response,
) -> Result<BoxStream<'static, reqwest::Result<Bytes>>, UpstreamError> {
    let status = response.status();
    if status == StatusCode::OK {
        let kind = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/event-stream")) {
            return Ok(response.bytes_stream().boxed());
        }
        log_refusal(response).await;
        return Err(UpstreamError::Garbage);
    }
    let pause = retry_after(response.headers());
    log_refusal(response).await;
    Err(match status.as_u16() {
        429 | 503 => UpstreamError::Busy(pause),
        408 | 504 => UpstreamError::TimedOut,
        500..=599 => UpstreamError::Failed,
        // A redirect is refused by us: its target was not configured.
        300..=499 => UpstreamError::Refused,
        _ => UpstreamError::Garbage,
    })
}

/// The pause an upstream asks for, when it says so in milliseconds or seconds. A date would have to
/// be compared with its clock; without one the caller's own back-off holds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms")
        .map(|ms| ms / 1_000.0)
        .or_else(|| number(RETRY_AFTER.as_str()))?;
    Some(
        Duration::try_from_secs_f64(seconds)
            .ok()?
            .min(LONGEST_PAUSE),
    )
}

/// A provider's words are for our operators alone, and only when they ask for them.
async fn log_refusal(mut response: Response) {
    let status = response.status().as_u16();
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let chunk = tokio::time::timeout(REFUSAL_WAIT, response.chunk()).await;
    let bytes = chunk
        .ok()
        .and_then(Result::ok)
        .flatten()
        .unwrap_or_default();
    let bytes = bytes.get(..REFUSAL_BYTES).unwrap_or(&bytes);
    let text = String::from_utf8_lossy(bytes);
    tracing::debug!(
        status,
        said = truncated(&text, REFUSAL_BYTES),
        "the upstream did not answer"
    );
}

fn broken(error: &reqwest::Error) -> UpstreamError {
    // Without its URL: that is configuration, and in the log already.
    tracing::debug!(
        error = error as &dyn std::error::Error,
        "the connection failed"
    );
    if error.is_timeout() && !error.is_connect() {
        return UpstreamError::TimedOut;
    }
    UpstreamError::Unreachable
}
