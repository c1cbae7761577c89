//! Devices, as tests need them: every wait has a deadline, every frame is checked.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hubbub_protocol::client::{Join, Send, SendMode};
use hubbub_protocol::server::{Ack, ErrorFrame, Joined, Welcome};
use hubbub_protocol::{
    BotId, ClientFrame, ClientMessageId, ErrorCode, MessageFrame, ReplyState, ServerFrame,
    SessionId,
};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};

#[allow(unused_imports, reason = "each test program uses a part of it")]
pub use super::caller::{Caller, Response};
use super::server::TestServer;

/// Longest wait for one frame.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How a device proves who it is.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// An API key or a visitor's token.
    Bearer(String),
    /// A ticket.
    Ticket(String),
}

/// Why there are no more frames.
#[derive(Debug, PartialEq, Eq)]
pub enum Gone {
    /// Closed with this code.
    Closed(u16),
    /// Ended without a word.
    Cut,
}

/// A connected device.
pub struct Device {
    /// Its first frame.
    pub welcome: Welcome,
    socket: WebSocketStream<TcpStream>,
}

impl Device {
    /// Connects with the demo's API key.
    pub async fn connect(server: &TestServer) -> Self {
        let key = Credentials::Bearer(server.demo.api_key.clone());
        Self::connect_as(server.address, &key).await.unwrap()
    }

    /// Connects.
    pub async fn connect_as(
        address: SocketAddr,
        credentials: &Credentials,
    ) -> Result<Self, tungstenite::Error> {
        Self::connect_below(address, "", credentials).await
    }

    /// Connects to a server that a proxy offers below this path.
    pub async fn connect_below(
        address: SocketAddr,
        base: &str,
        credentials: &Credentials,
    ) -> Result<Self, tungstenite::Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{address}{base}/v1/connect").into_client_request()?;
        let headers = request.headers_mut();
        let protocols = match credentials {
            Credentials::Bearer(token) => {
                headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
                "hubbub.v1".to_owned()
            }
            Credentials::Ticket(ticket) => format!("hubbub.v1, ticket.{ticket}"),
        };
        headers.insert("sec-websocket-protocol", protocols.parse().unwrap());
        let connecting = tokio_tungstenite::client_async(request, stream);
        let (mut socket, response) = in_time(connecting).await?;
        assert_eq!(response.headers()["sec-websocket-protocol"], "hubbub.v1");
        let first = in_time(socket.next()).await.unwrap()?;
        let ServerFrame::Welcome(welcome) = parse(&first) else {
            panic!("not welcome: {first}")
        };
        Ok(Self { welcome, socket })
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<(), tungstenite::Error> {
        self.send_raw(Message::text(serde_json::to_string(frame).unwrap()))
            .await
    }

    /// Sends whatever it is.
    pub async fn send_raw(&mut self, message: Message) -> Result<(), tungstenite::Error> {
        in_time(self.socket.send(message)).await
    }

    /// The next frame, one JSON document a frame; or how the connection ended.
    pub async fn next(&mut self) -> Result<ServerFrame, Gone> {
        in_time(self.read()).await
    }

    async fn read(&mut self) -> Result<ServerFrame, Gone> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map_or(Gone::Cut, |frame| Gone::Closed(frame.code.into())));
                }
                Some(Ok(message)) => return Ok(parse(&message)),
                Some(Err(_)) | None => return Err(Gone::Cut),
            }
        }
    }

    /// Reads until a frame is what is looked for; the others are dropped.
    pub async fn until<T>(&mut self, mut pick: impl FnMut(ServerFrame) -> Option<T>) -> T {
        self.try_until(&mut pick).await.unwrap()
    }

    /// Like [`Device::until`], for connections that may end.
    pub async fn try_until<T>(
        &mut self,
        mut pick: impl FnMut(ServerFrame) -> Option<T>,
    ) -> Result<T, Gone> {
        loop {
            if let Some(found) = pick(self.next().await?) {
                return Ok(found);
            }
        }
    }

    /// How the connection ends.
    pub async fn end(&mut self) -> Gone {
        loop {
            if let Err(gone) = self.next().await {
                return gone;
            }
        }
    }

    /// Joins; the answer may be an error.
    pub async fn try_join(&mut self, join: Join) -> Result<Joined, ErrorFrame> {
        let reference = ClientMessageId::generate().to_string();
        let join = Join {
            reference: Some(reference.clone()),
            ..join
        };
        self.send(&ClientFrame::Join(join)).await.unwrap();
        let expected = Some(reference);
        self.until(|frame| match frame {
            ServerFrame::Joined(joined) if joined.reference == expected => Some(Ok(*joined)),
            ServerFrame::Error(error) if error.reference == expected => Some(Err(error)),
            _ => None,
        })
        .await
    }

    /// Opens a new session.
    pub async fn open(&mut self, bot: BotId) -> Joined {
        self.try_join(Join {
            bot: Some(bot),
            ..Join::default()
        })
        .await
        .unwrap()
    }

    /// Joins a session from its beginning.
    pub async fn join(&mut self, session: SessionId) -> Joined {
        self.try_join(Join {
            limit: Some(200),
            ..of(session)
        })
        .await
        .unwrap()
    }

    /// Sends a message and waits for its answer.
    pub async fn say(&mut self, session: SessionId, text: &str) -> Result<Ack, ErrorFrame> {
        self.say_as(session, ClientMessageId::generate(), text)
            .await
    }

    /// Sends a message with an id and waits for its answer.
    pub async fn say_as(
        &mut self,
        session: SessionId,
        id: ClientMessageId,
        text: &str,
    ) -> Result<Ack, ErrorFrame> {
        let reference = ClientMessageId::generate().to_string();
        self.send(&message(session, id, text, Some(&reference)))
            .await
            .unwrap();
        self.until(|frame| match frame {
            ServerFrame::Ack(ack) if ack.reference.as_ref() == Some(&reference) => Some(Ok(ack)),
            ServerFrame::Error(error) if error.reference.as_ref() == Some(&reference) => {
                Some(Err(error))
            }
            _ => None,
        })
        .await
    }

    /// Reads until a message.
    pub async fn next_message(&mut self) -> MessageFrame {
        self.until(|frame| match frame {
            ServerFrame::Message(message) => Some(message),
            _ => None,
        })
        .await
    }

    /// The end of the next reply: its message or its failure.
    pub async fn reply_end(&mut self) -> Result<MessageFrame, ReplyState> {
        self.until(|frame| match frame {
            ServerFrame::Message(message) if message.reply.is_some() => Some(Ok(message)),
            ServerFrame::Reply(reply) if is_end(&reply.state) => Some(Err(reply.state)),
            _ => None,
        })
        .await
    }

    /// Asks and waits for the whole answer.
    pub async fn ask(
        &mut self,
        session: SessionId,
        text: &str,
    ) -> Result<MessageFrame, ReplyState> {
        let ack = self.say(session, text).await.unwrap();
        assert!(!ack.duplicate);
        self.reply_end().await
    }

    /// The connection still works: an unknown session is refused by name.
    pub async fn assert_works(&mut self) {
        let refused = self.try_join(of(SessionId::generate())).await.unwrap_err();
        assert_eq!(refused.error.code, ErrorCode::NotFound);
    }

    /// Closes as a browser does.
    pub async fn close(mut self) {
        let _gone = self.socket.close(None).await;
    }
}

/// A join of a session.
pub fn of(session: SessionId) -> Join {
    Join {
        session: Some(session),
        ..Join::default()
    }
}

/// A `send` frame.
pub fn message(
    session: SessionId,
    id: ClientMessageId,
    text: &str,
    reference: Option<&str>,
) -> ClientFrame {
    let (reference, text) = (reference.map(str::to_owned), text.to_owned());
    ClientFrame::Send(Send {
        reference,
        session,
        id,
        text,
        metadata: None,
        mode: SendMode::Queue,
    })
}

/// Whether a reply has ended without a message.
pub fn is_end(state: &ReplyState) -> bool {
    matches!(state, ReplyState::Failed { .. } | ReplyState::Cancelled)
}

/// Awaits with a deadline.
pub async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what)
        .await
        .expect("nothing came in time")
}

/// Text frames that hold one document of the protocol, and nothing else, are what a server sends.
fn parse(message: &Message) -> ServerFrame {
    let Message::Text(text) = message else {
        panic!("not a text frame: {message:?}")
    };
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
