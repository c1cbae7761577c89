//! The port to one LLM endpoint.

use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::stream::BoxStream;
use hubbub_protocol::Usage;

/// One LLM endpoint, whatever its dialect.
pub trait Upstream: Send + Sync + 'static {
    /// Its configured name.
    fn name(&self) -> &str;

    /// The model it answers with when a request names none.
    fn default_model(&self) -> &str;

    /// Most requests at once. Where it is a range, the pool finds out what the upstream takes without slowing
    /// down.
    fn slots(&self) -> RangeInclusive<u32>;

    /// Most tokens in prompt and answer together.
    fn context_tokens(&self) -> u32;

    /// Upstreams of the same group are equals: each may take what the others take. `None` is alone.
    fn group(&self) -> Option<&str>;

    /// Starts one attempt. Dropping the stream closes the HTTP request.
    ///
    /// The stream ends after `Finished` or an error. It never waits longer than the upstream's
    /// configured time-outs: to the first token, and between tokens.
    fn stream(
        &self,
        request: ChatRequest,
    ) -> BoxStream<'static, Result<UpstreamEvent, UpstreamError>>;
}

/// What to ask a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// Overrides the upstream's default model.
    pub model: Option<String>,
    /// Oldest first; the first may be the system's.
    pub turns: Vec<ChatTurn>,
    /// Most tokens in the answer.
    pub max_output_tokens: u32,
    /// Correlates the upstream's log with ours: the reply's id.
    pub request_id: String,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTurn {
    /// Who speaks.
    pub role: TurnRole,
    /// What they say.
    pub text: String,
}

/// Speakers, in the words of the LLM dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnRole {
    /// The bot's instructions.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// What an upstream says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamEvent {
    /// A sign of life with nothing to show: it thinks, or keeps the connection open. Told at most once in
    /// [`ALIVE_EVERY`], and only before the first text.
    Alive,
    /// A piece of the answer; never empty.
    Text(String),
    /// What the attempt took until now, as the upstream counts it. It may come before, between and after texts.
    Used(Usage),
    /// The answer has a good end. Nothing comes after it, and nothing can spoil it.
    Finished {
        /// Why it ended.
        finish: Finish,
        /// The model that answered, as it names itself.
        model: Option<String>,
        /// As the upstream counts it, if it did not tell before.
        usage: Option<Usage>,
    },
}

/// How often a sign of life is told, at most.
pub const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// Good ends of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model had no more to say.
    Complete,
    /// It reached the most tokens it may write.
    Length,
}

/// Why an attempt failed. The cause is in the log, where it was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// Could not be reached, or the connection broke before the answer began.
    #[error("unreachable")]
    Unreachable,
    /// Silent for longer than its time-out.
    #[error("timed out")]
    TimedOut,
    /// It is too busy (429, 503); perhaps it said for how long.
    #[error("busy")]
    Busy(Option<Duration>),
    /// It failed (5xx, or an error in its stream).
    #[error("failed")]
    Failed,
    /// It takes no request of ours, whatever it says (401, 403, 404 …): its set-up is wrong.
    #[error("misconfigured")]
    Misconfigured,
    /// It refused this request for what it asks (400, 413, 422).
    #[error("refused")]
    Refused,
    /// Its content filter refused the prompt, or cut the answer.
    #[error("filtered")]
    Filtered,
    /// Its answer ended before its end.
    #[error("cut")]
    Cut,
    /// Its answer is not of its dialect.
    #[error("garbage")]
    Garbage,
}
