//! The HTTP client of an upstream.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder, RequestBuilder, Url};

use crate::config::{BaseUrl, UpstreamConfig};

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
    /// The key cannot be sent.
    #[error("the key of upstream {0} cannot be sent in a header")]
    Key(String),
    /// The HTTP client cannot be built, such as when the system has no certificates to trust.
    #[error("the HTTP client of upstream {0} cannot be built")]
    Client(String, #[source] reqwest::Error),
}

/// Where and how to reach an upstream.
#[derive(Debug)]
pub(super) struct Endpoint {
    id: u64,
    url: Url,
    headers: HeaderMap,
    base_url: BaseUrl,
    connect_timeout: Duration,
    /// `max_tokens` is refused by OpenAI's newer models, its successor unknown to other servers.
    pub(super) is_openai: bool,
}

impl Endpoint {
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, UpstreamSetupError> {
        let base = match &config.base_url {
            BaseUrl::Http(url) => url.as_str(),
            BaseUrl::Unix(_) => "http://localhost/v1",
        };
        let url = Url::parse(&format!("{base}/chat/completions"))
            .map_err(|_| UpstreamSetupError::Url(config.name.clone()))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(key) = &config.api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
                .map_err(|_| UpstreamSetupError::Key(config.name.clone()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let endpoint = Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            is_openai: url.host_str() == Some("api.openai.com"),
            url,
            headers,
            base_url: config.base_url.clone(),
            connect_timeout: config.connect_timeout,
        };
        // Built now so that what cannot work is refused at start.
        endpoint
            .client()
            .map_err(|error| UpstreamSetupError::Client(config.name.clone(), error))?;
        Ok(endpoint)
    }

    /// A request with everything but its body.
    pub(super) fn request(&self, request_id: &str) -> Result<RequestBuilder, reqwest::Error> {
        let mut headers = self.headers.clone();
        if let Ok(value) = HeaderValue::from_str(request_id) {
            headers.insert("x-request-id", value);
        }
        Ok(self.client()?.post(self.url.clone()).headers(headers))
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
