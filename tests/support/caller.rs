//! HTTP callers, as tests need them: every wait has a deadline, every refusal is checked.

#![allow(dead_code, reason = "each test program uses a part of it")]

use hubbub_protocol::http::{Bot, MessagePage, Problem};
use hubbub_protocol::{BotId, SessionId};
use serde_json::{Value, json};

use super::client::DEADLINE;
use super::server::TestServer;

/// An HTTP caller.
#[derive(Clone)]
pub struct Caller {
    client: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// A response, read.
#[derive(Debug)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Header fields.
    pub headers: reqwest::header::HeaderMap,
    /// Body.
    pub text: String,
}

impl Response {
    /// The body.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A refusal, whole and consistent.
    pub fn problem(&self) -> Problem {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{self:?}"
        );
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status);
        assert_eq!(problem.code.http_status(), self.status);
        assert_eq!(problem.kind, format!("urn:hubbub:problem:{}", problem.code));
        assert_eq!(self.headers["x-request-id"], problem.request_id.as_str());
        problem
    }
}

impl Caller {
    /// With the demo's API key.
    pub fn new(server: &TestServer) -> Self {
        Self::with(server, Some(&server.demo.api_key))
    }

    /// With another token, or none.
    pub fn with(server: &TestServer, token: Option<&str>) -> Self {
        let client = reqwest::Client::builder()
            .timeout(DEADLINE)
            .build()
            .unwrap();
        Self {
            client,
            base: server.url(""),
            token: token.map(str::to_owned),
        }
    }

    /// A request under way.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.base);
        let request = self.client.request(method.parse().unwrap(), url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; errors are those of the network.
    pub async fn try_send(request: reqwest::RequestBuilder) -> Result<Response, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Response {
            status,
            headers,
            text: response.text().await?,
        })
    }

    /// Gets.
    pub async fn get(&self, path: &str) -> Response {
        Self::try_send(self.request("GET", path)).await.unwrap()
    }

    /// Sends a JSON body.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Response {
        Self::try_send(self.request(method, path).json(body))
            .await
            .unwrap()
    }

    /// Posts a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, body).await
    }

    /// A bot that asks these upstreams; none: it does not reply.
    pub async fn bot(&self, route: &[&str]) -> BotId {
        let body = json!({"name": "Test", "route": route, "replies": !route.is_empty()});
        let created = self.post("/v1/bots", &body).await;
        assert_eq!(created.status, 201, "{created:?}");
        created.json::<Bot>().id
    }

    /// A visitor of the demo's widget: ticket and token.
    pub async fn visitor(&self, bot: BotId) -> (String, String) {
        let minted = self
            .post(&format!("/v1/widget/{bot}/tickets"), &json!({}))
            .await;
        assert_eq!(minted.status, 201, "{minted:?}");
        let body: Value = minted.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&body["ticket"]), text(&body["visitor"]["token"]))
    }

    /// All messages of a session, with every end that was no message; checks that seqs have no gap.
    pub async fn transcript(&self, session: SessionId) -> MessagePage {
        let mut all = MessagePage {
            messages: Vec::new(),
            ended: Vec::new(),
            more: true,
        };
        while all.more {
            let after = all.messages.last().map_or(0, |message| message.seq.0);
            let path = format!("/v1/sessions/{session}/messages?after={after}&limit=200");
            let response = self.get(&path).await;
            assert_eq!(response.status, 200, "{response:?}");
            let page: MessagePage = response.json();
            all.messages.extend(page.messages);
            all.ended.extend(page.ended);
            all.more = page.more;
        }
        for (held, expected) in all.messages.iter().zip(1..) {
            assert_eq!(held.seq.0, expected, "a gap in {session}");
        }
        all
    }
}
