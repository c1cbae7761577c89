//! A device that does not read: a WebSocket by hand, so that nothing reads behind our back.
//!
//! Its receive buffer is as small as the kernel allows, its handshake and its one `join` are written
//! by hand, and whatever it later drains is parsed frame by frame.

use std::time::Duration;

use anyhow::{Context as _, bail};
use hubbub_protocol::{ClientFrame, SessionId};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::target::Target;
use super::wire;

/// Receive buffer asked for; the kernel makes of it what its minimum is.
const RECEIVE_BUFFER_BYTES: usize = 2_048;
/// Longest wait for the handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes of a handshake's answer.
const HEAD_BYTES: usize = 16 * 1024;

/// A connected device that reads only when told.
pub struct RawDevice {
    socket: TcpStream,
    received: Vec<u8>,
}

/// What was found in the bytes of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Numbers of the messages, in order.
    pub seqs: Vec<u64>,
    /// Code of the close frame, where one came.
    pub close_code: Option<u16>,
}

impl RawDevice {
    /// Connects and joins; reads no further than the answer to the handshake.
    pub async fn join(target: &Target, session: SessionId) -> anyhow::Result<Self> {
        timeout(HANDSHAKE_DEADLINE, Self::open(target, session))
            .await
            .context("handshake")?
    }

    async fn open(target: &Target, session: SessionId) -> anyhow::Result<Self> {
        let address = tokio::net::lookup_host(target.authority())
            .await?
            .next()
            .context("the server's name has no address")?;
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // Before connecting: the window offered in the handshake is taken from it.
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.set_nonblocking(true)?;
        let socket = TcpSocket::from_std_stream(socket.into())
            .connect(address)
            .await?;
        let mut device = Self {
            socket,
            received: Vec::new(),
        };
        device.shake_hands(target).await?;
        let frame = ClientFrame::Join(wire::join_after(session, 0));
        let text = serde_json::to_string(&frame)?;
        device
            .socket
            .write_all(&masked_text(text.as_bytes()))
            .await?;
        Ok(device)
    }

    async fn shake_hands(&mut self, target: &Target) -> anyhow::Result<()> {
        let authorization = if target.api_key.is_empty() {
            String::new()
        } else {
            format!("Authorization: Bearer {}\r\n", target.api_key)
        };
        let request = format!(
            "GET /v1/connect HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {}\r\n{authorization}\r\n",
            target.authority(),
            hubbub_protocol::SUBPROTOCOL,
        );
        self.socket.write_all(request.as_bytes()).await?;
        loop {
            let end = self
                .received
                .windows(4)
                .position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                if !self.received.starts_with(b"HTTP/1.1 101") {
                    bail!("refused: {}", String::from_utf8_lossy(&self.received));
                }
                self.received.drain(..end + 4);
                return Ok(());
            }
            if self.received.len() > HEAD_BYTES
                || self.socket.read_buf(&mut self.received).await? == 0
            {
                bail!("no handshake");
            }
        }
    }

    /// Our port: finds the server's side of the connection in the kernel's table.
    pub fn port(&self) -> u16 {
        self.socket
            .local_addr()
            .map(|address| address.port())
            .unwrap_or_default()
    }

    /// Reads one byte, if there is one.
    pub async fn sip(&mut self) {
        let mut byte = [0_u8; 1];
        if let Ok(Ok(1)) = timeout(Duration::from_millis(1), self.socket.read(&mut byte)).await {
            self.received.extend_from_slice(&byte);
        }
    }

    /// Reads whatever is left until the end of the stream, or until the deadline; `None` when the
    /// stream had not ended by then.
    pub async fn drain(mut self, deadline: Instant) -> Option<Drained> {
        loop {
            match timeout_at(deadline, self.socket.read_buf(&mut self.received)).await {
                Err(_) => return None,
                Ok(Ok(0) | Err(_)) => return Some(parse(&self.received)),
                Ok(Ok(_)) => {}
            }
        }
    }
}

/// A client's text frame. The mask is zero, which is a mask like any other.
fn masked_text(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(0x80 | short.to_be_bytes()[1]),
        Ok(long) => {
            frame.push(0x80 | 0x7E);
            frame.extend_from_slice(&long.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 0x7F);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Takes one whole frame of a server off the front: its opcode and payload.
fn take_frame<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (opcode, short) = (bytes.first()? & 0x0F, bytes.get(1)? & 0x7F);
    let (head, length): (usize, usize) = match short {
        126 => (
            4,
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
        ),
        127 => (
            10,
            usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?,
        ),
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(head..head.checked_add(length)?)?;
    *bytes = bytes.get(head + length..)?;
    Some((opcode, payload))
}

/// Finds messages and the close in the bytes of a stream. A frame cut short is not there.
fn parse(mut bytes: &[u8]) -> Drained {
    let mut drained = Drained::default();
    while let Some((opcode, payload)) = take_frame(&mut bytes) {
        match opcode {
            1 => {
                let text = std::str::from_utf8(payload).unwrap_or_default();
                let frame = wire::decode(text);
                match frame.kind {
                    "message" => drained.seqs.extend(frame.seq),
                    "joined" => {
                        let listed = frame.messages.unwrap_or_default();
                        drained
                            .seqs
                            .extend(listed.into_iter().map(|message| message.seq));
                    }
                    _ => {}
                }
            }
            8 => {
                let code = payload.get(..2).and_then(|code| code.try_into().ok());
                drained.close_code = code.map(u16::from_be_bytes);
            }
            _ => {}
        }
    }
    drained
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = masked_text(payload);
        frame[0] = 0x80 | opcode;
        frame[1] &= 0x7F;
        let mask_at = frame.len() - payload.len() - 4;
        frame.drain(mask_at..mask_at + 4);
        frame
    }

    #[test]
    fn what_was_received_whole_is_found_and_a_cut_frame_is_not() {
        let long = format!(
            r#"{{"type":"message","seq":8,"text":"{}"}}"#,
            "x".repeat(300)
        );
        let stream = [
            server_frame(1, br#"{"type":"joined","messages":[{"seq":6},{"seq":7}]}"#),
            server_frame(9, b""),
            server_frame(1, long.as_bytes()),
            server_frame(8, &4008_u16.to_be_bytes()),
        ]
        .concat();
        let whole = Drained {
            seqs: vec![6, 7, 8],
            close_code: Some(4008),
        };
        assert_eq!(parse(&stream), whole);
        let cut = Drained {
            seqs: vec![6, 7],
            close_code: None,
        };
        assert_eq!(parse(&stream[..stream.len() - 10]), cut);
    }

    #[test]
    fn a_frame_of_any_length_can_be_written() {
        for length in [0_usize, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let frame = server_frame(1, &payload);
            assert_eq!(
                take_frame(&mut frame.as_slice()),
                Some((1, payload.as_slice()))
            );
        }
    }
}
