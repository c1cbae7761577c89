//! A simulated LLM upstream that speaks the APIs of OpenAI, Anthropic and Ollama.
//!
//! It exists so that load tests measure Hubbub and not a model, and so that tests can make an
//! upstream misbehave on purpose. It writes one chunk a token, as real upstreams do, at times fixed
//! by a schedule; what it answers is a pure function of the question ([`answer_text`]), so whoever
//! reads an answer can check every character of it.
//!
//! A [`SimLlm`] is started by [`serve`] and owns its accept loop and all connections; dropping it
//! ends them. Nothing is lost with it: it keeps counters only.

mod answer;
mod behaviour;
mod completion;
mod connection;
mod format;
mod http;
mod prefixes;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

pub use answer::{answer_text, answer_token};
use prefixes::{Prefixes, Prompt};

pub use behaviour::{Behaviour, BehaviourPatch, Fate, InvalidBehaviour, Mode};

/// A running simulated upstream; stops when dropped.
#[derive(Debug)]
pub struct SimLlm {
    shared: Arc<Shared>,
    address: SocketAddr,
    accept_loop: JoinHandle<std::io::Result<()>>,
}

/// Starts to serve on `listener`. Must be called inside a tokio runtime.
///
/// # Errors
/// When the listener's own address cannot be read.
pub fn serve(listener: TcpListener, behaviour: Behaviour) -> std::io::Result<SimLlm> {
    let address = listener.local_addr()?;
    let shared = Arc::new(Shared {
        behaviour: RwLock::new(behaviour),
        tally: Tally::default(),
        prefixes: Mutex::default(),
    });
    let accept_loop = tokio::spawn(accept(listener, Arc::clone(&shared)));
    Ok(SimLlm {
        shared,
        address,
        accept_loop,
    })
}

impl SimLlm {
    /// The base URL for an OpenAI-compatible client: `http://…/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The base URL for a client of Ollama's API.
    pub fn ollama_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how requests that start from now on are answered.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.set_behaviour(behaviour);
    }

    /// How requests that start now are answered.
    pub fn behaviour(&self) -> Behaviour {
        self.shared.behaviour()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.shared.tally.counters()
    }

    /// Waits until the accept loop ends, which it does only when the listener fails.
    ///
    /// # Errors
    /// The listener's error.
    pub async fn stopped(mut self) -> std::io::Result<()> {
        match (&mut self.accept_loop).await {
            Ok(outcome) => outcome,
            Err(error) => Err(std::io::Error::other(error)),
        }
    }
}

impl Drop for SimLlm {
    fn drop(&mut self) {
        self.accept_loop.abort();
    }
}

/// Accepts until the listener fails. The set owns the connections: dropping it aborts them.
async fn accept(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(connection::run(socket, Arc::clone(&shared)));
                }
                // Out of descriptors or a peer that gave up in the backlog: neither ends the server,
                // and a pause keeps the first from becoming a busy loop.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What every connection sees.
#[derive(Debug)]
struct Shared {
    behaviour: RwLock<Behaviour>,
    tally: Tally,
    prefixes: Mutex<Prefixes>,
}

impl Shared {
    fn behaviour(&self) -> Behaviour {
        self.behaviour
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_behaviour(&self, behaviour: Behaviour) {
        *self
            .behaviour
            .write()
            .unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// Tokens of the prompt that need not be read again.
    fn cached(&self, prompt: &Prompt) -> u64 {
        let prefixes = self.prefixes.lock();
        prefixes
            .unwrap_or_else(PoisonError::into_inner)
            .cached(prompt)
    }

    fn remember(&self, prompt: &Prompt) {
        let prefixes = self.prefixes.lock();
        prefixes
            .unwrap_or_else(PoisonError::into_inner)
            .remember(prompt);
    }
}

/// Counts of chat completion requests, as `GET /control` tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests that arrived whole.
    pub started: u64,
    /// Requests being answered now, the hanging ones among them.
    pub running: u64,
    /// Most requests being answered at once.
    pub max_running: u64,
    /// Requests answered to the end as a model would.
    pub completed: u64,
    /// Requests whose client closed before the answer's end.
    pub cancelled: u64,
    /// Requests spoiled on purpose: 500, hang (when it is given up), garbage, half a stream.
    pub spoiled: u64,
    /// Requests refused with 429, on purpose or because every slot was taken.
    pub refused: u64,
    /// Tokens written.
    pub tokens: u64,
    /// Tokens of prompts that were read: those of every request whose answer was begun.
    pub prompt_tokens: u64,
    /// Of those, tokens that had not to be read again: `prefix_cache`.
    pub cached_tokens: u64,
}

#[derive(Debug, Default)]
struct Tally {
    started: AtomicU64,
    running: AtomicU64,
    max_running: AtomicU64,
    completed: AtomicU64,
    cancelled: AtomicU64,
    spoiled: AtomicU64,
    refused: AtomicU64,
    tokens: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Completed,
    Cancelled,
    Spoiled,
    Refused,
}

impl Tally {
    /// Counts a request in; answers its number, from 0, and how many run with it.
    fn begin(&self) -> (u64, u64) {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_running.fetch_max(running, Ordering::Relaxed);
        (number, running)
    }

    fn end(&self, outcome: Outcome) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        let counter = match outcome {
            Outcome::Completed => &self.completed,
            Outcome::Cancelled => &self.cancelled,
            Outcome::Spoiled => &self.spoiled,
            Outcome::Refused => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn token(&self) {
        self.tokens.fetch_add(1, Ordering::Relaxed);
    }

    fn prompt(&self, tokens: u64, cached: u64) {
        self.prompt_tokens.fetch_add(tokens, Ordering::Relaxed);
        self.cached_tokens.fetch_add(cached, Ordering::Relaxed);
    }

    fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            started: read(&self.started),
            running: read(&self.running),
            max_running: read(&self.max_running),
            completed: read(&self.completed),
            cancelled: read(&self.cancelled),
            spoiled: read(&self.spoiled),
            refused: read(&self.refused),
            tokens: read(&self.tokens),
            prompt_tokens: read(&self.prompt_tokens),
            cached_tokens: read(&self.cached_tokens),
        }
    }

    /// Forgets everything but what runs now.
    fn reset(&self) {
        for counter in [
            &self.started,
            &self.completed,
            &self.cancelled,
            &self.spoiled,
            &self.refused,
            &self.tokens,
            &self.prompt_tokens,
            &self.cached_tokens,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.max_running
            .store(self.running.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}
