//! Cutting a connection from outside, and what it is to the kernel meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// The kernel's send buffer of a device (it reserves twice as much): one that does not read is noticed
/// after this much, instead of the megabytes that autotuning allows. Other answers keep autotuning: with so
/// little under way at once each piece would wait for the reader's delayed acknowledgement.
const DEVICE_SEND_BUFFER: usize = 32 * 1024;

/// What a connection gets back that was a device for one answer, as far as the system allows: autotuning
/// does not come back once a size was set.
const ANSWER_SEND_BUFFER: usize = 1024 * 1024;

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

    /// The send buffer to set, once.
    pub(super) fn take_send_buffer(&self) -> Option<usize> {
        let size = self.0.send_buffer.swap(0, Ordering::Relaxed);
        (size > 0).then_some(size)
    }

    /// `Ready` once it is cut; else the task is woken when it is.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<io::Error> {
        // Registered first: a cut between the two would otherwise wake nobody.
        self.0.waker.register(cx.waker());
        if self.0.is_cut.load(Ordering::Acquire) {
            Poll::Ready(io::ErrorKind::ConnectionReset.into())
        } else {
            Poll::Pending
        }
    }
}
