//! A socket whose every byte the test decides: what no well-behaved library can send, or not read.

use std::net::SocketAddr;

use hubbub_protocol::ServerFrame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

use crate::client::in_time;

/// A WebSocket by hand.
pub struct Raw {
    /// The bytes.
    pub stream: TcpStream,
    inbound: Vec<u8>,
}

/// What the server sent.
#[derive(Debug)]
pub enum Received {
    /// A frame of the protocol.
    Frame(Box<ServerFrame>),
    /// A close frame with this code; 0 for none.
    Close(u16),
    /// The socket's end.
    End,
}

/// Opcode of a text frame, final.
pub const TEXT: u8 = 0x81;

impl Raw {
    /// Connects and upgrades. `receive_buffer` is what the kernel may hold for us, in bytes.
    pub async fn connect(address: SocketAddr, token: &str, receive_buffer: Option<u32>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let mut stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!(
            "GET /v1/connect HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: hubbub.v1\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut raw = Self {
            stream,
            inbound: Vec::new(),
        };
        let head = loop {
            let end = raw.inbound.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                break raw.inbound.drain(..end + 4).collect::<Vec<u8>>();
            }
            assert!(raw.fill().await, "no answer to the handshake");
        };
        assert!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        raw
    }

    /// The same socket, to write to while this one reads.
    pub fn writer(&self) -> TcpStream {
        let socket = socket2::SockRef::from(&self.stream).try_clone().unwrap();
        TcpStream::from_std(socket.into()).unwrap()
    }

    /// Sends bytes as they are. The server may have closed already.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _closed = in_time(self.stream.write_all(bytes)).await;
    }

    /// Sends a masked frame.
    pub async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.write(&masked(first, payload)).await;
    }

    /// The next frame.
    pub async fn next(&mut self) -> Received {
        loop {
            if let Some(received) = self.take() {
                return received;
            }
            if !in_time(self.fill()).await {
                return Received::End;
            }
        }
    }

    /// The close code the server ends with; frames before it are dropped.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            match self.next().await {
                Received::Frame(_) => {}
                Received::Close(code) => return code,
                Received::End => panic!("ended without a close frame"),
            }
        }
    }

    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.inbound).await, Ok(read) if read > 0)
    }

    fn take(&mut self) -> Option<Received> {
        let (first, second) = (*self.inbound.first()?, *self.inbound.get(1)?);
        let (start, length) = match second {
            126 => (
                4,
                usize::from(u16::from_be_bytes(
                    self.inbound.get(2..4)?.try_into().unwrap(),
                )),
            ),
            127 => {
                let length = u64::from_be_bytes(self.inbound.get(2..10)?.try_into().unwrap());
                (10, usize::try_from(length).unwrap())
            }
            length => (2, usize::from(length)),
        };
        let payload = self.inbound.get(start..start + length)?.to_vec();
        self.inbound.drain(..start + length);
        Some(match first {
            TEXT => Received::Frame(Box::new(serde_json::from_slice(&payload).unwrap())),
            0x88 => {
                let code = payload
                    .get(..2)
                    .map_or(0, |two| u16::from_be_bytes(two.try_into().unwrap()));
                Received::Close(code)
            }
            // Pings and pongs.
            _ => return self.take(),
        })
    }
}

/// The bytes of a masked frame.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    let mask = [1, 2, 3, 4];
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// The header of a masked frame that announces so many bytes.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0x80 | 0x7e);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 0x7f);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([1, 2, 3, 4]);
    bytes
}
