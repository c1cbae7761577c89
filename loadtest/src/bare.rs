//! The bare reference: the least a socket server can do and still satisfy the harness.
//!
//! No database, no actors, no authentication, no limits worth the name: sessions are members and a
//! counter in memory. What Hubbub costs beside it, in the same run on the same machine, is the price
//! of its promises. It says `ack` without having stored anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use hubbub_protocol::{BotId, ClientFrame, ReplyId, SessionId, limits};
use serde::Deserialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use uuid::Uuid;

/// The bot whose sessions are never answered.
pub const SILENT_BOT: BotId = BotId(Uuid::nil());

/// Frames waiting for one connection; one that lets more pile up is dropped.
const OUTBOX_FRAMES: usize = 1_024;
/// Read buffer of a connection, in bytes.
const READ_BUFFER_BYTES: usize = 4 * 1024;

type Outbox = mpsc::Sender<Utf8Bytes>;

#[derive(Default)]
struct Room {
    seq: u64,
    silent: bool,
    members: Vec<Outbox>,
}

struct Shared {
    rooms: Mutex<HashMap<SessionId, Room>>,
    upstream: Option<String>,
    client: reqwest::Client,
}

/// Serves until the listener fails or the future is dropped, which ends all connections.
///
/// `upstream` is the base URL (`http://…/v1`) of what answers; without one nothing does.
///
/// # Errors
/// When no HTTP client can be made.
pub async fn serve(listener: TcpListener, upstream: Option<String>) -> anyhow::Result<()> {
    let shared = Arc::new(Shared {
        rooms: Mutex::default(),
        upstream,
        client: reqwest::Client::builder()
            .build()
            .context("no HTTP client")?,
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&shared)));
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection; how it ends is nobody's concern here.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let accepted =
        tokio_tungstenite::accept_hdr_async_with_config(stream, choose_subprotocol, Some(config));
    let Ok(mut socket) = accepted.await else {
        return;
    };
    let (outbox, mut outgoing) = mpsc::channel(OUTBOX_FRAMES);
    let mut replies = JoinSet::new();
    let welcome = json!({
        "type": "welcome", "connection": Uuid::now_v7(), "tenant": Uuid::nil(),
        "principal": {"kind": "api_key", "id": "bare", "name": "bare"}, "heartbeat_ms": 25_000,
        "limits": {"frame_bytes": limits::FRAME_BYTES, "text_chars": limits::TEXT_CHARS},
    });
    if socket
        .send(Message::text(welcome.to_string()))
        .await
        .is_err()
    {
        return;
    }
    loop {
        tokio::select! {
            incoming = socket.next() => match incoming {
                Some(Ok(Message::Text(text))) => {
                    if handle(&text, &outbox, &shared, &mut replies).is_none() {
                        return;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            Some(frame) = outgoing.recv() => {
                if write(&mut socket, frame, &mut outgoing).await.is_err() {
                    return;
                }
            }
            Some(_) = replies.join_next() => {}
        }
    }
}

#[expect(
    clippy::result_large_err,
    clippy::unnecessary_wraps,
    reason = "the signature asked for"
)]
fn choose_subprotocol(
    _: &Request,
    mut response: Response,
) -> Result<Response, tokio_tungstenite::tungstenite::handshake::server::ErrorResponse> {
    let value = HeaderValue::from_static(hubbub_protocol::SUBPROTOCOL);
    response
        .headers_mut()
        .insert("sec-websocket-protocol", value);
    Ok(response)
}

/// Writes a frame and whatever else waits, in one flush.
async fn write(
    socket: &mut WebSocketStream<TcpStream>,
    first: Utf8Bytes,
    outgoing: &mut mpsc::Receiver<Utf8Bytes>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    socket.feed(Message::Text(first)).await?;
    while let Ok(frame) = outgoing.try_recv() {
        socket.feed(Message::Text(frame)).await?;
    }
    socket.flush().await
}

/// Acts on one frame; `None` ends the connection.
fn handle(
    text: &str,
    outbox: &Outbox,
    shared: &Arc<Shared>,
    replies: &mut JoinSet<()>,
) -> Option<()> {
    let frame = ClientFrame::decode(text, limits::TEXT_CHARS).ok()?;
    match frame {
        ClientFrame::Join(join) => {
            let session = join.session.unwrap_or_else(SessionId::generate);
            let mut rooms = shared.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            let room = rooms.entry(session).or_default();
            room.silent |= join.bot == Some(SILENT_BOT);
            room.members.push(outbox.clone());
            let joined = json!({
                "type": "joined", "ref": join.reference, "session": session, "bot": join.bot,
                "head": room.seq, "epoch": Uuid::nil(), "messages": [], "more": false,
                "replying": null, "handler": "bot",
            });
            outbox.try_send(joined.to_string().into()).ok()
        }
        ClientFrame::Send(send) => {
            let mut rooms = shared.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            let room = rooms.get_mut(&send.session)?;
            room.seq += 1;
            let at = hubbub_protocol::Timestamp::now();
            let ack = json!({"type": "ack", "ref": send.reference, "session": send.session,
                "id": send.id, "seq": room.seq, "at": at});
            outbox.try_send(ack.to_string().into()).ok()?;
            let message = json!({"type": "message", "session": send.session, "seq": room.seq,
                "id": send.id, "role": "visitor", "author": "", "text": send.text,
                "attachments": [], "at": at});
            room.broadcast(&message);
            if !room.silent && shared.upstream.is_some() {
                replies.spawn(reply(send.session, send.text, Arc::clone(shared)));
            }
            Some(())
        }
        ClientFrame::Leave(leave) => {
            let left = json!({"type": "left", "ref": leave.reference, "session": leave.session});
            shared
                .rooms
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&leave.session);
            outbox.try_send(left.to_string().into()).ok()
        }
        // What it does not do.
        _ => Some(()),
    }
}

impl Room {
    fn broadcast(&mut self, frame: &serde_json::Value) {
        let frame = Utf8Bytes::from(frame.to_string());
        self.members
            .retain(|member| member.try_send(frame.clone()).is_ok());
    }
}

/// Relays one answer, token by token.
async fn reply(session: SessionId, question: String, shared: Arc<Shared>) {
    let id = ReplyId::generate();
    if relay(session, id, &question, &shared).await.is_err() {
        shared.broadcast(session, |_| {
            json!({"type": "reply", "session": session, "reply": id, "to": 0, "state": "failed",
                "error": {"code": "unavailable", "message": "the upstream failed"}})
        });
    }
}

#[derive(Deserialize)]
struct Event {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Piece,
}

#[derive(Deserialize)]
struct Piece {
    #[serde(default)]
    content: String,
}

async fn relay(
    session: SessionId,
    reply: ReplyId,
    question: &str,
    shared: &Shared,
) -> anyhow::Result<()> {
    let base = shared.upstream.as_deref().context("no upstream")?;
    let body = json!({"model": "sim", "stream": true,
        "messages": [{"role": "user", "content": question}]});
    let response = shared
        .client
        .post(format!("{base}/chat/completions"))
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await?
        .error_for_status()?;
    let mut response = response;
    let (mut buffer, mut text, mut units) = (Vec::new(), String::new(), 0_usize);
    while let Some(bytes) = response.chunk().await? {
        buffer.extend_from_slice(&bytes);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let Some(event) = line.strip_prefix(b"data: ") else {
                continue;
            };
            let Ok(event) = serde_json::from_slice::<Event>(event) else {
                continue;
            };
            let Some(choice) = event.choices.into_iter().next() else {
                continue;
            };
            let piece = choice.delta.content;
            if piece.is_empty() {
                continue;
            }
            shared.broadcast(session, |_| {
                json!({"type": "delta", "session": session, "reply": reply, "offset": units,
                    "text": piece})
            });
            units += piece.encode_utf16().count();
            text.push_str(&piece);
        }
    }
    shared.broadcast(session, |room| {
        room.seq += 1;
        json!({"type": "message", "session": session, "seq": room.seq, "id": reply,
            "role": "assistant", "author": "", "text": text, "attachments": [],
            "at": hubbub_protocol::Timestamp::now(), "reply": reply})
    });
    Ok(())
}

impl Shared {
    fn broadcast(&self, session: SessionId, frame: impl FnOnce(&mut Room) -> serde_json::Value) {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get_mut(&session) {
            let frame = frame(room);
            room.broadcast(&frame);
        }
    }
}
