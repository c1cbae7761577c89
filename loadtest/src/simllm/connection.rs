//! One connection to the simulated upstream: request after request until the client closes.
//!
//! Spawned by the accept loop, which owns it. It ends when the client closes, when it waited
//! [`IDLE`] for a request, or with a fate that cuts.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::behaviour::{BehaviourPatch, Fate};
use super::completion::Answer;
use super::format::Format;
use super::http::{self, Request};
use super::{Outcome, Shared};

/// Longest wait for the next request on a kept connection.
const IDLE: Duration = Duration::from_mins(5);
/// A request that hangs is held at most this long.
const LONGEST_HANG: Duration = Duration::from_mins(10);
/// A client that takes nothing for this long is given up.
const WRITE_DEADLINE: Duration = Duration::from_mins(1);
/// Most bytes a client may send ahead of its answer before the connection is cut.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// The client went away, or must go.
struct Closed;

impl From<std::io::Error> for Closed {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

/// Serves a connection until it ends.
pub async fn run(socket: TcpStream, shared: Arc<Shared>) {
    // Without this a token waits for the acknowledgement of the one before it.
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let mut connection = Connection {
        socket,
        inbound: Vec::new(),
        shared,
    };
    while let Ok(true) = connection.serve_one().await {}
}

struct Connection {
    socket: TcpStream,
    inbound: Vec<u8>,
    shared: Arc<Shared>,
}

impl Connection {
    /// Reads and answers one request; `false` when the connection ends with it.
    async fn serve_one(&mut self) -> Result<bool, Closed> {
        let request = match self.next_request().await? {
            Ok(request) => request,
            Err(http::BadRequest(status)) => {
                self.write(&http::json_answer(status, "{}", false)).await?;
                return Ok(false);
            }
        };
        let keep_alive = request.keep_alive;
        if let ("POST", Some(format)) = (request.method.as_str(), Format::of(&request.path)) {
            return self.complete(&request, format).await;
        }
        let (status, body) = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/models") => (
                200,
                json!({"object": "list", "data": [{"id": "sim", "object": "model"}]}),
            ),
            ("GET", "/health") => (200, json!({"status": "ok"})),
            ("GET", "/control") => (200, self.report()),
            ("PUT", "/control") => self.change(&request.body),
            _ => (404, error_body("no such path")),
        };
        self.write(&http::json_answer(status, &body.to_string(), keep_alive))
            .await?;
        Ok(keep_alive)
    }

    async fn next_request(&mut self) -> Result<Result<Request, http::BadRequest>, Closed> {
        loop {
            match http::take_request(&mut self.inbound) {
                Ok(Some(request)) => return Ok(Ok(request)),
                Ok(None) => {}
                Err(bad) => return Ok(Err(bad)),
            }
            let read = timeout(IDLE, self.socket.read_buf(&mut self.inbound));
            if read.await.map_err(|_| Closed)?? == 0 {
                return Err(Closed);
            }
        }
    }

    fn report(&self) -> serde_json::Value {
        json!({"behaviour": self.shared.behaviour(), "counters": self.shared.tally.counters()})
    }

    fn change(&self, body: &[u8]) -> (u16, serde_json::Value) {
        let patch: BehaviourPatch = match serde_json::from_slice(body) {
            Ok(patch) => patch,
            Err(error) => return (400, error_body(&error.to_string())),
        };
        match self.shared.behaviour().patched(&patch).validated() {
            Ok(behaviour) => self.shared.set_behaviour(behaviour),
            Err(error) => return (400, error_body(error.0)),
        }
        if patch.reset_counters {
            self.shared.tally.reset();
        }
        (200, self.report())
    }

    /// Answers a chat completion request, in whatever way its fate has it.
    async fn complete(&mut self, request: &Request, format: Format) -> Result<bool, Closed> {
        let completion = match format.read(&request.body) {
            Ok(completion) => completion,
            Err(error) => {
                let body = format.error(400, &error.to_string()).to_string();
                self.write(&http::json_answer(400, &body, request.keep_alive))
                    .await?;
                return Ok(request.keep_alive);
            }
        };
        let (number, running) = self.shared.tally.begin();
        // Counts the request out however this future ends, also when it is dropped.
        let mut guard = Ended {
            shared: Arc::clone(&self.shared),
            outcome: Outcome::Cancelled,
        };
        let behaviour = self.shared.behaviour();
        let mut draws = behaviour.draws(number);
        let full = behaviour.slots > 0 && running > behaviour.slots;
        let fate = if full {
            Fate::Busy
        } else {
            draws.fate(&behaviour)
        };
        let mut answer = Answer::new(&completion, behaviour, draws, number, request.keep_alive);
        let keep_alive = request.keep_alive;
        match fate {
            Fate::Error | Fate::Busy => {
                let (status, message, outcome) = match fate {
                    Fate::Busy => (429, "all slots are taken", Outcome::Refused),
                    _ => (
                        500,
                        "the simulated upstream failed on purpose",
                        Outcome::Spoiled,
                    ),
                };
                let body = format.error(status, message).to_string();
                self.write(&http::json_answer(status, &body, keep_alive))
                    .await?;
                guard.outcome = outcome;
                Ok(keep_alive)
            }
            Fate::Hang => {
                self.wait_until(Instant::now() + LONGEST_HANG).await?;
                guard.outcome = Outcome::Spoiled;
                Ok(false)
            }
            Fate::Garbage => {
                let mut out = http::stream_head(format.media_type(), false);
                http::push_chunk(&mut out, &answer.draws.garbage());
                out.extend_from_slice(http::LAST_CHUNK);
                self.write(&out).await?;
                guard.outcome = Outcome::Spoiled;
                Ok(false)
            }
            Fate::Half => {
                let half = answer.tokens / 2;
                self.send_tokens(&mut answer, format, half).await?;
                guard.outcome = Outcome::Spoiled;
                Ok(false)
            }
            Fate::Answer => {
                let all = answer.tokens;
                self.send_tokens(&mut answer, format, all).await?;
                self.finish(&answer, format).await?;
                guard.outcome = Outcome::Completed;
                Ok(keep_alive)
            }
        }
    }

    /// Sends the first `count` tokens at their times. Without streaming it only waits for them.
    async fn send_tokens(
        &mut self,
        answer: &mut Answer,
        format: Format,
        count: u32,
    ) -> Result<(), Closed> {
        if answer.behaviour.prefix_cache {
            answer.cached_tokens = self.shared.cached(&answer.prompt);
        }
        // Every time is counted from the start, so that a late wake-up does not delay what follows.
        let mut due = Instant::now() + answer.first_wait();
        let mut out = if answer.stream {
            http::stream_head(format.media_type(), answer.keep_alive)
        } else {
            Vec::new()
        };
        if answer.stream {
            format.push_beginning(&mut out, answer);
            self.write(&out).await?;
        }
        self.shared
            .tally
            .prompt(answer.prompt.tokens(), answer.cached_tokens);
        for index in 0..count {
            self.wait_until(due).await?;
            due += answer.next_wait();
            if answer.stream {
                out.clear();
                format.push_token(&mut out, answer, index);
                self.write(&out).await?;
            }
            self.shared.tally.token();
        }
        if answer.behaviour.prefix_cache {
            self.shared.remember(&answer.conversation(count));
        }
        Ok(())
    }

    /// Ends the answer: the closing events, or the whole answer where none was streamed.
    async fn finish(&mut self, answer: &Answer, format: Format) -> Result<(), Closed> {
        if !answer.stream {
            let body = format.whole(answer).to_string();
            return self
                .write(&http::json_answer(200, &body, answer.keep_alive))
                .await;
        }
        let mut out = Vec::new();
        format.push_end(&mut out, answer);
        out.extend_from_slice(http::LAST_CHUNK);
        self.write(&out).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        // A socket with room takes the bytes at once: no timer for the ordinary case.
        let written = match self.socket.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(Closed),
        };
        let rest = bytes.get(written..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        timeout(WRITE_DEADLINE, self.socket.write_all(rest))
            .await
            .map_err(|_| Closed)??;
        Ok(())
    }

    /// Waits, and notices a client that closes meanwhile.
    async fn wait_until(&mut self, due: Instant) -> Result<(), Closed> {
        let sleep = tokio::time::sleep_until(due);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return Ok(()),
                read = self.socket.read_buf(&mut self.inbound) => {
                    if read? == 0 || self.inbound.len() > READ_AHEAD_BYTES {
                        return Err(Closed);
                    }
                }
            }
        }
    }
}

/// Counts a request out when it is dropped.
struct Ended {
    shared: Arc<Shared>,
    outcome: Outcome,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.shared.tally.end(self.outcome);
    }
}

fn error_body(message: &str) -> serde_json::Value {
    json!({"error": {"message": message, "type": "simulated", "code": null}})
}
