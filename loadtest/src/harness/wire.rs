//! The client's end of a WebSocket: connecting, saying frames, and reading them cheaply.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use hubbub_protocol::{
    BotId, ClientFrame, ClientMessageId, ReplyId, Seq, SessionHandler, SessionId, client,
};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use super::target::Target;

/// Longest wait for a connection to be open.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// Longest wait for the kernel to take a frame.
const WRITE_DEADLINE: Duration = Duration::from_secs(15);
/// Read buffer of a connection, in bytes. The crate's default of 128 KiB, taken at once, would make
/// the harness swap with 10,000 connections.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// The fields of all server frames the harness looks at, in one flat shape: decoding into the
/// protocol's tagged enum costs several times as much, and the harness shares the server's cores.
#[derive(Debug, Default, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is the field of that name in the protocol"
)]
pub struct Incoming<'a> {
    #[serde(rename = "type", default)]
    pub kind: &'a str,
    #[serde(rename = "ref", default)]
    pub reference: Option<&'a str>,
    pub session: Option<SessionId>,
    pub id: Option<ClientMessageId>,
    pub seq: Option<u64>,
    pub head: Option<u64>,
    pub reply: Option<ReplyId>,
    pub offset: Option<u64>,
    pub text: Option<String>,
    #[serde(default)]
    pub state: Option<&'a str>,
    #[serde(default)]
    pub code: Option<&'a str>,
    pub error: Option<ErrorCode>,
    pub retry_after_ms: Option<u64>,
    pub eta_ms: Option<u64>,
    pub handler: Option<SessionHandler>,
    pub messages: Option<Vec<Listed>>,
    pub more: Option<bool>,
}

/// The code inside a failed reply.
#[derive(Debug, Deserialize)]
pub struct ErrorCode {
    /// For a program.
    pub code: String,
    /// When to try again, if it was said.
    pub retry_after_ms: Option<u64>,
}

/// A message inside `joined`.
#[derive(Debug, Deserialize)]
pub struct Listed {
    /// Its number.
    pub seq: u64,
}

/// Reads a frame. Frames and fields that are not known are no fault: they come back as a frame of an
/// unknown kind.
pub fn decode(text: &str) -> Incoming<'_> {
    serde_json::from_str(text).unwrap_or_default()
}

/// An open connection.
pub struct Wire {
    socket: WebSocketStream<TcpStream>,
}

impl Wire {
    /// Connects, authenticates, and waits for `welcome` where the server sends one.
    pub async fn connect(target: &Target) -> anyhow::Result<Self> {
        Self::connect_as(target, None).await
    }

    /// The same, with a ticket in place of the key.
    pub async fn connect_as(target: &Target, ticket: Option<&str>) -> anyhow::Result<Self> {
        timeout(CONNECT_DEADLINE, Self::open(target, ticket))
            .await
            .context("connecting took too long")?
    }

    async fn open(target: &Target, ticket: Option<&str>) -> anyhow::Result<Self> {
        let mut request = target.socket_url().into_client_request()?;
        let headers = request.headers_mut();
        let mut protocols = hubbub_protocol::SUBPROTOCOL.to_owned();
        if let Some(ticket) = ticket {
            protocols = format!("{protocols}, ticket.{ticket}");
        }
        headers.insert("sec-websocket-protocol", HeaderValue::from_str(&protocols)?);
        if ticket.is_none() && !target.api_key.is_empty() {
            let value = HeaderValue::from_str(&format!("Bearer {}", target.api_key))?;
            headers.insert("authorization", value);
        }
        let stream = TcpStream::connect(target.authority())
            .await
            .context("connect")?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config))
                .await
                .context("handshake")?;
        let mut wire = Self { socket };
        let first = wire.text().await?;
        if decode(&first).kind != "welcome" {
            bail!("the first frame is not a welcome: {first}");
        }
        Ok(wire)
    }

    /// Says one frame.
    pub async fn say(&mut self, frame: &ClientFrame) -> anyhow::Result<()> {
        let text = serde_json::to_string(frame)?;
        timeout(WRITE_DEADLINE, self.socket.send(Message::text(text)))
            .await
            .context("the server takes no frames")?
            .context("send")
    }

    /// The next text frame, however long it takes; an error when the connection ends. Safe to drop
    /// while it waits.
    pub async fn text(&mut self) -> anyhow::Result<String> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(1005, |frame| u16::from(frame.code));
                    return Err(anyhow!("closed with {code}"));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("receive"),
                None => return Err(anyhow!("closed without a code")),
            }
        }
    }

    /// The next text frame, at the latest at `deadline`.
    pub async fn text_by(&mut self, deadline: Instant) -> anyhow::Result<String> {
        timeout_at(deadline, self.text())
            .await
            .context("deadline passed")?
    }

    /// Opens a session, or joins one; answers its id, newest seq, and the listed numbers.
    pub async fn join(&mut self, join: client::Join) -> anyhow::Result<Joined> {
        let deadline = Instant::now() + CONNECT_DEADLINE;
        self.say(&ClientFrame::Join(join)).await?;
        loop {
            let text = self.text_by(deadline).await.context("no answer to join")?;
            let frame = decode(&text);
            match frame.kind {
                "joined" => {
                    let session = frame.session.context("joined names no session")?;
                    let listed = frame.messages.unwrap_or_default();
                    return Ok(Joined {
                        session,
                        head: frame.head.unwrap_or_default(),
                        listed: listed.into_iter().map(|message| message.seq).collect(),
                        more: frame.more.unwrap_or_default(),
                    });
                }
                "error" => bail!("join refused: {}", frame.code.unwrap_or("?")),
                _ => {}
            }
        }
    }

    /// Closes in order, as far as the other side goes along within a second.
    pub async fn close(mut self) {
        if timeout(Duration::from_secs(1), self.socket.close(None))
            .await
            .is_err()
        {
            // Dropping the socket closes it just as well.
        }
    }
}

/// The answer to `join`, as far as the harness looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The session.
    pub session: SessionId,
    /// Its newest number.
    pub head: u64,
    /// The numbers of the messages that came along.
    pub listed: Vec<u64>,
    /// Whether some were left out.
    pub more: bool,
}

/// A `join` that opens a session of a bot.
pub fn open_session(bot: BotId) -> client::Join {
    client::Join {
        reference: Some("open".to_owned()),
        bot: Some(bot),
        ..client::Join::default()
    }
}

/// A `join` of a session from behind a number.
pub fn join_after(session: SessionId, after: u64) -> client::Join {
    client::Join {
        reference: Some("join".to_owned()),
        session: Some(session),
        after: Some(Seq(after)),
        limit: Some(hubbub_protocol::limits::JOIN_MESSAGES),
        ..client::Join::default()
    }
}

/// A `leave`.
pub fn leave(session: SessionId) -> ClientFrame {
    ClientFrame::Leave(client::Leave {
        reference: None,
        session,
    })
}

/// A `send` with a fresh id.
pub fn send(session: SessionId, id: ClientMessageId, text: String) -> ClientFrame {
    ClientFrame::Send(client::Send {
        reference: None,
        session,
        id,
        text,
        metadata: None,
        mode: client::SendMode::Queue,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_frames_are_read_and_unknown_ones_tolerated() {
        let delta = decode(r#"{"type":"delta","offset":3,"text":"a\n😀","later":[1]}"#);
        assert_eq!((delta.kind, delta.offset), ("delta", Some(3)));
        assert_eq!(delta.text.as_deref(), Some("a\n😀"));
        let failed = decode(
            r#"{"type":"reply","state":"failed","error":{"code":"unavailable","message":"m"}}"#,
        );
        assert_eq!(failed.error.unwrap().code, "unavailable");
        assert_eq!(decode(r#"{"type":"dance","seq":"many","text":7}"#).kind, "");
        assert_eq!(decode("nonsense").kind, "");
    }
}
