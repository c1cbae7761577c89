//! An LLM that follows a script, in virtual time.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use hubbub_protocol::Usage;

use crate::ports::{ChatRequest, Finish, Upstream, UpstreamError, UpstreamEvent};

/// One step of an attempt.
#[derive(Clone, Debug)]
pub enum Step {
    /// A piece of text.
    Text(String),
    /// A sign of life with nothing to show.
    Alive,
    /// The upstream's count of what it took until now.
    Used(Usage),
    /// Silence for a while.
    Wait(Duration),
    /// The end of a complete answer.
    Finish(Option<Usage>),
    /// The end of an answer that reached the most tokens the model may write.
    FinishAtBound(Option<Usage>),
    /// The attempt fails.
    Fail(UpstreamError),
    /// Silence for ever, as of an upstream whose time-outs are set too long.
    Hang,
    /// The upstream's code panics.
    Panic,
}

impl Step {
    /// A piece of text.
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// Silence for some milliseconds.
    pub fn wait_ms(ms: u64) -> Self {
        Self::Wait(Duration::from_millis(ms))
    }

    /// A complete answer: its pieces with a pause before each.
    pub fn answer(pieces: &[&str], pause: Duration) -> Vec<Self> {
        let mut steps: Vec<Self> = pieces
            .iter()
            .flat_map(|piece| [Self::Wait(pause), Self::text(piece)])
            .collect();
        steps.push(Self::Finish(None));
        steps
    }
}

/// An upstream that answers each request with the next script, or with the usual one.
pub struct ScriptedUpstream {
    name: String,
    group: Option<String>,
    slots: u32,
    context_tokens: u32,
    usual: Mutex<Vec<Step>>,
    scripts: Mutex<VecDeque<Vec<Step>>>,
    requests: Mutex<Vec<ChatRequest>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    running: AtomicUsize,
    most_running: AtomicUsize,
    abandoned: AtomicUsize,
}

impl ScriptedUpstream {
    /// An upstream with that many slots, which usually answers "Hello, world." in two pieces.
    pub fn new(name: &str, slots: u32) -> Arc<Self> {
        Self::reading(name, slots, 8_192)
    }

    /// The same, with so many tokens in prompt and answer together.
    pub fn reading(name: &str, slots: u32, context_tokens: u32) -> Arc<Self> {
        Arc::new(Self::build(name, slots, context_tokens, None))
    }

    /// The same, with equals.
    pub fn in_group(name: &str, slots: u32, group: Option<&str>) -> Arc<Self> {
        Arc::new(Self::build(name, slots, 8_192, group))
    }

    fn build(name: &str, slots: u32, context_tokens: u32, group: Option<&str>) -> Self {
        let usual = Step::answer(&["Hello, ", "world."], Duration::from_millis(10));
        Self {
            name: name.to_owned(),
            group: group.map(str::to_owned),
            slots,
            context_tokens,
            usual: Mutex::new(usual),
            scripts: Mutex::default(),
            requests: Mutex::default(),
            counts: Arc::default(),
        }
    }

    /// What it does whenever no other script is left.
    pub fn usually(&self, steps: Vec<Step>) {
        *lock(&self.usual) = steps;
    }

    /// What it does at the next request for which nothing else was scripted.
    pub fn then(&self, steps: Vec<Step>) {
        lock(&self.scripts).push_back(steps);
    }

    /// Every request so far, oldest first.
    pub fn requests(&self) -> Vec<ChatRequest> {
        lock(&self.requests).clone()
    }

    /// Streams open now.
    pub fn running(&self) -> usize {
        self.counts.running.load(Ordering::Relaxed)
    }

    /// The most streams that were ever open at once.
    pub fn most_running(&self) -> usize {
        self.counts.most_running.load(Ordering::Relaxed)
    }

    /// Streams dropped before their end: requests that were closed.
    pub fn abandoned(&self) -> usize {
        self.counts.abandoned.load(Ordering::Relaxed)
    }
}

/// An open stream.
struct Running {
    steps: VecDeque<Step>,
    counts: Arc<Counts>,
    has_ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.counts.running.fetch_sub(1, Ordering::Relaxed);
        if !self.has_ended {
            self.counts.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Running {
    fn finish(&mut self, finish: Finish, usage: Option<Usage>) -> UpstreamEvent {
        self.has_ended = true;
        UpstreamEvent::Finished {
            finish,
            model: None,
            usage,
        }
    }

    async fn next(&mut self) -> Option<Result<UpstreamEvent, UpstreamError>> {
        if self.has_ended {
            return None;
        }
        loop {
            let Some(step) = self.steps.pop_front() else {
                // A script without an end is a connection that broke.
                self.has_ended = true;
                return None;
            };
            match step {
                Step::Text(text) => return Some(Ok(UpstreamEvent::Text(text))),
                Step::Wait(pause) => tokio::time::sleep(pause).await,
                Step::Hang => std::future::pending().await,
                Step::Panic => super::panic_as_asked("a panic that the test asked for"),
                Step::Alive => return Some(Ok(UpstreamEvent::Alive)),
                Step::Used(usage) => return Some(Ok(UpstreamEvent::Used(usage))),
                Step::Finish(usage) => return Some(Ok(self.finish(Finish::Complete, usage))),
                Step::FinishAtBound(usage) => return Some(Ok(self.finish(Finish::Length, usage))),
                Step::Fail(error) => {
                    self.has_ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Upstream for ScriptedUpstream {
    fn name(&self) -> &str {
        &self.name
    }

    fn default_model(&self) -> &str {
        &self.name
    }

    fn slots(&self) -> RangeInclusive<u32> {
        self.slots..=self.slots
    }

    fn context_tokens(&self) -> u32 {
        self.context_tokens
    }

    fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    fn stream(
        &self,
        request: ChatRequest,
    ) -> BoxStream<'static, Result<UpstreamEvent, UpstreamError>> {
        lock(&self.requests).push(request);
        let scripted = lock(&self.scripts).pop_front();
        let steps = scripted.unwrap_or_else(|| lock(&self.usual).clone());
        let now = self.counts.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.counts.most_running.fetch_max(now, Ordering::Relaxed);
        let running = Running {
            steps: steps.into(),
            counts: self.counts.clone(),
            has_ended: false,
        };
        stream::unfold(running, |mut running| async move {
            let event = running.next().await?;
            Some((event, running))
        })
        .boxed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
