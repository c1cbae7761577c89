//! What the scenario can be told.

use crate::harness::rig::Upstream;

/// Parameters of the scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct Chats {
    /// Chats at once.
    #[arg(short, long, default_value_t = 500)]
    pub concurrency: u32,
    /// Questions in each chat; 0 means as many as the duration allows.
    #[arg(long, default_value_t = 0)]
    pub rounds: u32,
    /// Seconds after which no further question is asked.
    #[arg(long, default_value_t = 30)]
    pub duration: u64,
    /// Seconds over which the chats begin, so that they do not go in step.
    #[arg(long, default_value_t = 2.0)]
    pub ramp: f64,
    /// Seconds within which an answer must end.
    #[arg(long, default_value_t = 60)]
    pub deadline: u64,
    /// Address of the simulated upstream: its own time to first token is taken off, and every answer
    /// is compared with what it must be.
    #[arg(long)]
    pub simllm: Option<String>,
    /// Milliseconds to take off the time to first token where there is no `--simllm` to ask.
    #[arg(long, default_value_t = 0)]
    pub upstream_ttft_ms: u64,
    /// Milliseconds to the first text from which on an answer counts as late; 0 counts none.
    #[arg(long, default_value_t = 0)]
    pub late_ms: u64,
    /// After a refusal, wait as long as it says before the next question.
    #[arg(long)]
    pub patient: bool,
    /// Ask each question in a new session, so that all prompts are equally long.
    #[arg(long)]
    pub fresh: bool,
    /// Do not read the sessions back at the end.
    #[arg(long)]
    pub no_read_back: bool,
}

impl Chats {
    /// Chats of the scenarios that start their own servers: as many questions as the duration allows, compared
    /// with what this upstream must answer.
    pub fn new(upstream: Option<&Upstream>, concurrency: u32, duration: u64) -> Self {
        Self {
            concurrency,
            rounds: 0,
            duration,
            ramp: 1.0,
            deadline: 120,
            simllm: upstream.map(|upstream| upstream.server.url.clone()),
            upstream_ttft_ms: 0,
            late_ms: 0,
            patient: true,
            fresh: false,
            no_read_back: true,
        }
    }
}
