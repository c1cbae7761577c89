//! The dialect's bytes: the body of a request, and what the events of an answer mean.

use std::borrow::Cow;
use std::collections::VecDeque;

use hubbub_actors::ports::{ChatRequest, ChatTurn, Finish, TurnRole, UpstreamError, UpstreamEvent};
use hubbub_protocol::Usage;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::llm::sse::SseParser;
use crate::telemetry::logs::truncated;

/// Most bytes of a provider's words in our log.
const LOGGED_BYTES: usize = 512;

/// The body of a request.
pub(super) fn body(
    request: &ChatRequest,
    default_model: &str,
    is_openai: bool,
) -> Result<Vec<u8>, serde_json::Error> {
    let tokens = Some(request.max_output_tokens);
    serde_json::to_vec(&Body {
        model: request.model.as_deref().unwrap_or(default_model),
        messages: request.turns.iter().map(Turn::from).collect(),
        max_tokens: tokens.filter(|_| !is_openai),
        max_completion_tokens: tokens.filter(|_| is_openai),
        stream: true,
        stream_options: StreamOptions {
            include_usage: true,
        },
    })
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: &'a str,
}

impl<'a> From<&'a ChatTurn> for Turn<'a> {
    fn from(turn: &'a ChatTurn) -> Self {
        let role = match turn.role {
            TurnRole::System => "system",
            TurnRole::User => "user",
            TurnRole::Assistant => "assistant",
        };
        Self {
            role,
            content: &turn.text,
        }
    }
}

/// One event of an answer. Only what we use is read; texts are borrowed where they need no unescaping.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    model: Option<Text<'a>>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<RawUsage>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(default)]
    finish_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Text<'a>>,
}

/// `Option<Cow>` would be read as owned; a newtype of its own is borrowed.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct RawUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// Turns the bytes of an answer into events, whatever way they are cut.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    parser: SseParser,
    answer: Answer,
}

#[derive(Debug, Default)]
struct Answer {
    /// Texts of one chunk go out as one event: fewer wake-ups, and no text waits for another chunk.
    text: String,
    model: Option<String>,
    usage: Option<Usage>,
    /// A `finish_reason` was seen: all text is there, only counts may follow.
    complete: bool,
    /// `[DONE]` was seen, or an error: nothing follows.
    end: Option<Result<(), UpstreamError>>,
    /// Some event that is not a comment was seen in this chunk.
    progress: bool,
}

impl Decoder {
    /// Takes the next bytes, and answers whether they contained an event.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut Events) -> bool {
        let Self { parser, answer } = self;
        answer.progress = false;
        if let Err(error) = parser.feed(bytes, |data| answer.take(data)) {
            tracing::debug!(%error, "the upstream's stream is not one of events");
            answer.end.get_or_insert(Err(UpstreamError::Garbage));
        }
        if !answer.text.is_empty() {
            out.push_back(Ok(UpstreamEvent::Text(std::mem::take(&mut answer.text))));
        }
        match answer.end {
            Some(Ok(())) => out.push_back(Ok(self.finished())),
            Some(Err(error)) => out.push_back(Err(error)),
            None => {}
        }
        self.answer.progress
    }

    /// The answer as complete, if all its text is there.
    pub(super) fn close(&mut self) -> Option<UpstreamEvent> {
        self.answer.complete.then(|| self.finished())
    }

    fn finished(&mut self) -> UpstreamEvent {
        UpstreamEvent::Finished {
            finish: Finish::Complete,
            model: self.answer.model.take(),
            usage: self.answer.usage.take(),
        }
    }
}

/// What is to be told, in order.
pub(super) type Events = VecDeque<Result<UpstreamEvent, UpstreamError>>;

impl Answer {
    fn take(&mut self, data: &str) {
        if self.end.is_some() {
            return;
        }
        self.progress = true;
        if data == "[DONE]" {
            self.end = Some(Ok(()));
            return;
        }
        let chunk = match serde_json::from_str::<Chunk<'_>>(data) {
            Ok(chunk) => chunk,
            Err(error) => {
                // The error's place only: its text can quote the answer.
                tracing::debug!(
                    column = error.column(),
                    "the upstream's event is not a chunk"
                );
                self.end = Some(Err(UpstreamError::Garbage));
                return;
            }
        };
        if chunk.error.is_some() {
            tracing::debug!(
                said = truncated(data, LOGGED_BYTES),
                "the upstream failed in mid-answer"
            );
            self.end = Some(Err(UpstreamError::Failed));
            return;
        }
        if let (None, Some(model)) = (&self.model, &chunk.model) {
            self.model = Some(model.0.as_ref().to_owned());
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(Usage {
                input_tokens: usage.prompt_tokens,
                output_tokens: usage.completion_tokens,
                estimated: false,
            });
        }
        // We ask for one choice; of several only the first would be one answer.
        let Some(choice) = chunk.choices.iter().flatten().next() else {
            return;
        };
        if let Some(Delta {
            content: Some(text),
        }) = &choice.delta
        {
            self.text.push_str(&text.0);
        }
        self.complete |= choice.finish_reason.is_some();
    }
}
