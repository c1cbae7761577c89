//! The server's HTTP API, as far as the harness uses it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use hubbub_protocol::http::{Bot, MessagePage};
use hubbub_protocol::{BotId, SessionId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::report::Violations;
use super::target::Target;
use super::transcript::Held;
use crate::simllm::{Behaviour, Counters};

/// Longest wait for any answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Messages asked for in a page.
const PAGE: u32 = 200;

/// A client of the API.
#[derive(Clone, Debug)]
pub struct Api {
    client: reqwest::Client,
    target: Target,
}

/// What a simulated upstream tells of itself.
#[derive(Debug, Deserialize)]
pub struct Control {
    /// How it behaves.
    pub behaviour: Behaviour,
    /// What happened.
    pub counters: Counters,
}

#[derive(Deserialize)]
struct Ticket {
    ticket: String,
}

impl Api {
    /// A client for a server.
    pub fn new(target: &Target) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(DEADLINE).build()?;
        Ok(Self {
            client,
            target: target.clone(),
        })
    }

    /// Makes a bot that does not answer; on the bare reference, names the one that never does.
    pub async fn silent_bot(&self) -> anyhow::Result<BotId> {
        if self.target.bare {
            return Ok(crate::bare::SILENT_BOT);
        }
        self.bot(false).await
    }

    /// Makes a bot.
    pub async fn bot(&self, replies: bool) -> anyhow::Result<BotId> {
        let body = json!({"name": "load", "replies": replies});
        let made: Bot = self.post("/v1/bots", &body).await?;
        Ok(made.id)
    }

    /// A ticket for an operator of the tenant.
    pub async fn operator(&self, id: &str) -> anyhow::Result<String> {
        let operator = json!({"id": id, "name": "Load", "role": "agent"});
        let body = json!({"operator": operator});
        let minted: Ticket = self.post("/v1/tickets", &body).await?;
        Ok(minted.ticket)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<T> {
        let response = self
            .client
            .post(self.target.http_url(path))
            .bearer_auth(&self.target.api_key)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await?;
        let status = response.status();
        let body = response.text().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("{path}: not understood: {body}"))
    }

    /// All messages of a session, by pages.
    pub async fn messages(&self, session: SessionId) -> anyhow::Result<Vec<Held>> {
        let mut held: Vec<Held> = Vec::new();
        loop {
            let after = held.last().map_or(0, |message| message.seq);
            let path = format!("/v1/sessions/{session}/messages?after={after}&limit={PAGE}");
            let response = self
                .client
                .get(self.target.http_url(&path))
                .bearer_auth(&self.target.api_key)
                .send()
                .await?;
            let status = response.status();
            let body = response.text().await?;
            if !status.is_success() {
                bail!("reading a session: {status}: {body}");
            }
            let page: MessagePage = serde_json::from_str(&body).context("not a page")?;
            let empty = page.messages.is_empty();
            held.extend(page.messages.into_iter().map(|message| Held {
                seq: message.seq.0,
                id: Some(message.id),
                text: message.text,
            }));
            if empty || !page.more {
                return Ok(held);
            }
        }
    }

    /// Gauges and counters of `/metrics` whose name contains one of `words`, summed over labels.
    pub async fn metrics(&self, words: &[&str]) -> anyhow::Result<Vec<(String, f64)>> {
        let response = self
            .client
            .get(self.target.http_url("/metrics"))
            .send()
            .await?;
        Ok(pick_metrics(&response.text().await?, words))
    }
}

/// Sums samples by name.
fn pick_metrics(text: &str, words: &[&str]) -> Vec<(String, f64)> {
    let mut picked: Vec<(String, f64)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or_default();
        let Ok(value) = value.parse::<f64>() else {
            continue;
        };
        if !words.iter().any(|word| name.contains(word)) {
            continue;
        }
        match picked.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += value,
            None => picked.push((name.to_owned(), value)),
        }
    }
    picked
}

/// What the simulated upstream at `base` (`http://host:port`) tells of itself.
pub async fn control(base: &str) -> anyhow::Result<Control> {
    let client = reqwest::Client::builder().timeout(DEADLINE).build()?;
    let url = format!(
        "{}/control",
        base.trim_end_matches('/').trim_end_matches("/v1")
    );
    let body = client.get(url).send().await?.text().await?;
    serde_json::from_str(&body).context("not the control of a simulated upstream")
}

/// Compares what is stored with what a device was told.
pub fn compare(session: SessionId, stored: &[Held], held: &[Held], violations: &mut Violations) {
    violations.check(stored.len() == held.len(), || {
        format!(
            "{session} stores {} messages, its device holds {}",
            stored.len(),
            held.len()
        )
    });
    for (stored, held) in stored.iter().zip(held) {
        violations.check(stored == held, || {
            format!("{session}: message {} differs", held.seq)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let text = "# TYPE a gauge\nhubbub_sessions{worker=\"1\"} 2\nhubbub_sessions{worker=\"2\"} 3\nother 1\n";
        assert_eq!(
            pick_metrics(text, &["session"]),
            [("hubbub_sessions".to_owned(), 5.0)]
        );
    }

    #[test]
    fn a_lost_or_changed_message_is_found() {
        let held = |seq, text: &str| Held {
            seq,
            id: None,
            text: text.to_owned(),
        };
        let count = |stored: &[Held], told: &[Held]| {
            let mut violations = Violations::default();
            compare(SessionId::generate(), stored, told, &mut violations);
            violations.count
        };
        assert_eq!(count(&[held(1, "a")], &[held(1, "a")]), 0);
        assert_eq!(count(&[], &[held(1, "a")]), 1);
        assert_eq!(count(&[held(1, "b")], &[held(1, "a")]), 1);
    }
}
