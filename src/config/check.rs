//! What a text must look like to stand for something.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use reqwest::Url;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::secret::Secret;

/// Whether something is there is seen when it is used: it may be made later, or on another machine.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
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
    let url = web_url(text)?;
    (url.path() == "/").then(|| url.origin().ascii_serialization())
}

/// An origin, and perhaps the path below which a proxy offers the server; without a slash at the end.
pub(super) fn public_url(text: &str) -> Option<String> {
    let url = web_url(text)?;
    let path = url.path().trim_end_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    let fits = path.chars().all(is_plain) && !path.contains("//");
    fits.then(|| format!("{}{path}", url.origin().ascii_serialization()))
}

/// What stands before a page's query, of a server that browsers can reach. A wildcard would match nothing.
fn web_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|host| !host.contains('*'))
        && url.query().is_none()
        && url.fragment().is_none()
        && no_user(&url);
    is_plain.then_some(url)
}

/// A network, or one address; as it is compared.
pub(super) fn network(text: &str) -> Option<String> {
    let network = text.parse::<IpNet>().ok();
    let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(network.trunc().to_string())
}

pub(super) fn postgres_url(text: &str) -> Option<Secret> {
    let known = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let names_a_host = |config: tokio_postgres::Config| {
        !config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty()
    };
    (known && text.parse().is_ok_and(names_a_host)).then(|| Secret::new(text))
}

/// What an HTTP header can carry.
pub(super) fn api_key(text: &str) -> Option<Secret> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Secret::new(text))
}

/// Levels, of everything or by module. A bare word must be a level: `EnvFilter` takes any other for a
/// module's name, so that a misspelt level would silence everything there is.
pub(super) fn log_filter(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let filter = parts.join(",");
    let is_known =
        parts.iter().all(|part| is_directive(part)) && EnvFilter::try_new(&filter).is_ok();
    is_known.then_some(filter)
}

fn is_directive(text: &str) -> bool {
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    match text.rsplit_once('=') {
        None => is_level(text),
        Some((module, level)) => {
            !module.is_empty() && !module.contains(char::is_whitespace) && is_level(level)
        }
    }
}

fn no_user(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}
