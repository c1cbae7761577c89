//! What is said once the server listens: to the log what runs here and how, to standard output where a
//! person finds it.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::demo;
use crate::config::{Config, ServerConfig};

/// Longest wait for a line to be read.
const MOMENT: Duration = Duration::from_millis(200);

/// Says that the server listens, and with which settings. Nobody has to read it: a standard output that is
/// full, closed or stuck keeps nothing from being served.
pub(super) fn listening(config: &Config, address: SocketAddr) {
    let upstreams = config.upstreams.iter().map(|upstream| &*upstream.name);
    let upstreams: Vec<&str> = upstreams.collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %address,
        public_url = config.server.public_url.as_deref(),
        trusted_origins = config.server.trusted_origins.join(","),
        data_dir = %config.server.data_dir.display(),
        database = if config.database.url.is_some() { "configured" } else { "private" },
        migrates = config.database.url.is_none() || config.database.migration_url.is_some(),
        upstreams = upstreams.join(","),
        default_route = config.llm.default_route.join(","),
        embedded_model = config.model.enabled,
        workers = config.server.workers,
        connections = config.limits.connections,
        sessions = config.limits.sessions,
        shutdown_s = config.server.shutdown.as_secs(),
        log_level = config.log.level,
        "Hubbub listens"
    );
    say(listening_words(&config.server, address));
}

/// Says where the demo is.
pub(super) fn demo(server: &ServerConfig, address: SocketAddr) {
    say(demo_words(server, address));
}

/// In a thread of its own, which is waited for only a moment: writing to a pipe that nobody empties would
/// never end.
fn say(lines: String) {
    let (done, told) = std::sync::mpsc::sync_channel::<()>(1);
    let said = std::thread::Builder::new()
        .name("announce".to_owned())
        .spawn(move || {
            let mut out = std::io::stdout().lock();
            let written = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
            if let Err(error) = written {
                tracing::warn!(%error, "standard output cannot be written");
            }
            drop(done);
        });
    // Disconnected when it is done, so that what is said next comes behind it.
    let _moment = told.recv_timeout(MOMENT);
    if let Err(error) = said {
        tracing::warn!(%error, "standard output was not written");
    }
}

fn listening_words(server: &ServerConfig, address: SocketAddr) -> String {
    let reached = server.public_url.as_deref();
    let reached = reached.map_or_else(String::new, |url| format!("Browsers reach it at {url}\n"));
    format!("Hubbub listens on http://{address}\n{reached}")
}

fn demo_words(server: &ServerConfig, address: SocketAddr) -> String {
    format!(
        "Open {}/ in a browser to chat with the demo\nThe demo's bot and API key are in {}\n",
        reached_at(server, address),
        demo::file(&server.data_dir).display()
    )
}

/// Where a person reaches the server: by its public URL if there is one, else from this machine.
pub(super) fn reached_at(server: &ServerConfig, address: SocketAddr) -> String {
    server.public_url.clone().unwrap_or_else(|| {
        let near = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(near, address.port()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Inputs;

    fn server(inputs: &Inputs) -> ServerConfig {
        Config::load(inputs).unwrap().0.server
    }

    #[test]
    fn the_address_it_listens_on_is_told_apart_from_the_public_one() {
        let address = "0.0.0.0:81".parse().unwrap();
        let inputs = Inputs::none().with_flag("server.public_url", "https://chat.example.com");
        let public = server(&inputs);
        assert_eq!(
            listening_words(&public, address),
            "Hubbub listens on http://0.0.0.0:81\nBrowsers reach it at https://chat.example.com\n"
        );
        assert!(demo_words(&public, address).starts_with("Open https://chat.example.com/ in"));
        let near = demo_words(&server(&Inputs::none()), address);
        assert!(near.starts_with("Open http://127.0.0.1:81/ in"), "{near}");
        let address = "[::]:81".parse().unwrap();
        assert_eq!(
            reached_at(&server(&Inputs::none()), address),
            "http://[::1]:81"
        );
    }
}
