//! The sections, each a validated struct and the one function that defines and reads it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::check;
use super::reader::{Reader, key};

/// `[server]`: where it listens and where it keeps its things.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address of the HTTP and WebSocket server.
    pub listen: SocketAddr,
    /// Folder of the private database and of `demo.json`.
    pub data_dir: PathBuf,
    /// Worker threads.
    pub workers: usize,
    /// The URL browsers reach the server at, without a trailing slash.
    pub public_url: Option<String>,
    /// Origins browsers may connect from, besides the server's own.
    pub trusted_origins: Vec<String>,
    /// Proxies that say whom they speak for, besides this machine's own.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they say it.
    pub forwarded_header: ForwardedHeader,
    /// Time from SIGTERM to exit.
    pub shutdown: Duration,
}

/// The header in which a proxy names its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: client, proxy`.
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy`, RFC 7239.
    Forwarded,
}

impl ServerConfig {
    /// Scheme, host and port that browsers reach the server at, if configured.
    pub fn public_origin(&self) -> Option<&str> {
        let url = self.public_url.as_deref()?;
        url.strip_suffix(self.base_path())
    }

    /// The path below which browsers see the server: empty, or with a slash at its beginning alone.
    pub fn base_path(&self) -> &str {
        let host = self
            .public_url
            .as_deref()
            .and_then(|url| url.split_once("://"));
        let path = host.and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..)));
        path.unwrap_or_default()
    }

    pub(super) fn read(from: &mut Reader) -> Self {
        from.section("server", "Where the server listens and keeps its things.");
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(256));
        let cores = u32::try_from(cores).unwrap_or(1);
        let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        Self {
            listen: from
                .parsed(
                    key("listen", "Address and port of HTTP and WebSocket; port 0 takes any free one."),
                    "IP:PORT, such as 0.0.0.0:8080",
                    Some(listen),
                    |text| text.parse().ok(),
                    ToString::to_string,
                )
                .unwrap_or(listen),
            data_dir: from
                .parsed(
                    key("data_dir", "Folder of the private database and of demo.json."),
                    "a path",
                    Some(PathBuf::from("./data")),
                    check::path,
                    |path| path.display().to_string(),
                )
                .unwrap_or_default(),
            workers: from.size(
                key("workers", "Worker threads. Default: one per core.").example("2"),
                cores,
                1..=256,
            ),
            public_url: from.parsed(
                key(
                    "public_url",
                    "The URL browsers reach the server at, with the path below which a proxy offers it, if one does. Without it, only pages opened on this machine itself (localhost) are the server's own.",
                )
                .example("\"https://chat.example.com\""),
                "an http:// or https:// URL, such as https://example.com or https://example.com/chat",
                None,
                check::public_url,
                Clone::clone,
            ),
            trusted_origins: from.list(
                key(
                    "trusted_origins",
                    "Origins browsers may connect from, besides the server's own: exact scheme, host and port.",
                ),
                "origins such as https://shop.example.com",
                check::origin,
            ),
            trusted_proxies: trusted_proxies(from),
            forwarded_header: ForwardedHeader::read(from),
            shutdown: from.seconds(
                key("shutdown_s", "Time from SIGTERM to exit, in seconds: running replies get most of it."),
                25,
                1..=600,
            ),
        }
    }
}

fn trusted_proxies(from: &mut Reader) -> Vec<IpNet> {
    from
        .list(
            key(
                "trusted_proxies",
                "Addresses or networks of proxies in front of the server, besides loopback addresses: limits by address count the client they name.",
            ),
            "addresses or networks such as 10.0.0.0/8",
            check::network,
        )
        .iter()
        .filter_map(|network| network.parse().ok())
        .collect()
}

impl ForwardedHeader {
    fn read(from: &mut Reader) -> Self {
        from.parsed(
            key(
                "forwarded_header",
                "The header in which those proxies name their client; the other one is not read.",
            ),
            "x-forwarded-for, forwarded",
            Some(Self::XForwardedFor),
            |text| match text {
                "x-forwarded-for" => Some(Self::XForwardedFor),
                "forwarded" => Some(Self::Forwarded),
                _ => None,
            },
            |header| match header {
                Self::XForwardedFor => "x-forwarded-for".to_owned(),
                Self::Forwarded => "forwarded".to_owned(),
            },
        )
        .unwrap_or(Self::XForwardedFor)
    }
}

/// `[session]`: rhythms of a live session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// How long a session without devices stays in memory.
    pub idle_timeout: Duration,
    /// How often text of a running reply goes out.
    pub flush: Duration,
    /// A device whose cursor stands still this long is cut.
    pub stalled_device: Duration,
    /// How often a connection is pinged.
    pub heartbeat: Duration,
}

impl SessionConfig {
    pub(super) fn read(from: &mut Reader) -> Self {
        from.section("session", "Rhythms of a live session.");
        Self {
            idle_timeout: from.millis(
                key("idle_timeout_ms", "How long a session without devices stays in memory, in milliseconds."),
                30_000,
                100..=86_400_000,
            ),
            flush: from.millis(
                key("flush_ms", "How often text of a running reply goes out, in milliseconds."),
                40,
                5..=1_000,
            ),
            stalled_device: from.millis(
                key(
                    "stalled_device_ms",
                    "A device that takes nothing for so long is cut (4008) and may resume, in milliseconds.",
                ),
                10_000,
                1_000..=300_000,
            ),
            heartbeat: from.millis(
                key("heartbeat_ms", "How often a connection is pinged, in milliseconds."),
                25_000,
                1_000..=300_000,
            ),
        }
    }
}

/// `[log]`: what is written to standard error.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// A filter in the words of `tracing_subscriber::EnvFilter`.
    pub level: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people at a terminal.
    Pretty,
}

impl LogConfig {
    pub(super) fn read(from: &mut Reader, terminal: bool) -> Self {
        from.section("log", "What is written to standard error.");
        let format = if terminal {
            LogFormat::Pretty
        } else {
            LogFormat::Json
        };
        Self {
            format: from
                .parsed(
                    key("format", "json or pretty. Default: pretty on a terminal, else json.")
                        .example("\"json\""),
                    "json, pretty",
                    Some(format),
                    |text| match text {
                        "json" => Some(LogFormat::Json),
                        "pretty" => Some(LogFormat::Pretty),
                        _ => None,
                    },
                    |format| format!("{format:?}").to_ascii_lowercase(),
                )
                .unwrap_or(format),
            level: from
                .parsed(
                    key("level", "How much is logged, also by module."),
                    "off, error, warn, info, debug, trace; also by module, such as info,hubbub::llm=debug",
                    Some("info".to_owned()),
                    check::log_filter,
                    Clone::clone,
                )
                .unwrap_or_default(),
        }
    }
}
