//! Refuses a frame by its header, before any of it is buffered: the codec below checks a frame's size
//! only once it has all of it, and a client that announces 16 GiB would be believed.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;

/// Why a stream failed, where the guard knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not by anything the guard saw.
    #[default]
    Unknown,
    /// A frame was announced that is larger than the limit.
    TooBig,
    /// The client is gone.
    Broken,
}

/// What the guard found, read by the connection when its stream fails.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict(Rc<Cell<Fault>>);

impl Verdict {
    /// Why the stream failed.
    pub(super) fn fault(&self) -> Fault {
        self.0.get()
    }
}

/// Where the stream of bytes stands within its frames. Pure.
#[derive(Debug, Default)]
struct Headers {
    /// Bytes of the current header so far; at most 14.
    header: Vec<u8>,
    /// Payload still to come before the next header.
    payload: u64,
}

/// A header cannot be longer: 2 bytes, 8 of length, 4 of mask.
const HEADER_BYTES: usize = 14;

impl Headers {
    /// Reads on; answers whether every frame that begins in these bytes is within the limit.
    fn admit(&mut self, mut bytes: &[u8], limit: u64) -> bool {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = usize::try_from(self.payload)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.payload -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let Some((byte, rest)) = bytes.split_first() else {
                break;
            };
            self.header.push(*byte);
            bytes = rest;
            if let Some(length) = self.complete() {
                if length > limit {
                    return false;
                }
                self.header.clear();
                self.payload = length;
            }
        }
        true
    }

    /// The payload's length, once the header is complete.
    fn complete(&self) -> Option<u64> {
        let second = *self.header.get(1)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (start, end) = match second & 0x7f {
            126 => (2, 4),
            127 => (2, 10),
            _ => (1, 2),
        };
        if self.header.len() < (end + mask).min(HEADER_BYTES) {
            return None;
        }
        let length = self.header.get(start..end)?;
        let first = if end == 2 {
            u64::from(second & 0x7f)
        } else {
            0
        };
        Some(if end == 2 {
            first
        } else {
            length
                .iter()
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
        })
    }
}

/// The guarded stream of a request's body.
pub(super) struct Guard<S> {
    stream: S,
    headers: Headers,
    limit: u64,
    verdict: Verdict,
}

impl<S> Guard<S> {
    pub(super) fn new(stream: S, limit: usize) -> (Self, Verdict) {
        let verdict = Verdict::default();
        let guard = Self {
            stream,
            headers: Headers::default(),
            limit: limit as u64,
            verdict: verdict.clone(),
        };
        (guard, verdict)
    }
}

impl<S> Stream for Guard<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_next(cx);
        match &polled {
            Poll::Ready(Some(Ok(bytes))) if !this.headers.admit(bytes, this.limit) => {
                this.verdict.0.set(Fault::TooBig);
                Poll::Ready(Some(Err(PayloadError::Overflow)))
            }
            Poll::Ready(Some(Err(_))) => {
                this.verdict.0.set(Fault::Broken);
                polled
            }
            _ => polled,
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::decimal_bitwise_operands,
    reason = "lengths are checked by the arms, and RFC 6455 writes 126 and 127 in decimal"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(length: u64, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x81];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        if masked {
            bytes.extend([0xff; 4]);
        }
        bytes
    }

    #[test]
    fn a_frame_is_refused_by_its_header_alone() {
        for masked in [true, false] {
            let header = frame(16 << 30, masked);
            assert!(!Headers::default().admit(&header, 65_536));
            let mut headers = Headers::default();
            let (last, first) = header.split_last().unwrap();
            assert!(headers.admit(first, 65_536), "the header is not complete");
            assert!(!headers.admit(&[*last], 65_536));
        }
    }

    proptest! {
        /// Whatever the frames and however the stream is cut, exactly the frames over the limit are
        /// refused, at the first byte that tells.
        #[test]
        fn frames_are_followed_however_the_stream_is_cut(
            lengths in prop::collection::vec((0u64..70_000, any::<bool>()), 1..6),
            cuts in prop::collection::vec(1usize..5_000, 1..20),
            limit in 0u64..70_000,
        ) {
            let mut bytes = Vec::new();
            for (length, masked) in &lengths {
                bytes.extend(frame(*length, *masked));
                bytes.extend(vec![0x81; *length as usize]);
            }
            let mut headers = Headers::default();
            let (mut rest, mut admitted, mut n) = (&bytes[..], true, 0);
            while admitted && !rest.is_empty() {
                let at = cuts[n % cuts.len()].min(rest.len());
                admitted = headers.admit(&rest[..at], limit);
                rest = &rest[at..];
                n += 1;
            }
            prop_assert_eq!(admitted, lengths.iter().all(|(length, _)| *length <= limit));
        }
    }
}
