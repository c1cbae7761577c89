//! Counts everything a client sends where it comes in, below the codec.
//!
//! The codec drains all input there is before it decodes one frame, believes whatever length a header
//! announces, and never shows what it skips. So the guard refuses a frame by its header, lets through one
//! frame at a time, and no more of them than the connection's rate allows, whatever their kind. While the
//! rate is exceeded nothing is read, so the client's own socket holds it back; if it goes on for
//! [`PATIENCE`], the connection is closed.

mod position;

use std::cell::Cell;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::{Instant, Sleep};

use position::{PIECE_BYTES, Piece, Position, TooBig};

/// How long a client may be ahead of what its connection reads without a moment's rest. With what it may
/// send at once ([`SAVED`]) that is nine seconds' worth of input in five.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many seconds' worth of input may come at once after a pause.
const SAVED: u32 = 4;

/// How much a connection may send, whatever it is.
#[derive(Clone, Copy, Debug)]
pub struct InboundRate {
    /// Largest frame, in bytes.
    pub frame_bytes: usize,
    /// Bytes a second, headers included.
    pub bytes_per_second: u32,
    /// Frames a second of any kind: also pings, pongs and pieces.
    pub frames_per_second: u32,
}

/// Why a stream failed, where the guard knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not by anything the guard saw.
    #[default]
    Unknown,
    /// A frame was announced that is larger than the limit.
    TooBig,
    /// The client sends faster than it may, and does not stop.
    TooFast,
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

/// One account for bytes and frames: a frame costs its bytes and a fixed number on top, so that empty
/// ones are not free.
struct Allowance {
    account: DefaultDirectRateLimiter,
    frame_cost: u32,
    most: NonZeroU32,
}

impl Allowance {
    fn new(rate: InboundRate) -> Self {
        let per_second = NonZeroU32::new(rate.bytes_per_second).unwrap_or(NonZeroU32::MIN);
        let frame_cost = per_second.get() / rate.frames_per_second.max(1);
        let largest = u32::try_from(rate.frame_bytes.max(PIECE_BYTES)).unwrap_or(u32::MAX);
        // Room for two of the largest frames at least, or one could never be let through.
        let least = largest.saturating_add(frame_cost).saturating_mul(2);
        let most = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(SAVED - 1));
        let most = most.max(NonZeroU32::new(least).unwrap_or(most));
        Self {
            account: RateLimiter::direct(Quota::per_second(per_second).allow_burst(most)),
            frame_cost,
            most,
        }
    }

    /// Pays for a piece, or tells how long to wait before it can be paid.
    fn pay(&self, piece: Piece) -> Result<(), Duration> {
        let frame = if piece.has_header { self.frame_cost } else { 0 };
        let cost = u32::try_from(piece.bytes).unwrap_or(u32::MAX);
        let cost = NonZeroU32::new(cost.saturating_add(frame)).unwrap_or(NonZeroU32::MIN);
        match self.account.check_n(cost.min(self.most)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(DefaultClock::default().now())),
            Err(_more_than_fits) => Err(PATIENCE),
        }
    }
}

/// The guarded stream of a request's body.
pub(super) struct Guard<S> {
    stream: S,
    /// What came in and was not let through yet: at most one chunk of the stream.
    held: Bytes,
    /// How the stream ended, once it has.
    ended: Option<Result<(), PayloadError>>,
    position: Position,
    limit: u64,
    allowance: Allowance,
    /// A whole frame was let through: the codec is to take it out before the next one comes.
    is_turn_over: bool,
    /// Since when more comes in than may be let through.
    over_since: Option<Instant>,
    /// Set while it waits for its allowance. Most connections never need one.
    timer: Option<Pin<Box<Sleep>>>,
    verdict: Verdict,
}

impl<S> Guard<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    pub(super) fn new(stream: S, rate: InboundRate) -> (Self, Verdict) {
        let verdict = Verdict::default();
        let guard = Self {
            stream,
            held: Bytes::new(),
            ended: None,
            position: Position::default(),
            limit: rate.frame_bytes as u64,
            allowance: Allowance::new(rate),
            is_turn_over: false,
            over_since: None,
            timer: None,
            verdict: verdict.clone(),
        };
        (guard, verdict)
    }

    /// `Ready` once something is held or the stream has ended.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.held.is_empty() && self.ended.is_none() {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(bytes)) => self.held = bytes,
                Some(Err(error)) => self.ended = Some(Err(error)),
                None => self.ended = Some(Ok(())),
            }
        }
        Poll::Ready(())
    }

    fn fail<T>(&self, fault: Fault) -> Poll<Option<Result<T, PayloadError>>> {
        self.verdict.0.set(fault);
        Poll::Ready(Some(Err(PayloadError::Overflow)))
    }

    /// Lets nothing through until there is something to pay with, unless that has been so for too long.
    fn hold_back<T>(
        &mut self,
        wait: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<T, PayloadError>>> {
        let now = Instant::now();
        if self.over_since.is_none() {
            metrics::counter!("hubbub_inbound_held_back_total").increment(1);
        }
        if now - *self.over_since.get_or_insert(now) >= PATIENCE {
            return self.fail(Fault::TooFast);
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        timer.as_mut().reset(now + wait);
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<S> Stream for Guard<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let is_turn_over = std::mem::take(&mut this.is_turn_over);
        if this.fill(cx).is_pending() {
            this.over_since = None;
            return Poll::Pending;
        }
        if is_turn_over {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.held.is_empty() {
            return Poll::Ready(match this.ended.take() {
                Some(Err(error)) => {
                    this.verdict.0.set(Fault::Broken);
                    Some(Err(error))
                }
                Some(Ok(())) | None => None,
            });
        }
        let mut position = this.position;
        let piece = match position.advance(&this.held, this.limit) {
            Ok(piece) => piece,
            Err(TooBig) => return this.fail(Fault::TooBig),
        };
        if let Err(wait) = this.allowance.pay(piece) {
            return this.hold_back(wait, cx);
        }
        (this.position, this.timer) = (position, None);
        this.is_turn_over = piece.is_last;
        Poll::Ready(Some(Ok(this.held.split_to(piece.bytes))))
    }
}

#[cfg(test)]
mod tests;
