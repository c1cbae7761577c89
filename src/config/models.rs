//! `[llm]`, `[[upstreams]]` and `[model]`: who answers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::check;
use super::reader::{Reader, key};
use super::secret::Secret;

/// The name of the embedded model's upstream in routes.
pub const EMBEDDED_UPSTREAM: &str = "embedded";

/// `[llm]`: the queue for the upstreams.
#[derive(Clone, Debug)]
pub struct LlmConfig {
    /// Most replies that wait for a slot.
    pub queue_len: usize,
    /// Longest wait for a slot.
    pub queue_wait: Duration,
    /// Longest wait of a reply for the first sign of life, over all its attempts.
    pub first_sign_wait: Duration,
    /// Names of upstreams in the order to try, for bots that name none. Never names an unknown one.
    pub default_route: Vec<String>,
}

impl LlmConfig {
    pub(super) fn read(from: &mut Reader) -> Self {
        from.section("llm", "The queue for the upstreams.");
        Self {
            queue_len: from.size(
                key("queue_len", "Most replies that wait for a slot; more are refused with overloaded."),
                2_000,
                1..=1_000_000,
            ),
            queue_wait: from.millis(
                key("queue_wait_ms", "Longest wait for a slot, in milliseconds."),
                60_000,
                100..=3_600_000,
            ),
            first_sign_wait: from.millis(
                key(
                    "first_sign_wait_ms",
                    "Longest wait of a reply for a model's first sign of life, over all its attempts, in milliseconds.",
                ),
                60_000,
                100..=3_600_000,
            ),
            default_route: from.list(
                key(
                    "default_route",
                    "Names of upstreams in the order to try. Empty: all of them, as listed; \"embedded\" is the embedded model.",
                ),
                "names of upstreams",
                check::name,
            ),
        }
    }

    /// Resolves the default route, and refuses names nobody has.
    pub(super) fn resolve(
        &mut self,
        from: &mut Reader,
        upstreams: &[UpstreamConfig],
        model: &ModelConfig,
    ) {
        let embedded = model.enabled.then_some(EMBEDDED_UPSTREAM);
        let names: Vec<&str> = upstreams
            .iter()
            .map(|upstream| upstream.name.as_str())
            .chain(embedded)
            .collect();
        for name in &self.default_route {
            if !names.contains(&name.as_str()) {
                let message = format!("names no upstream: {name}");
                from.refuse("llm", "default_route", &message, &names.join(", "));
            }
        }
        if self.default_route.is_empty() {
            self.default_route = names.into_iter().map(str::to_owned).collect();
        }
    }
}

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseUrl {
    /// `http://…` or `https://…`, without a trailing slash.
    Http(String),
    /// `unix:/path`: HTTP over this socket.
    Unix(PathBuf),
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One of `[[upstreams]]`: an endpoint that speaks OpenAI's chat completions.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Unique; what routes call it.
    pub name: String,
    /// Where it listens; `/chat/completions` is appended.
    pub base_url: BaseUrl,
    /// The model to ask for when a bot names none.
    pub model: String,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// Most requests at once.
    pub slots: u32,
    /// Most tokens in prompt and answer together.
    pub context_tokens: u32,
    /// Longest wait for the first token, from sending the request.
    pub first_token_timeout: Duration,
    /// Longest wait for each further token.
    pub token_timeout: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
}

impl UpstreamConfig {
    /// Every upstream that is set; with `example` one more, to show its keys.
    pub(super) fn read_all(from: &mut Reader, example: bool) -> Vec<Self> {
        let members = from.members("upstreams").max(usize::from(example));
        let mut names = BTreeSet::from([EMBEDDED_UPSTREAM.to_owned()]);
        let mut upstreams = Vec::new();
        for index in 0..members {
            let section = format!("upstreams.{index}");
            let upstream = Self::read(from, &section, example);
            if !upstream.name.is_empty() && !names.insert(upstream.name.clone()) {
                let message = "is taken by another upstream";
                from.refuse(
                    &section,
                    "name",
                    message,
                    "a unique name; \"embedded\" is reserved",
                );
            }
            upstreams.push(upstream);
        }
        upstreams
    }

    fn read(from: &mut Reader, section: &str, example: bool) -> Self {
        from.section(
            section,
            "An LLM endpoint that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, llama.cpp. \
             Repeat the section for more; in the environment they are HUBBUB__UPSTREAMS__0__NAME and so on.",
        );
        let name = from.parsed(
            key("name", "What routes call it. Required, unique.").example("\"openai\""),
            "1 to 64 of a-z, 0-9, - and _",
            None,
            check::name,
            Clone::clone,
        );
        let base_url = from.parsed(
            key(
                "base_url",
                "Up to and without /chat/completions; unix:/path for a socket. Required.",
            )
            .example("\"https://api.openai.com/v1\""),
            "http://…, https://… (without user and query) or unix:/absolute/path",
            None,
            check::base_url,
            ToString::to_string,
        );
        let model = from.parsed(
            key(
                "model",
                "The model to ask for when a bot names none. Required.",
            )
            .example("\"gpt-4.1-mini\""),
            "a name",
            None,
            check::non_empty,
            Clone::clone,
        );
        for (name, missing) in [
            ("name", name.is_none()),
            ("base_url", base_url.is_none()),
            ("model", model.is_none()),
        ] {
            // A value that is set and wrong has been reported already.
            if missing && !example && from.source(section, name) == super::Source::Default {
                from.refuse(section, name, "is missing", "a value: it has no default");
            }
        }
        Self {
            name: name.unwrap_or_default(),
            base_url: base_url.unwrap_or_else(|| BaseUrl::Http(String::new())),
            model: model.unwrap_or_default(),
            api_key: from.parsed(
                key(
                    "api_key",
                    "Sent as a bearer token. Secret: better set by the environment.",
                )
                .example("\"sk-...\""),
                "printable ASCII",
                None,
                check::api_key,
                |_| "***".to_owned(),
            ),
            slots: from.count(key("slots", "Most requests at once."), 32, 1..=100_000),
            context_tokens: from.count(
                key(
                    "context_tokens",
                    "Most tokens in prompt and answer together.",
                ),
                8_192,
                256..=100_000_000,
            ),
            first_token_timeout: from.millis(
                key(
                    "first_token_timeout_ms",
                    "Longest wait for the first token, in milliseconds.",
                ),
                30_000,
                10..=3_600_000,
            ),
            token_timeout: from.millis(
                key(
                    "token_timeout_ms",
                    "Longest wait for each further token, in milliseconds.",
                ),
                15_000,
                10..=3_600_000,
            ),
            connect_timeout: from.millis(
                key(
                    "connect_timeout_ms",
                    "Longest wait for a connection, in milliseconds.",
                ),
                3_000,
                10..=60_000,
            ),
        }
    }
}

/// `[model]`: the embedded model, a demo in a process of its own.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Whether it is started.
    pub enabled: bool,
    /// The program; `None` is `hubbub-model` beside the server's own program.
    pub program: Option<PathBuf>,
    /// The weights; `None` is the first `.gguf` file in [`cache_dir`](Self::cache_dir).
    pub file: Option<PathBuf>,
    /// `${XDG_CACHE_HOME:-~/.cache}/hubbub`; `None` when neither variable is set.
    pub cache_dir: Option<PathBuf>,
    /// Answers it writes at once.
    pub workers: u32,
}

impl ModelConfig {
    pub(super) fn read(from: &mut Reader, enabled: bool, cache_dir: Option<PathBuf>) -> Self {
        from.section(
            "model",
            "The embedded model: a demo in a process of its own.",
        );
        Self {
            enabled: from.boolean(
                key("enabled", "Whether it is started. Default: when no upstream is configured.")
                    .example("true"),
                enabled,
            ),
            program: from.parsed(
                key("program", "The program. Default: hubbub-model beside the server's own.")
                    .example("\"/usr/local/bin/hubbub-model\""),
                "a path",
                None,
                check::path,
                |path| path.display().to_string(),
            ),
            file: from.parsed(
                key("file", "The weights. Default: the first .gguf file in ~/.cache/hubbub (or $XDG_CACHE_HOME/hubbub).")
                    .example("\"/var/lib/hubbub/model.gguf\""),
                "a path",
                None,
                check::path,
                |path| path.display().to_string(),
            ),
            cache_dir,
            workers: from.count(key("workers", "Answers it writes at once."), 2, 1..=64),
        }
    }
}
