//! The TCP stream under every connection: its socket options, and its end when it is cut.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::cut::Cut;
use super::sockets::{Socket, SocketPlace, Sockets};

/// How long sent data may stay unacknowledged, or the peer's window closed, before the kernel resets
/// the connection. Works while the connection is blocked and does nothing itself.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// A TCP stream that can be cut.
pub struct Wire {
    stream: TcpStream,
    cut: Cut,
    place: SocketPlace,
}

impl Wire {
    /// Takes an accepted stream over and sets its options. One that cannot take them is kept: the
    /// session's clock still cuts what stalls. `None`: there is no place for it.
    pub fn new(
        stream: TcpStream,
        sockets: &Sockets,
        is_proxy: impl Fn(IpAddr) -> bool,
    ) -> Option<Self> {
        let peer = stream.peer_addr().ok()?.ip();
        let cut = Cut::default();
        let place = sockets.enter(peer, is_proxy(peer), cut.clone())?;
        let socket = SockRef::from(&stream);
        let set = socket
            .set_tcp_user_timeout(Some(USER_TIMEOUT))
            .and_then(|()| socket.set_tcp_nodelay(true));
        if let Err(error) = set {
            tracing::debug!(%error, "socket options were not taken");
        }
        Some(Self { stream, cut, place })
    }

    /// Its place, for whoever handles its requests.
    pub fn socket(&self) -> Socket {
        self.place.socket()
    }

    /// The way to cut it.
    pub fn cut(&self) -> Cut {
        self.cut.clone()
    }

    fn set_send_buffer(&self) {
        let Some(size) = self.cut.take_send_buffer() else {
            return;
        };
        if let Err(error) = SockRef::from(&self.stream).set_send_buffer_size(size) {
            tracing::debug!(%error, "the send buffer was not set");
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.cut.poll(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.cut.poll(cx) {
            return Poll::Ready(Err(error));
        }
        self.set_send_buffer();
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.cut.poll(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.cut.poll(cx) {
            return Poll::Ready(Err(error));
        }
        self.set_send_buffer();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
