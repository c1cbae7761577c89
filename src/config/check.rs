//! What a text must look like to stand for something.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use reqwest::Url;

use super::secret::Secret;

pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

pub(super) fn non_empty(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// A name that can stand in a metric's label and in a comma-separated list.
pub(super) fn name(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    ((1..=64).contains(&text.len()) && text.chars().all(fits)).then(|| text.to_owned())
}

/// Scheme, host and port, and nothing else; as browsers write it, so that it can be compared.
pub(super) fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let bare = matches!(url.scheme(), "http" | "https")
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && no_user(&url);
    bare.then(|| url.origin().ascii_serialization())
}

/// A network, or one address; as it is compared.
pub(super) fn network(text: &str) -> Option<String> {
    let network = text.parse::<IpNet>().ok();
    let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(network.trunc().to_string())
}

pub(super) fn postgres_url(text: &str) -> Option<Secret> {
    let known = text.starts_with("postgres://") || text.starts_with("postgresql://");
    (known && text.parse::<tokio_postgres::Config>().is_ok()).then(|| Secret::new(text))
}

/// What an HTTP header can carry.
pub(super) fn api_key(text: &str) -> Option<Secret> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Secret::new(text))
}

pub(super) fn log_filter(text: &str) -> Option<String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .ok()
        .map(|_| text.to_owned())
}

fn no_user(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}
