//! Configuration: defaults < file < environment < flags, validated once, at start.
//!
//! Nothing else in the server reads the environment. A wrong configuration is refused with all its
//! errors at once; a running server's configuration never changes.

mod check;
mod database;
mod dialect;
mod limits;
mod models;
mod problem;
mod reader;
mod render;
mod secret;
mod sections;
mod source;
mod suggestion;
mod upstreams;

#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::path::PathBuf;

pub use database::{DatabaseConfig, DatabaseTimeouts};
pub use dialect::{Api, ApiKeyHeader, OutputBound, UpstreamDialect};
pub use limits::{LimitsConfig, StrangersConfig};
pub use models::{LlmConfig, ModelConfig};
pub use problem::{ConfigErrors, ConfigProblem, Source};
pub use render::EffectiveConfig;
pub use secret::Secret;
pub use sections::{ForwardedHeader, LogConfig, LogFormat, ServerConfig, SessionConfig};
pub use source::Inputs;
pub use upstreams::{BaseUrl, EMBEDDED_UPSTREAM, UpstreamConfig, UpstreamTimeouts};

use reader::Reader;
use source::Layers;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the server listens and keeps its things.
    pub server: ServerConfig,
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// Bounds on what clients can make the server hold.
    pub limits: LimitsConfig,
    /// Rhythms of a live session.
    pub session: SessionConfig,
    /// The queue for the upstreams.
    pub llm: LlmConfig,
    /// LLM endpoints, as listed.
    pub upstreams: Vec<UpstreamConfig>,
    /// The embedded model.
    pub model: ModelConfig,
    /// What is written to standard error.
    pub log: LogConfig,
    /// What is of no effect, though it was probably meant to have one: to be told at start.
    pub warnings: Vec<String>,
}

impl Config {
    /// Loads and validates. The second half of the answer is for `check-config`.
    pub fn load(inputs: &Inputs) -> Result<(Self, EffectiveConfig), ConfigErrors> {
        let mut reader = Reader::new(inputs.layers()?);
        let cache = inputs
            .variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| {
                inputs
                    .variable("HOME")
                    .map(|home| PathBuf::from(home).join(".cache"))
            })
            .map(|cache| cache.join("hubbub"));
        let mut config = Self::read(&mut reader, cache, std::io::stderr().is_terminal(), false);
        let every_key = every_key();
        config.warnings = reader.warnings(&every_key);
        let reader = reader.finish(&every_key)?;
        let effective = EffectiveConfig::new(reader.settings, config.warnings.clone());
        Ok((config, effective))
    }

    fn read(from: &mut Reader, cache: Option<PathBuf>, terminal: bool, example: bool) -> Self {
        let server = ServerConfig::read(from);
        let database = DatabaseConfig::read(from);
        let limits = LimitsConfig::read(from);
        let session = SessionConfig::read(from);
        let mut llm = LlmConfig::read(from);
        let upstreams = UpstreamConfig::read_all(from, example);
        let model = ModelConfig::read(from, upstreams.is_empty(), cache);
        let log = LogConfig::read(from, terminal);
        llm.resolve(from, &upstreams, &model);
        Self {
            server,
            database,
            limits,
            session,
            llm,
            upstreams,
            model,
            log,
            warnings: Vec::new(),
        }
    }
}

/// `hubbub.example.toml`: every key with its documentation, its default and what is allowed.
pub fn example() -> String {
    render::example(&example_reader())
}

/// The dotted key of every setting; members of lists have index 0.
fn every_key() -> Vec<String> {
    example_reader().keys()
}

/// A reader that was asked for every key there is, and found none.
fn example_reader() -> Reader {
    let mut reader = Reader::new(Layers::default());
    Config::read(&mut reader, None, false, true);
    reader
}
