//! The HTTP client of an upstream.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use reqwest::{Client, ClientBuilder, RequestBuilder, Url};

use hubbub_actors::ports::{ChatRequest, UpstreamError};

use crate::config::{
    Api, ApiKeyHeader, BaseUrl, OutputBound, Secret, UpstreamConfig, UpstreamDialect,
};

use super::anthropic;
use super::dialect::{body, path};
use super::form::Form;
use super::response::Refused;

/// How long an unused connection is kept. Shorter than the usual keep-alive of load balancers (60 s),
/// so that a request rarely meets a connection the other side is just closing.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// Most idle connections a thread keeps: bounds descriptors after a burst.
const POOL_IDLE_CONNECTIONS: usize = 256;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// One client per upstream and thread, by [`Endpoint::id`].
    ///
    /// A pooled connection is driven by a task on the runtime that opened it. With one shared client,
    /// a stream read on one worker's runtime would be pumped by another's: a wake-up across threads
    /// for every token, and a worker that stops would break its neighbours' streams. The price is a
    /// pool for each worker; there are as many workers as cores.
    static CLIENTS: RefCell<HashMap<u64, Client>> = RefCell::new(HashMap::new());
}

/// An upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamSetupError {
    /// The base URL cannot be used.
    #[error("the base URL of upstream {0} cannot be used")]
    Url(String),
    /// The key or a further header cannot be sent.
    #[error("the key or a header of upstream {0} cannot be sent")]
    Key(String),
    /// The HTTP client cannot be built, such as when the system has no certificates to trust.
    #[error("the HTTP client of upstream {0} cannot be built")]
    Client(String, #[source] reqwest::Error),
}

/// A request cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("the request cannot be written")]
    Body(#[source] serde_json::Error),
    #[error("there is no HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Where and how to reach an upstream.
#[derive(Debug)]
pub(super) struct Endpoint {
    id: u64,
    url: Url,
    headers: HeaderMap,
    base_url: BaseUrl,
    connect_timeout: Duration,
    model: String,
    dialect: UpstreamDialect,
    api_key: Option<Secret>,
    /// Which field bounds the answer where that is automatic: OpenAI's newer models refuse
    /// `max_tokens`, and most other servers do not know its successor.
    takes_completion_tokens: AtomicBool,
}

impl Endpoint {
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, UpstreamSetupError> {
        let base = match &config.base_url {
            BaseUrl::Http(url) => url.as_str(),
            BaseUrl::Unix(_) if config.dialect.api == Api::Ollama => "http://localhost",
            BaseUrl::Unix(_) => "http://localhost/v1",
        };
        let path = path(config.dialect.api);
        let mut url = Url::parse(&format!("{base}{path}"))
            .map_err(|_| UpstreamSetupError::Url(config.name.clone()))?;
        url.set_query(config.dialect.query.as_ref().map(Secret::expose));
        let endpoint = Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            headers: headers(config)?,
            takes_completion_tokens: AtomicBool::new(is_openai(&url)),
            url,
            base_url: config.base_url.clone(),
            connect_timeout: config.timeouts.connect,
            model: config.model.clone(),
            dialect: config.dialect.clone(),
            api_key: config.api_key.clone(),
        };
        // Built now so that what cannot work is refused at start.
        endpoint
            .client()
            .map_err(|error| UpstreamSetupError::Client(config.name.clone(), error))?;
        Ok(endpoint)
    }

    /// A whole request.
    pub(super) fn request(&self, request: &ChatRequest) -> Result<RequestBuilder, RequestError> {
        let form = Form {
            api: self.dialect.api,
            default_model: &self.model,
            bound_field: self.bound_field(),
            stream_options: self.dialect.stream_options,
            extra: &self.dialect.extra_body,
        };
        let body = body(request, &form).map_err(RequestError::Body)?;
        let mut headers = self.headers.clone();
        if let Ok(value) = HeaderValue::from_str(&request.request_id) {
            headers.insert("x-request-id", value);
        }
        let client = self.client().map_err(RequestError::Client)?;
        Ok(client.post(self.url.clone()).headers(headers).body(body))
    }

    /// Learns from a refusal which field bounds the answer. `true` if the request is worth another try.
    pub(super) fn learn(&self, refused: &Refused) -> bool {
        let Some(field) = self.bound_field() else {
            return false;
        };
        let is_about_it = self.dialect.output_bound == OutputBound::Auto
            && refused.error == UpstreamError::Misconfigured
            && refused.said.contains(field);
        if is_about_it {
            self.takes_completion_tokens
                .store(field == "max_tokens", Ordering::Relaxed);
        }
        is_about_it
    }

    /// What must not be logged.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let query = self.dialect.query.as_ref().map_or("", Secret::expose);
        let values = query.split('&').filter_map(|pair| pair.split_once('='));
        let values = values.filter(|(name, _)| !name.contains("version"));
        let headers = self.dialect.headers.values().map(Secret::expose);
        headers
            .chain(values.map(|(_, value)| value))
            // Hiding "1" would hide much else.
            .filter(|value| value.len() >= 8)
            .chain(self.api_key.iter().map(Secret::expose))
    }

    fn bound_field(&self) -> Option<&'static str> {
        match self.dialect.output_bound {
            OutputBound::Auto if self.takes_completion_tokens.load(Ordering::Relaxed) => {
                Some("max_completion_tokens")
            }
            OutputBound::Auto | OutputBound::MaxTokens => Some("max_tokens"),
            OutputBound::MaxCompletionTokens => Some("max_completion_tokens"),
            OutputBound::None => None,
        }
    }

    /// This thread's client.
    fn client(&self) -> Result<Client, reqwest::Error> {
        CLIENTS.with_borrow_mut(|clients| {
            if let Some(client) = clients.get(&self.id) {
                return Ok(client.clone());
            }
            let client = self.builder().build()?;
            clients.insert(self.id, client.clone());
            Ok(client)
        })
    }

    fn builder(&self) -> ClientBuilder {
        let builder = Client::builder()
            .user_agent(concat!("hubbub/", env!("CARGO_PKG_VERSION")))
            // An endpoint is configured; one that points elsewhere is misconfigured, or hostile.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // The environment is read by `config` alone.
            .no_proxy()
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_IDLE_CONNECTIONS);
        match &self.base_url {
            BaseUrl::Unix(path) => builder.unix_socket(path.as_path()).tls_certs_only([]),
            // Loading the system's certificates takes time and fails where there are none.
            BaseUrl::Http(url) if url.starts_with("http://") => builder.tls_certs_only([]),
            BaseUrl::Http(_) => builder,
        }
    }
}

/// The fields of every request.
fn headers(config: &UpstreamConfig) -> Result<HeaderMap, UpstreamSetupError> {
    let unfit = || UpstreamSetupError::Key(config.name.clone());
    let mut headers = HeaderMap::new();
    if config.dialect.api == Api::Anthropic {
        let (name, version) = anthropic::VERSION;
        headers.insert(name, HeaderValue::from_static(version));
    }
    for (name, secret) in &config.dialect.headers {
        let name: HeaderName = name.parse().map_err(|_| unfit())?;
        let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| unfit())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(key) = &config.api_key {
        let (name, value) = match &config.dialect.api_key_header {
            ApiKeyHeader::Bearer => (AUTHORIZATION, format!("Bearer {}", key.expose())),
            ApiKeyHeader::Plain(name) => {
                (name.parse().map_err(|_| unfit())?, key.expose().to_owned())
            }
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| unfit())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Whether it is OpenAI itself, or its models at Azure.
fn is_openai(url: &Url) -> bool {
    url.host_str()
        .is_some_and(|host| host == "api.openai.com" || host.ends_with(".openai.azure.com"))
}
