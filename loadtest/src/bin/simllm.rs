//! `simllm`: a simulated upstream for load tests and fault tests.

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use hubbub_loadtest::simllm::{self, Behaviour, Mode};
use tokio::net::TcpListener;

/// A simulated upstream that speaks OpenAI's (`/v1/chat/completions`), Anthropic's (`/v1/messages`) and Ollama's
/// (`/api/chat`) APIs. `GET /control` tells its counters, `PUT /control` changes
/// its behaviour while it runs.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Milliseconds from a request to its first token.
    #[arg(long, default_value_t = 200)]
    ttft_ms: u64,
    /// Milliseconds between two tokens.
    #[arg(long, default_value_t = 20)]
    token_interval_ms: u64,
    /// Tokens in an answer.
    #[arg(long, default_value_t = 60)]
    tokens: u32,
    /// Fraction by which every wait may be shorter or longer, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    jitter: f64,
    /// Share of requests answered with HTTP 500, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    error_rate: f64,
    /// Share of requests answered with HTTP 429, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    busy_rate: f64,
    /// Share of requests never answered, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    hang_rate: f64,
    /// Share of requests answered with bytes that are not events, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    garbage_rate: f64,
    /// Share of streams cut in the middle, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    half_rate: f64,
    /// Requests answered at once; more get 429. 0 means no limit.
    #[arg(long, default_value_t = 0)]
    slots: u64,
    /// Microseconds to read a token of the prompt, on top of the time to first token.
    #[arg(long, default_value_t = 0)]
    prompt_token_us: u64,
    /// Read prompts that begin like an earlier one from there on only, and count what is spared.
    #[arg(long)]
    prefix_cache: bool,
    /// Seed of every draw; a random one, printed, when absent.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let behaviour = Behaviour {
        mode: Mode::Ok,
        ttft_ms: arguments.ttft_ms,
        token_interval_ms: arguments.token_interval_ms,
        tokens: arguments.tokens,
        jitter: arguments.jitter,
        error_rate: arguments.error_rate,
        busy_rate: arguments.busy_rate,
        hang_rate: arguments.hang_rate,
        garbage_rate: arguments.garbage_rate,
        half_rate: arguments.half_rate,
        slots: arguments.slots,
        prompt_token_us: arguments.prompt_token_us,
        prefix_cache: arguments.prefix_cache,
        seed: arguments.seed.unwrap_or_else(rand::random),
    }
    .validated()?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let seed = behaviour.seed;
    let upstream = simllm::serve(listener, behaviour)?;
    let mut out = std::io::stdout();
    writeln!(out, "seed {seed}")?;
    writeln!(out, "listening on http://{}", upstream.address())?;
    out.flush()?;
    tokio::select! {
        outcome = upstream.stopped() => outcome.context("the listener failed"),
        signal = tokio::signal::ctrl_c() => signal.context("cannot wait for Ctrl-C"),
    }
}
