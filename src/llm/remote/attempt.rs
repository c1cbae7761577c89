//! One attempt: a request, its answer as it streams, and its time-outs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::StreamExt;
use hubbub_actors::ports::{ALIVE_EVERY, ChatRequest, UpstreamError, UpstreamEvent};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::{UpstreamConfig, UpstreamTimeouts};

use super::client::Endpoint;
use super::decoder::{Close, Decoder, Events};
use super::response::{Body, Refused, accepted};
use super::words;

/// After a good end only counts are missing: they are not waited for longer than this.
const AFTER_END: Duration = Duration::from_secs(2);

/// One attempt, driven by whoever polls its stream.
pub(super) struct Attempt {
    phase: Phase,
    upstream: String,
    endpoint: Arc<Endpoint>,
    /// Kept until the first text, so that a refusal that quotes it is not logged with the quotation.
    request: Option<ChatRequest>,
    timeouts: UpstreamTimeouts,
    decoder: Decoder,
    events: Events,
    /// When the next sign of life is overdue.
    deadline: Instant,
    /// When the whole answer is.
    last_deadline: Instant,
    /// Until when counts are waited for, after a good end.
    end_deadline: Option<Instant>,
    /// Fires no later than `deadline`. Moving a timer for every token costs more than to look at the
    /// clock, so it is only moved when it fires early.
    timer: Pin<Box<Sleep>>,
    started: Instant,
    alive_at: Option<Instant>,
    first_text: bool,
    /// Status of the response, once there is one.
    status: Option<u16>,
    /// Why the attempt failed, for the log.
    said: String,
    outcome: &'static str,
}

enum Phase {
    Created,
    Streaming(Body),
    Over,
}

/// What came of waiting for the body.
enum Read {
    Bytes(Bytes),
    Broken(reqwest::Error),
    End,
    /// Nothing, in time.
    Late,
}

impl Attempt {
    pub(super) fn new(
        config: &UpstreamConfig,
        endpoint: Arc<Endpoint>,
        request: ChatRequest,
    ) -> Self {
        let (started, timeouts) = (Instant::now(), config.timeouts);
        let last_deadline = started + timeouts.answer;
        let deadline = (started + timeouts.first_token).min(last_deadline);
        Self {
            phase: Phase::Created,
            upstream: config.name.clone(),
            endpoint,
            request: Some(request),
            timeouts,
            decoder: Decoder::new(config.dialect.api),
            events: Events::new(),
            deadline,
            last_deadline,
            end_deadline: None,
            timer: Box::pin(sleep_until(deadline)),
            started,
            alive_at: None,
            first_text: false,
            status: None,
            said: String::new(),
            outcome: "cancelled",
        }
    }

    /// The next event; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<Result<UpstreamEvent, UpstreamError>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if self.is_told(&event) {
                    return Some(event);
                }
                continue;
            }
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return None,
                Phase::Created => match self.send().await {
                    Ok(body) => self.phase = Phase::Streaming(body),
                    Err(error) => self.events.push_back(Err(error)),
                },
                Phase::Streaming(mut body) => {
                    let read = match self.until_deadline(body.next()).await {
                        Some(Some(Ok(bytes))) => Read::Bytes(bytes),
                        Some(Some(Err(error))) => Read::Broken(error),
                        Some(None) => Read::End,
                        None => Read::Late,
                    };
                    self.take(read);
                    match self.events.back() {
                        Some(Ok(UpstreamEvent::Finished { .. })) => Self::give_back(body).await,
                        Some(Err(_)) => {}
                        _ => self.phase = Phase::Streaming(body),
                    }
                }
            }
        }
    }

    async fn send(&mut self) -> Result<Body, UpstreamError> {
        let refused = match self.ask().await? {
            Ok(body) => return Ok(body),
            Err(refused) => refused,
        };
        // A newer model, or an older server: the other field is tried, in the same attempt.
        let refused = if self.endpoint.learn(&refused) {
            match self.ask().await? {
                Ok(body) => return Ok(body),
                Err(refused) => refused,
            }
        } else {
            refused
        };
        self.said = refused.said;
        Err(refused.error)
    }

    /// Sends the request; the inner error is what the response says.
    async fn ask(&mut self) -> Result<Result<Body, Refused>, UpstreamError> {
        let Some(request) = &self.request else {
            return Err(UpstreamError::Unreachable);
        };
        let request = match self.endpoint.request(request) {
            Ok(request) => request,
            Err(error) => {
                self.said = error.to_string();
                return Err(UpstreamError::Misconfigured);
            }
        };
        let sent = self.until_deadline(request.send()).await;
        let response = match sent {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(self.broken(&error)),
            None => return Err(self.timed_out()),
        };
        self.status = Some(response.status().as_u16());
        Ok(accepted(response).await)
    }

    fn take(&mut self, read: Read) {
        match read {
            Read::Bytes(bytes) => {
                self.decoder.feed(&bytes, &mut self.events);
                self.move_deadline();
            }
            Read::Broken(error) => {
                self.broken(&error);
                self.decoder.close(Close::Broken, &mut self.events);
            }
            Read::End => self.decoder.close(Close::Over, &mut self.events),
            Read::Late if self.decoder.has_good_end() => {
                self.decoder.close(Close::Broken, &mut self.events);
            }
            Read::Late => {
                let error = self.timed_out();
                self.events.push_back(Err(error));
            }
        }
    }

    /// Any byte is a sign of life.
    fn move_deadline(&mut self) {
        let has_text = self.first_text
            || self
                .events
                .iter()
                .any(|event| matches!(event, Ok(UpstreamEvent::Text(_))));
        let silence = if has_text {
            self.timeouts.token
        } else {
            self.timeouts.first_token
        };
        let now = Instant::now();
        self.deadline = (now + silence).min(self.last_deadline);
        // What keeps coming after the end does not prolong the wait for counts. Text takes back an end
        // before it.
        self.end_deadline = if self.decoder.has_good_end() {
            self.end_deadline.or(Some(now + AFTER_END))
        } else {
            None
        };
        if let Some(end_deadline) = self.end_deadline {
            self.deadline = self.deadline.min(end_deadline);
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
    async fn give_back(mut body: Body) {
        let rest = async { while let Some(Ok(_)) = body.next().await {} };
        // Dropping the body otherwise closes the connection, which is all that is lost.
        drop(tokio::time::timeout(Duration::from_millis(5), rest).await);
    }

    fn timed_out(&mut self) -> UpstreamError {
        self.said = if Instant::now() >= self.last_deadline {
            "the answer took too long as a whole".to_owned()
        } else {
            "no sign of life in time".to_owned()
        };
        UpstreamError::TimedOut
    }

    fn broken(&mut self, error: &reqwest::Error) -> UpstreamError {
        // Without its URL: that is configuration, and may have a key in its query. The causes, from the
        // outermost in, say what happened.
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
        "the connection failed".clone_into(&mut self.said);
        while let Some(error) = cause {
            self.said.push_str(": ");
            self.said.push_str(&error.to_string());
            cause = error.source();
        }
        if error.is_timeout() && !error.is_connect() {
            return UpstreamError::TimedOut;
        }
        UpstreamError::Unreachable
    }

    /// Whether it is to be told; counts and logs it.
    fn is_told(&mut self, event: &Result<UpstreamEvent, UpstreamError>) -> bool {
        match event {
            Ok(UpstreamEvent::Alive) => {
                let now = Instant::now();
                let is_due = self.alive_at.is_none_or(|at| now >= at + ALIVE_EVERY);
                if is_due {
                    self.alive_at = Some(now);
                }
                return is_due;
            }
            Ok(UpstreamEvent::Used(_)) => {}
            Ok(UpstreamEvent::Text(_)) if self.first_text => {}
            Ok(UpstreamEvent::Text(_)) => {
                self.first_text = true;
                self.request = None;
                metrics::histogram!(
                    "hubbub_llm_first_token_seconds", "upstream" => self.upstream.clone()
                )
                .record(self.started.elapsed());
            }
            Ok(UpstreamEvent::Finished { .. }) => self.outcome = "finished",
            Err(error) => {
                self.outcome = outcome(*error);
                self.log();
            }
        }
        true
    }

    /// The one warning of an attempt that failed.
    fn log(&self) {
        let said = match (self.said.as_str(), self.decoder.said()) {
            (said, "") | ("", said) => said.to_owned(),
            (why, said) => format!("{said} ({why})"),
        };
        let turns = self
            .request
            .as_ref()
            .map(|request| request.turns.as_slice());
        let said = words::for_log(&said, self.endpoint.secrets(), turns.unwrap_or_default());
        tracing::warn!(
            upstream = self.upstream,
            outcome = self.outcome,
            status = self.status,
            said,
            "an upstream did not answer"
        );
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

/// The label of a metric.
fn outcome(error: UpstreamError) -> &'static str {
    match error {
        UpstreamError::Unreachable => "unreachable",
        UpstreamError::TimedOut => "timed_out",
        UpstreamError::Busy(_) => "busy",
        UpstreamError::Failed => "failed",
        UpstreamError::Misconfigured => "misconfigured",
        UpstreamError::Refused => "refused",
        UpstreamError::Filtered => "filtered",
        UpstreamError::Cut => "cut",
        UpstreamError::Garbage => "garbage",
    }
}
