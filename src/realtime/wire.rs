//! The TCP stream under every connection: its socket options, and the way to cut it from outside.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use futures_util::task::AtomicWaker;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::sockets::{Socket, SocketPlace, Sockets};

/// The kernel's send buffer of a device (it reserves twice as much): one that does not read is noticed
/// after this much, instead of the megabytes that autotuning allows. Other answers keep autotuning: with so
/// little under way at once each piece would wait for the reader's delayed acknowledgement.
const DEVICE_SEND_BUFFER: usize = 32 * 1024;

/// What a connection gets back that was a device for one answer, as far as the system allows: autotuning
/// does not come back once a size was set.
const ANSWER_SEND_BUFFER: usize = 1024 * 1024;

/// How long sent data may stay unacknowledged, or the peer's window closed, before the kernel resets
/// the connection. Works while the connection is blocked and does nothing itself.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Cuts a connection from outside. Clones cut the same connection.
#[derive(Clone, Debug, Default)]
pub struct Cut(Arc<CutState>);

#[derive(Debug, Default)]
struct CutState {
    is_cut: AtomicBool,
    waker: AtomicWaker,
    /// The send buffer to set before the next write; 0 for none.
    send_buffer: AtomicUsize,
}

impl Cut {
    /// Ends the connection now, whatever it is doing; what was not sent is lost.
    pub fn cut(&self) {
        self.0.is_cut.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    /// From the next write on the connection is a device's, which must be noticed when it does not read.
    pub fn becomes_device(&self) {
        let size = &self.0.send_buffer;
        size.store(DEVICE_SEND_BUFFER, Ordering::Relaxed);
    }

    /// From the next write on it carries ordinary answers again.
    pub fn was_device(&self) {
        let size = &self.0.send_buffer;
        size.store(ANSWER_SEND_BUFFER, Ordering::Relaxed);
    }

    /// Whether it was cut.
    #[cfg(test)]
    pub(super) fn is_cut(&self) -> bool {
        self.0.is_cut.load(Ordering::Acquire)
    }

    /// `Ready` once it is cut; else the task is woken when it is.
    fn poll(&self, cx: &Context<'_>) -> Poll<io::Error> {
        // Registered first: a cut between the two would otherwise wake nobody.
        self.0.waker.register(cx.waker());
        if self.0.is_cut.load(Ordering::Acquire) {
            Poll::Ready(io::ErrorKind::ConnectionReset.into())
        } else {
            Poll::Pending
        }
    }
}

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
        let size = self.cut.0.send_buffer.swap(0, Ordering::Relaxed);
        if size == 0 {
            return;
        }
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
