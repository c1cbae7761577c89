//! HTTP by hand: requests that no library would send, or that stop half way.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::in_time;

/// A connection.
pub struct Plain {
    /// The bytes.
    pub stream: TcpStream,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body, if its length was told.
    pub body: String,
}

impl Answer {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(&prefix))
    }
}

impl Plain {
    /// Connects and sends these bytes.
    pub async fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        // It may be closed upon before all of it is out.
        let _closed = stream.write_all(bytes.as_ref()).await;
        Self { stream }
    }

    /// Reads an answer; `None`: closed without one.
    pub async fn answer(&mut self) -> Option<Answer> {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                let (head, body) = (head.to_ascii_lowercase(), body.to_owned());
                let answer = Answer { status, head, body };
                let length = answer.header("content-length");
                let length = length.map_or(0, |length| length.parse().unwrap());
                if answer.body.len() >= length {
                    return Some(answer);
                }
            }
            match in_time(self.stream.read_buf(&mut bytes)).await {
                Ok(read) if read > 0 => {}
                _ => return None,
            }
        }
    }

    /// Waits until the server has closed it.
    pub async fn closed(&mut self) {
        let mut bytes = [0; 4_096];
        while matches!(in_time(self.stream.read(&mut bytes)).await, Ok(read) if read > 0) {}
    }
}

/// Sends a request and reads its answer.
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut plain = Plain::send(address, request).await;
    plain.answer().await.expect("closed without an answer")
}
