//! How the requests to one upstream differ from the usual: switches of `[[upstreams]]`.
//!
//! Everybody says "OpenAI-compatible" and means a different subset. What contradicts itself, or a field
//! that is ours to set, is refused at start.

use std::collections::BTreeMap;

use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::reader::{Reader, key};
use super::secret::Secret;

/// How requests to an upstream are written.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamDialect {
    /// What it speaks.
    pub api: Api,
    /// How the most tokens of an answer are asked for.
    pub output_bound: OutputBound,
    /// Whether counts are asked for with `stream_options`.
    pub stream_options: bool,
    /// Further fields of the body. Never one of ours.
    pub extra_body: Map<String, Value>,
    /// Further fields of the head, by their names in lower case. Never one of ours.
    pub headers: BTreeMap<String, Secret>,
    /// Appended to the URL after `?`. May contain a key.
    pub query: Option<Secret>,
    /// Where the key is sent.
    pub api_key_header: ApiKeyHeader,
}

impl Default for UpstreamDialect {
    fn default() -> Self {
        Self {
            api: Api::OpenAi,
            output_bound: OutputBound::Auto,
            stream_options: true,
            extra_body: Map::new(),
            headers: BTreeMap::new(),
            query: None,
            api_key_header: ApiKeyHeader::Bearer,
        }
    }
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's chat completions.
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
    /// Ollama's own chat.
    Ollama,
}

impl Api {
    const NAMES: [(&str, Self); 3] = [
        ("openai", Self::OpenAi),
        ("anthropic", Self::Anthropic),
        ("ollama", Self::Ollama),
    ];

    pub(super) fn read(from: &mut Reader) -> Self {
        from.parsed(
            key(
                "api",
                "What it speaks: OpenAI's chat completions, Anthropic's Messages, or Ollama's own chat.",
            ),
            "openai, anthropic, ollama",
            Some(Self::OpenAi),
            |text| Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, api)| *api),
            |api| api.name().to_owned(),
        )
        .unwrap_or(Self::OpenAi)
    }

    fn name(self) -> &'static str {
        let name = Self::NAMES.iter().find(|(_, api)| *api == self);
        name.map_or("", |(name, _)| name)
    }

    /// Where a key is sent unless the configuration says otherwise.
    fn key_header(self) -> ApiKeyHeader {
        match self {
            Self::Anthropic => ApiKeyHeader::Plain("x-api-key".to_owned()),
            Self::OpenAi | Self::Ollama => ApiKeyHeader::Bearer,
        }
    }
}

/// The field that bounds an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputBound {
    /// `max_completion_tokens` for OpenAI and Azure, `max_tokens` for others; the other one once an
    /// upstream refused the first.
    Auto,
    /// `max_tokens`.
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
    /// None is sent: the upstream's own bound holds.
    None,
}

/// Where a key is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiKeyHeader {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// In this header, alone.
    Plain(String),
}

/// Most further fields of the head.
const MOST_HEADERS: usize = 32;

/// Most bytes of further fields in the body.
const EXTRA_BODY_BYTES: usize = 16 * 1024;

impl UpstreamDialect {
    /// Reads what the current section, `section`, says. `url_query` is the query of its base URL.
    pub(super) fn read(
        from: &mut Reader,
        section: &str,
        api: Api,
        has_key: bool,
        url_query: Option<Secret>,
    ) -> Self {
        let dialect = Self {
            api,
            api_key_header: read_api_key_header(from, api.key_header()),
            output_bound: read_output_bound(from),
            stream_options: from.boolean(
                key(
                    "stream_options",
                    "Whether tokens are asked to be counted, with stream_options; false for servers that refuse it.",
                ),
                true,
            ),
            extra_body: read_extra_body(from),
            headers: read_headers(from),
            query: read_query(from, section, url_query),
        };
        dialect.refuse_contradictions(from, section, has_key);
        dialect
    }

    fn refuse_contradictions(&self, from: &mut Reader, section: &str, has_key: bool) {
        for field in self.extra_body.keys() {
            let allowed = match field.as_str() {
                "model" | "messages" | "stream" | "n" => {
                    "fields that the server does not set itself"
                }
                "system" | "max_tokens" if self.api == Api::Anthropic => {
                    "fields that the server does not set itself"
                }
                "max_tokens" | "max_completion_tokens"
                    if self.output_bound != OutputBound::None =>
                {
                    "this field only with output_bound = \"none\""
                }
                "stream_options" if self.stream_options => {
                    "this field only with stream_options = false"
                }
                _ => continue,
            };
            from.refuse(section, "extra_body", &format!("names {field}"), allowed);
        }
        let key_header = match &self.api_key_header {
            ApiKeyHeader::Bearer => "authorization",
            ApiKeyHeader::Plain(name) => name,
        };
        for name in self.headers.keys() {
            let allowed = match name.as_str() {
                "content-type" | "content-length" | "content-encoding" | "accept"
                | "accept-encoding" | "connection" | "transfer-encoding" | "host"
                | "x-request-id" => "headers that the server does not set itself",
                name if has_key && name == key_header => "api_key or this header, not both",
                _ => continue,
            };
            from.refuse(section, "headers", &format!("names {name}"), allowed);
        }
    }
}

fn read_output_bound(from: &mut Reader) -> OutputBound {
    let names = [
        ("auto", OutputBound::Auto),
        ("max_tokens", OutputBound::MaxTokens),
        ("max_completion_tokens", OutputBound::MaxCompletionTokens),
        ("none", OutputBound::None),
    ];
    from.parsed(
        key(
            "output_bound",
            "The field that bounds an answer. auto: max_completion_tokens for OpenAI and Azure, max_tokens for \
             others, and the other one once the upstream refused the first.",
        ),
        "auto, max_tokens, max_completion_tokens, none",
        Some(OutputBound::Auto),
        |text| names.iter().find(|(name, _)| *name == text).map(|(_, bound)| *bound),
        |bound| {
            let name = names.iter().find(|(_, known)| known == bound);
            name.map_or(String::new(), |(name, _)| (*name).to_owned())
        },
    )
    .unwrap_or(OutputBound::Auto)
}

fn read_api_key_header(from: &mut Reader, default: ApiKeyHeader) -> ApiKeyHeader {
    from.parsed(
        key(
            "api_key_header",
            "The header the key is sent in. authorization: as a bearer token; any other, such as Azure's api-key: \
             the key alone. Default for anthropic: x-api-key.",
        ),
        "authorization, api-key, or the name of another header",
        Some(default.clone()),
        |text| {
            let name: HeaderName = text.parse().ok()?;
            Some(match name.as_str() {
                "authorization" => ApiKeyHeader::Bearer,
                name => ApiKeyHeader::Plain(name.to_owned()),
            })
        },
        |header| match header {
            ApiKeyHeader::Bearer => "authorization".to_owned(),
            ApiKeyHeader::Plain(name) => name.clone(),
        },
    )
    .unwrap_or(default)
}

fn read_extra_body(from: &mut Reader) -> Map<String, Value> {
    from.object(
        key(
            "extra_body",
            "Further fields of each request: a table, or a JSON object in a string.",
        )
        .example("'{\"temperature\": 0.7}'"),
        "a table, or a string with a JSON object of at most 16 KiB",
        |object| {
            let size = serde_json::to_vec(&object).ok()?.len();
            (size <= EXTRA_BODY_BYTES).then_some(object)
        },
        |object| Value::from(object.clone()).to_string(),
    )
    .unwrap_or_default()
}

fn read_headers(from: &mut Reader) -> BTreeMap<String, Secret> {
    from.object(
        key(
            "headers",
            "Further headers of each request: a table, or a JSON object in a string. Secret: better set by the \
             environment.",
        )
        .example("'{\"X-Title\": \"Hubbub\"}'"),
        "a table, or a string with a JSON object: at most 32 names of headers with printable texts",
        |object| {
            let count = object.len();
            let headers: BTreeMap<String, Secret> = object
                .into_iter()
                .map(|(name, value)| {
                    let name: HeaderName = name.parse().ok()?;
                    let value = value.as_str()?;
                    HeaderValue::from_str(value).ok()?;
                    Some((name.as_str().to_owned(), Secret::new(value)))
                })
                .collect::<Option<_>>()?;
            // Fewer are left when two names differ in case only.
            (count <= MOST_HEADERS && headers.len() == count).then_some(headers)
        },
        |headers| {
            let hidden = |name: &String| (name.clone(), Value::from("***"));
            Value::from(headers.keys().map(hidden).collect::<Map<_, _>>()).to_string()
        },
    )
    .unwrap_or_default()
}

fn read_query(from: &mut Reader, section: &str, url_query: Option<Secret>) -> Option<Secret> {
    let query = from.parsed(
        key(
            "query",
            "Appended to the URL after ?, such as Azure's api-version. Its values are hidden, as one may be a key.",
        )
        .example("\"api-version=2024-10-21\""),
        "NAME=VALUE, more of them after &, percent-encoded",
        None,
        |text| {
            let text = text.strip_prefix('?').unwrap_or(text);
            let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b'"';
            (!text.is_empty() && text.bytes().all(fits)).then(|| Secret::new(text))
        },
        |query| masked_query(query.expose()),
    );
    if query.is_some() && url_query.is_some() {
        from.refuse(
            section,
            "query",
            "is given twice",
            "a query in base_url or here",
        );
    }
    query.or(url_query)
}

/// A query with its values hidden, but for versions, which are what people look for.
pub(super) fn masked_query(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if !name.contains("version") => format!("{name}=***"),
        Some(_) => pair.to_owned(),
        None => "***".to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}
