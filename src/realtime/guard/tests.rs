//! The guard as the codec above it polls it: until it is pending, then one frame is taken out.

use futures_util::task::noop_waker;
use futures_util::{StreamExt as _, stream};

use super::position::tests::header;
use super::*;

const RATE: InboundRate = InboundRate {
    frame_bytes: 65_536,
    bytes_per_second: 100_000,
    frames_per_second: 100,
};

type Chunks = stream::LocalBoxStream<'static, Result<Bytes, PayloadError>>;

/// An endless stream of chunks.
fn without_end(chunk: Vec<u8>) -> Chunks {
    stream::repeat_with(move || Ok(Bytes::from(chunk.clone()))).boxed_local()
}

/// What the guard lets through before it is pending.
fn turn(guard: &mut Guard<Chunks>) -> (usize, Option<Result<(), PayloadError>>) {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut bytes = 0;
    loop {
        match Pin::new(&mut *guard).poll_next(&mut cx) {
            Poll::Ready(Some(Ok(piece))) => bytes += piece.len(),
            Poll::Ready(Some(Err(error))) => return (bytes, Some(Err(error))),
            Poll::Ready(None) => return (bytes, Some(Ok(()))),
            Poll::Pending => return (bytes, None),
        }
    }
}

/// Empty, masked pongs: 6 bytes each.
fn pongs(count: usize) -> Vec<u8> {
    [0x8a, 0x80, 1, 2, 3, 4].repeat(count)
}

// X10
#[tokio::test]
async fn frames_are_let_through_one_at_a_time_however_many_wait() {
    let (mut guard, _) = Guard::new(without_end(pongs(5_000)), RATE);
    for _ in 0..100 {
        assert_eq!(turn(&mut guard).0, 6);
    }
}

// X10
#[tokio::test]
async fn empty_frames_are_not_free() {
    let (mut guard, verdict) = Guard::new(without_end(pongs(5_000)), RATE);
    let mut frames = 0;
    loop {
        match turn(&mut guard).0 {
            0 => break,
            bytes => frames += bytes / 6,
        }
    }
    // Four seconds' worth at once, and what was added meanwhile.
    assert!((390..450).contains(&frames), "{frames}");
    assert_eq!(verdict.fault(), Fault::Unknown);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        turn(&mut guard).0,
        6,
        "it goes on when there is an allowance"
    );
}

// X10
#[tokio::test]
async fn the_same_bytes_in_large_and_in_small_frames_are_held_back() {
    for length in [1, 125, 5_000, 60_000] {
        let mut frame = header(length, true);
        frame.extend(vec![b'x'; usize::try_from(length).unwrap()]);
        let (mut guard, _) = Guard::new(without_end(frame.repeat(3)), RATE);
        let mut bytes = 0;
        for _ in 0..10_000 {
            let (more, end) = turn(&mut guard);
            assert!(end.is_none());
            bytes += more;
        }
        assert!(bytes < 500_000, "{bytes} bytes in frames of {length}");
    }
}

// X10
#[tokio::test]
async fn who_is_held_back_for_too_long_is_refused() {
    let (mut guard, verdict) = Guard::new(without_end(pongs(5_000)), RATE);
    let started = Instant::now();
    let end = loop {
        if let (_, Some(end)) = turn(&mut guard) {
            break end;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert!(end.is_err());
    assert_eq!(verdict.fault(), Fault::TooFast);
    assert!(started.elapsed() >= PATIENCE);
}

#[tokio::test]
async fn a_burst_of_the_largest_frames_passes_at_once_and_is_whole() {
    let mut frame = header(65_536, true);
    frame.extend(vec![b'x'; 65_536]);
    let sent = frame.repeat(5);
    let chunks: Vec<_> = sent
        .chunks(1_400)
        .map(Bytes::copy_from_slice)
        .map(Ok)
        .collect();
    let (mut guard, _) = Guard::new(stream::iter(chunks).boxed_local(), RATE);
    let mut received = 0;
    let end = loop {
        let (bytes, end) = turn(&mut guard);
        received += bytes;
        if let Some(end) = end {
            break end;
        }
        assert!(bytes <= frame.len(), "more than one frame at a time");
    };
    assert!(end.is_ok());
    assert_eq!(received, sent.len());
}

#[tokio::test]
async fn a_stream_that_fails_is_told_apart_from_one_that_ends() {
    for fails in [true, false] {
        let mut chunks = vec![Ok(Bytes::from(pongs(2)))];
        if fails {
            chunks.push(Err(PayloadError::Incomplete(None)));
        }
        let (mut guard, verdict) = Guard::new(stream::iter(chunks).boxed_local(), RATE);
        assert_eq!((turn(&mut guard).0, turn(&mut guard).0), (6, 6));
        let (bytes, end) = turn(&mut guard);
        assert_eq!((bytes, end.unwrap().is_err()), (0, fails));
        let expected = if fails { Fault::Broken } else { Fault::Unknown };
        assert_eq!(verdict.fault(), expected);
    }
}
