//! Floods over WebSockets.

use std::time::Duration;

use futures_util::future::join_all;
use hubbub_protocol::client::{Join, Leave};
use hubbub_protocol::{ClientFrame, ClientMessageId, ServerFrame, SessionId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::attack::{Outcome, Stop, Target};
use crate::client::{Credentials, Device, message};
use crate::upstream::{NOTHING, THINK};

/// A flooding visitor comes back soon after it was closed or refused.
const COME_BACK: Duration = Duration::from_millis(200);

/// Connections of one visitor, in groups that are opened together.
const GROUPS: usize = 30;
const GROUP: usize = 40;

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    // Masked with zeros.
    let mut bytes = vec![
        first,
        0x80 | u8::try_from(payload.len()).unwrap(),
        0,
        0,
        0,
        0,
    ];
    bytes.extend(payload);
    bytes
}

/// A connection by hand; none if the handshake is refused.
async fn upgrade(target: &Target) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(target.address).await.ok()?;
    let request = format!(
        "GET /v1/connect HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: hubbub.v1\r\nAuthorization: Bearer {}\r\n\r\n",
        target.address, target.token
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.ok()?;
    (head == *b"HTTP/1.1 101").then_some(stream)
}

/// Writes the same bytes over and over, and reads what comes back, or does not.
async fn repeat(target: Target, stop: Stop, bytes: Vec<u8>, reads: bool) -> Outcome {
    let mut outcome = Outcome::default();
    while !stop.is_told() {
        let Some(stream) = upgrade(&target).await else {
            outcome.told += 1;
            tokio::time::sleep(COME_BACK).await;
            continue;
        };
        let (mut read, mut write) = stream.into_split();
        let writing = async {
            let mut at = 0;
            // From where it was interrupted, or the frames would not be frames.
            while let Ok(written) = write.write(&bytes[at..]).await {
                at = (at + written) % bytes.len();
                outcome.taken += u64::try_from(written).unwrap();
                // Who writes without a pause would not notice when to stop.
                tokio::task::yield_now().await;
            }
        };
        let reading = async {
            let mut buffer = vec![0; 64 * 1024];
            while reads && matches!(read.read(&mut buffer).await, Ok(read) if read > 0) {}
            if !reads {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = writing => outcome.closed += 1,
            () = reading => outcome.closed += 1,
            () = stop.told() => {}
        }
    }
    outcome
}

/// Empty pongs.
pub async fn pongs(target: Target, stop: Stop) -> Outcome {
    repeat(target, stop, frame(0x8a, b"").repeat(10_000), true).await
}

async fn typing(target: Target, stop: Stop, reads: bool) -> Outcome {
    let typing = format!(
        r#"{{"type":"typing","session":"{}","on":true}}"#,
        SessionId::generate()
    );
    let frames = frame(0x81, typing.as_bytes()).repeat(500);
    repeat(target, stop, frames, reads).await
}

/// Frames that are valid, and errors that are read.
pub async fn typing_and_reading(target: Target, stop: Stop) -> Outcome {
    typing(target, stop, true).await
}

/// Frames that are valid, and errors that are not read.
pub async fn typing_without_reading(target: Target, stop: Stop) -> Outcome {
    let mut outcome = typing(target, stop, false).await;
    // Held back is as good as told for somebody who does not listen.
    outcome.told += u64::from(outcome.taken < 16 * 1024 * 1024);
    outcome
}

async fn connect(target: &Target) -> Option<Device> {
    let bearer = Credentials::Bearer(target.token.clone());
    Device::connect_as(target.address, &bearer).await.ok()
}

/// Twelve hundred connections, each held if it can be had.
pub async fn connections(target: Target, stop: Stop) -> Outcome {
    let (mut held, mut outcome) = (Vec::new(), Outcome::default());
    for _ in 0..GROUPS {
        for opened in join_all((0..GROUP).map(|_| upgrade(&target))).await {
            match opened {
                Some(stream) => held.push(stream),
                None => outcome.told += 1,
            }
        }
    }
    stop.told().await;
    outcome.taken = u64::try_from(held.len()).unwrap();
    outcome
}

/// Twenty connections, each with as many sessions as it may have, and a question in every one.
pub async fn sessions_without_end(target: Target, stop: Stop) -> Outcome {
    ask_everywhere(target, stop, 20, 32, "and? and? and?").await
}

/// A few sessions full of questions that no model answers with a word.
pub async fn worst_prompts(target: Target, stop: Stop) -> Outcome {
    let (think, nothing) = (target.clone(), target);
    let (mut outcome, other) = tokio::join!(
        ask_everywhere(think, stop.clone(), 1, 4, THINK),
        ask_everywhere(nothing, stop, 1, 4, NOTHING),
    );
    outcome.add(&other);
    outcome
}

async fn ask_everywhere(
    target: Target,
    stop: Stop,
    connections: usize,
    sessions: usize,
    text: &'static str,
) -> Outcome {
    let ask = async |device, outcome: &mut Outcome| {
        ask_in_all(device, &target, sessions, text, outcome).await;
    };
    come_back(&target, &stop, connections, ask).await
}

/// So many connections, each opened again soon after it was closed or refused.
async fn come_back(
    target: &Target,
    stop: &Stop,
    connections: usize,
    act: impl AsyncFn(Device, &mut Outcome),
) -> Outcome {
    let connections = (0..connections).map(|_| async {
        let mut outcome = Outcome::default();
        while !stop.is_told() {
            let Some(device) = connect(target).await else {
                outcome.told += 1;
                tokio::time::sleep(COME_BACK).await;
                continue;
            };
            tokio::select! {
                () = act(device, &mut outcome) => {}
                () = stop.told() => {}
            }
        }
        outcome
    });
    let mut sum = Outcome::default();
    for outcome in join_all(connections).await {
        sum.add(&outcome);
    }
    sum
}

/// Opens sessions and asks in each, again whenever something was answered or refused, until it is closed.
async fn ask_in_all(
    mut device: Device,
    target: &Target,
    sessions: usize,
    text: &str,
    outcome: &mut Outcome,
) {
    let open = ClientFrame::Join(Join {
        bot: Some(target.bot),
        ..Join::default()
    });
    let ask = |session| message(session, ClientMessageId::generate(), text, None);
    for _ in 0..sessions {
        if device.send(&open).await.is_err() {
            break;
        }
    }
    loop {
        let next = match device.next().await {
            Ok(ServerFrame::Joined(joined)) => ask(joined.session),
            Ok(ServerFrame::Error(refused)) => {
                outcome.told += 1;
                refused.session.map_or(open.clone(), ask)
            }
            Ok(ServerFrame::Ack(ack)) => {
                outcome.taken += 1;
                ask(ack.session)
            }
            Ok(_) => continue,
            Err(_) => {
                outcome.closed += 1;
                return;
            }
        };
        if device.send(&next).await.is_err() {
            outcome.closed += 1;
            return;
        }
    }
}

/// Everything at once that a script with one widget's ticket can think of: sessions opened and left, joined again
/// and again so that everybody's presence changes, texts of 64 KiB into all of them, and more tickets.
pub async fn bad_manners(target: Target, stop: Stop) -> Outcome {
    let come_and_go = async |device, outcome: &mut Outcome| {
        come_and_go(device, &target, outcome).await;
    };
    let (mut sum, tickets) = tokio::join!(
        come_back(&target, &stop, 8, come_and_go),
        super::http::tickets(target.clone(), stop.clone())
    );
    sum.add(&tickets);
    sum
}

async fn come_and_go(mut device: Device, target: &Target, outcome: &mut Outcome) {
    // Four bytes each, as many as a text may have.
    let text = "😀".repeat(16_000);
    let open = ClientFrame::Join(Join {
        bot: Some(target.bot),
        ..Join::default()
    });
    let again = |session| {
        ClientFrame::Join(Join {
            session: Some(session),
            limit: Some(200),
            ..Join::default()
        })
    };
    let leave = |session| {
        ClientFrame::Leave(Leave {
            reference: None,
            session,
        })
    };
    for _ in 0..32 {
        if device.send(&open).await.is_err() {
            break;
        }
    }
    // Refused everything, it hears nothing more: then it comes back as somebody new.
    while let Ok(next) = tokio::time::timeout(Duration::from_secs(2), device.next()).await {
        let next = match next {
            Ok(ServerFrame::Joined(joined)) => vec![
                message(joined.session, ClientMessageId::generate(), &text, None),
                leave(joined.session),
            ],
            Ok(ServerFrame::Left(left)) => vec![again(left.session), open.clone()],
            Ok(ServerFrame::Ack(_)) => {
                outcome.taken += 1;
                continue;
            }
            Ok(ServerFrame::Error(refused)) => {
                outcome.told += 1;
                refused
                    .session
                    .map_or_else(Vec::new, |session| vec![again(session)])
            }
            Ok(_) => continue,
            Err(_) => {
                outcome.closed += 1;
                return;
            }
        };
        for frame in next {
            if device.send(&frame).await.is_err() {
                outcome.closed += 1;
                return;
            }
        }
    }
}
