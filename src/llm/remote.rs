//! LLM upstreams over HTTP: OpenAI's chat completions, Anthropic's Messages, Ollama's chat.
//!
//! Each dialect is a file that writes its requests and says its events in the words of OpenAI's; everything else is
//! the same for all.
//!
//! An attempt lives as long as its stream; dropping the stream closes the HTTP request, which is how
//! an upstream learns that nobody listens. What a provider says about an error stays in our log.

mod answer;
mod anthropic;
mod attempt;
mod chunk;
mod client;
pub mod decoder;
mod dialect;
mod events;
mod finish;
mod form;
mod json_lines;
mod ollama;
mod openai;
mod refusal;
mod repair;
mod response;
mod text;
mod words;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use hubbub_actors::ports::{ChatRequest, Upstream, UpstreamError, UpstreamEvent};
use tracing::Instrument;

use crate::config::UpstreamConfig;

use attempt::Attempt;
use client::Endpoint;
pub use client::UpstreamSetupError;

/// One endpoint, whatever it speaks. Its constructor is cheap to call once a start.
#[derive(Debug)]
pub struct RemoteUpstream {
    config: UpstreamConfig,
    endpoint: Arc<Endpoint>,
}

impl RemoteUpstream {
    /// Prepares the endpoint; nothing is sent yet.
    pub fn new(config: UpstreamConfig) -> Result<Self, UpstreamSetupError> {
        let endpoint = Arc::new(Endpoint::new(&config)?);
        Ok(Self { config, endpoint })
    }
}

impl Upstream for RemoteUpstream {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn default_model(&self) -> &str {
        &self.config.model
    }

    fn slots(&self) -> RangeInclusive<u32> {
        self.config.slots.clone()
    }

    fn context_tokens(&self) -> u32 {
        self.config.context_tokens
    }

    fn group(&self) -> Option<&str> {
        self.config.group.as_deref()
    }

    fn stream(
        &self,
        request: ChatRequest,
    ) -> BoxStream<'static, Result<UpstreamEvent, UpstreamError>> {
        let span = tracing::info_span!(
            "llm.attempt",
            upstream = self.config.name,
            request_id = request.request_id,
        );
        let attempt = Attempt::new(&self.config, Arc::clone(&self.endpoint), request);
        stream::unfold(
            (Box::new(attempt), span),
            |(mut attempt, span)| async move {
                let item = attempt.next().instrument(span.clone()).await?;
                Some((item, (attempt, span)))
            },
        )
        .boxed()
    }
}
