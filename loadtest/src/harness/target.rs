//! Which server is put under load, and with whose credentials.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hubbub_protocol::{BotId, http::Demo};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// Options every scenario has.
#[derive(Clone, Debug, clap::Args)]
pub struct TargetArguments {
    /// Base address of the server: `ws://host:port` or `http://host:port`.
    #[arg(long, global = true)]
    pub url: Option<String>,
    /// An API key (`hbk_…`) of the tenant.
    #[arg(long, global = true, default_value = "")]
    pub api_key: String,
    /// The bot to talk to.
    #[arg(long, global = true)]
    pub bot: Option<BotId>,
    /// Read address, key and bot from the `demo.json` that `hubbub serve --demo` writes.
    #[arg(long, global = true)]
    pub demo: Option<PathBuf>,
    /// The server is the bare reference: no HTTP API, nothing durable, so neither is checked.
    #[arg(long, global = true)]
    pub bare: bool,
    /// Sample CPU and memory of this process.
    #[arg(long, global = true)]
    pub server_pid: Option<u32>,
    /// Connections opened a second.
    #[arg(long, global = true, default_value_t = 500)]
    pub connect_rate: u32,
    /// Write the results as JSON.
    #[arg(long, global = true)]
    pub report: Option<PathBuf>,
}

/// A server under load.
#[derive(Clone, Debug)]
pub struct Target {
    authority: String,
    /// Empty for a server that asks for none.
    pub api_key: String,
    /// The bot to talk to.
    pub bot: BotId,
    /// Whether it is the bare reference.
    pub bare: bool,
    /// The process to sample.
    pub server_pid: Option<u32>,
    /// Connections opened a second.
    pub connect_rate: u32,
}

impl Target {
    /// Puts the options together.
    ///
    /// # Errors
    /// When address or bot are missing, or the address is not understood.
    pub fn new(arguments: &TargetArguments) -> anyhow::Result<Self> {
        let demo: Option<Demo> = match &arguments.demo {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                Some(serde_json::from_str(&text).context("not a demo.json")?)
            }
        };
        let url = arguments
            .url
            .clone()
            .or_else(|| demo.as_ref().map(|demo| demo.url.clone()));
        let url = url.context("give --url or --demo")?;
        let api_key = match (&demo, arguments.api_key.is_empty()) {
            (Some(demo), true) => demo.api_key.clone(),
            _ => arguments.api_key.clone(),
        };
        let bot = arguments.bot.or_else(|| demo.map(|demo| demo.bot));
        let bot = match (bot, arguments.bare) {
            (Some(bot), _) => bot,
            (None, true) => BotId::generate(),
            (None, false) => bail!("give --bot or --demo"),
        };
        Ok(Self {
            authority: authority(&url)?,
            api_key,
            bot,
            bare: arguments.bare,
            server_pid: arguments.server_pid,
            connect_rate: arguments.connect_rate.max(1),
        })
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.authority
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .unwrap_or_default()
    }

    /// Where sockets connect.
    pub fn socket_url(&self) -> String {
        format!("ws://{}/v1/connect", self.authority)
    }

    /// An address of the HTTP API.
    pub fn http_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }

    /// For reports.
    pub fn name(&self) -> &'static str {
        if self.bare { "bare" } else { "hubbub" }
    }

    /// Ticks at the rate at which connections may be opened.
    pub fn connect_ticks(&self) -> Interval {
        ticks(f64::from(self.connect_rate))
    }
}

/// Ticks so many times a second; ticks that were missed follow at once, so that the rate holds.
pub fn ticks(per_second: f64) -> Interval {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / per_second.max(0.001)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    ticks
}

/// `host:port` of an address.
fn authority(url: &str) -> anyhow::Result<String> {
    let (scheme, rest) = url
        .split_once("://")
        .with_context(|| format!("{url} is no address"))?;
    if !matches!(scheme, "ws" | "http") {
        bail!("{scheme} is not spoken here: put the load inside the TLS proxy, with ws or http");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() {
        bail!("{url} names no host");
    }
    Ok(if authority.contains(':') {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    })
}

/// Prints a line of progress, at most once a second.
#[derive(Debug, Default)]
pub struct Progress {
    last: Option<Instant>,
}

impl Progress {
    /// Tells how far a scenario is.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let now = Instant::now();
        if self
            .last
            .is_none_or(|last| now - last >= Duration::from_secs(1))
        {
            self.last = Some(now);
            say(&line());
        }
    }
}

/// Prints a line to standard error.
#[expect(
    clippy::print_stderr,
    reason = "the harness is a terminal program; this is its one voice"
)]
pub fn say(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_or_refused() {
        assert_eq!(authority("ws://127.0.0.1:80/x").unwrap(), "127.0.0.1:80");
        assert_eq!(authority("http://h").unwrap(), "h:80");
        assert!(authority("wss://h").is_err());
        assert!(authority("h:1").is_err());
        assert!(authority("ws:///").is_err());
    }
}
