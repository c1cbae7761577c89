//! `[[upstreams]]`: who answers.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::check;
use super::dialect::{Api, UpstreamDialect, masked_query};
use super::reader::{Reader, key};
use super::secret::Secret;

/// The name of the embedded model's upstream in routes.
pub const EMBEDDED_UPSTREAM: &str = "embedded";

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

/// One of `[[upstreams]]`.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Unique; what routes call it.
    pub name: String,
    /// Where it listens; the dialect's path is appended, and its query to that.
    pub base_url: BaseUrl,
    /// The model to ask for when a bot names none.
    pub model: String,
    /// Sent as a bearer token, or in the header that the dialect names.
    pub api_key: Option<Secret>,
    /// Upstreams with the same are equals.
    pub group: Option<String>,
    /// Most requests at once; where the limit is to be found out, between these.
    pub slots: RangeInclusive<u32>,
    /// Most tokens in prompt and answer together.
    pub context_tokens: u32,
    /// How long to wait for it.
    pub timeouts: UpstreamTimeouts,
    /// How its requests differ from the usual.
    pub dialect: UpstreamDialect,
}

/// How long an upstream is waited for. A sign of life is any byte of an answer's body: text, reasoning, a
/// role, a comment that keeps the connection open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest silence before the first text: from the request to the first sign of life, and between
    /// two of them.
    pub first_token: Duration,
    /// Longest silence after the first text.
    pub token: Duration,
    /// Longest answer as a whole, from the request to its end.
    pub answer: Duration,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            first_token: Duration::from_secs(30),
            token: Duration::from_secs(15),
            answer: Duration::from_mins(10),
        }
    }
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
            "An LLM endpoint: OpenAI, vLLM, llama.cpp and whatever else speaks OpenAI's chat completions, Anthropic, Ollama. \
             Repeat the section for more; in the environment they are HUBBUB__UPSTREAMS__0__NAME and so on.",
        );
        let name = from.parsed(
            key("name", "What routes call it. Required, unique.").example("\"openai\""),
            "1 to 64 of a-z, 0-9, - and _",
            None,
            check::name,
            Clone::clone,
        );
        let api = Api::read(from);
        let (base_url, url_query) = read_base_url(from);
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
        let api_key = from.parsed(
            key(
                "api_key",
                "Sent as a bearer token. Secret: better set by the environment.",
            )
            .example("\"sk-...\""),
            "printable ASCII",
            None,
            check::api_key,
            |_| "***".to_owned(),
        );
        Self {
            name: name.unwrap_or_default(),
            group: read_group(from),
            base_url: base_url.unwrap_or_else(|| BaseUrl::Http(String::new())),
            model: model.unwrap_or_default(),
            slots: slots(from, section),
            context_tokens: from.count(
                key(
                    "context_tokens",
                    "Most tokens in prompt and answer together.",
                ),
                8_192,
                256..=100_000_000,
            ),
            timeouts: UpstreamTimeouts::read(from),
            dialect: UpstreamDialect::read(from, section, api, api_key.is_some(), url_query),
            api_key,
        }
    }
}

/// The base URL, and the query that goes with each request.
fn read_base_url(from: &mut Reader) -> (Option<BaseUrl>, Option<Secret>) {
    from
    .parsed(
        key(
            "base_url",
            "Up to and without /chat/completions (anthropic: /messages, ollama: /api/chat), with a query if it needs \
             one; unix:/path for a socket. Required.",
        )
        .example("\"https://api.openai.com/v1\""),
        "http://…, https://… (without user and fragment) or unix:/absolute/path",
        None,
        base_url,
        |(url, query)| match query {
            Some(query) => format!("{url}?{}", masked_query(query.expose())),
            None => url.to_string(),
        },
    )
    .map_or((None, None), |(url, query)| (Some(url), query))
}

fn read_group(from: &mut Reader) -> Option<String> {
    from.parsed(
        key(
            "group",
            "Upstreams of one group are equals: a conversation keeps to one of them, so that its prefix cache is used. \
             Default: no equals.",
        )
        .example("\"gpu\""),
        "1 to 64 of a-z, 0-9, - and _",
        None,
        check::name,
        Clone::clone,
    )
}

impl UpstreamTimeouts {
    fn read(from: &mut Reader) -> Self {
        Self {
            first_token: from.millis(
                key(
                    "first_token_timeout_ms",
                    "Longest silence before the first text, in milliseconds: from the request to the first sign of \
                     life, and between two of them. Reasoning, a role and comments are signs of life.",
                ),
                30_000,
                10..=3_600_000,
            ),
            token: from.millis(
                key(
                    "token_timeout_ms",
                    "Longest silence after the first text, in milliseconds.",
                ),
                15_000,
                10..=3_600_000,
            ),
            answer: from.millis(
                key(
                    "answer_timeout_ms",
                    "Longest answer as a whole, in milliseconds, from the request to its end. A model may think for \
                     minutes before its first word.",
                ),
                600_000,
                10..=86_400_000,
            ),
            connect: from.millis(
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

fn slots(from: &mut Reader, section: &str) -> RangeInclusive<u32> {
    let most = from.count(key("slots", "Most requests at once."), 32, 1..=100_000);
    let least = from.count(
        key(
            "min_slots",
            "With less than slots, the server finds out between the two how many requests the upstream serves without \
             slowing down. Default: slots, which is fixed.",
        )
        .example("8"),
        most,
        1..=100_000,
    );
    if least > most {
        from.refuse(section, "min_slots", "is more than slots", "at most slots");
    }
    least..=most
}

/// The URL without its query, and the query. A user in the URL would be logged with it.
fn base_url(text: &str) -> Option<(BaseUrl, Option<Secret>)> {
    if let Some(path) = text.strip_prefix("unix:") {
        let url = BaseUrl::Unix(PathBuf::from(path));
        return path.starts_with('/').then_some((url, None));
    }
    let mut url = Url::parse(text).ok()?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let query = url
        .query()
        .filter(|query| !query.is_empty())
        .map(Secret::new);
    url.set_query(None);
    let base = url.as_str().trim_end_matches('/');
    // As documentation for people often gives it.
    let known = ["/chat/completions", "/messages", "/api/chat"];
    let base = known
        .iter()
        .find_map(|path| base.strip_suffix(path))
        .unwrap_or(base);
    is_plain.then(|| (BaseUrl::Http(base.to_owned()), query))
}
