//! Devices that come and go.

use std::collections::HashMap;
use std::time::Duration;

use hubbub_loadtest::simllm::answer_text;
use hubbub_protocol::client::Join;
use hubbub_protocol::server::Joined;
use hubbub_protocol::{Epoch, MessageFrame, ReplyId, Role, Seq, ServerFrame, SessionId};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::client::{Caller, Device, of};
use crate::server::{TestServer, shared};

/// What a device keeps of a session, as a widget does; panics at a gap, a repeat or a wrong offset.
#[derive(Debug, Default)]
pub struct Held {
    /// Messages in the order they came.
    pub messages: Vec<MessageFrame>,
    /// Text of replies that have not ended.
    pub streams: HashMap<ReplyId, String>,
    epoch: Option<Epoch>,
}

impl Held {
    /// The join that goes on from here.
    pub fn join(&self, session: SessionId) -> Join {
        let after = Some(self.messages.last().map_or(Seq(0), |message| message.seq));
        Join {
            after,
            epoch: self.epoch,
            limit: Some(200),
            ..of(session)
        }
    }

    /// Takes the answer to a join.
    pub fn joined(&mut self, joined: Joined) {
        assert!(!joined.resync && !joined.more, "{joined:?}");
        self.epoch = Some(joined.epoch);
        self.streams.clear();
        for message in joined.messages {
            self.message(message);
        }
        assert_eq!(
            self.messages.len() as u64,
            joined.head.0,
            "the head is not what came"
        );
        if let Some(running) = joined.replying {
            self.streams.insert(running.reply, running.text);
        }
    }

    /// Takes the beginning of what was missed, where one answer cannot hold all of it.
    pub fn resumed(&mut self, joined: Joined) {
        self.epoch = Some(joined.epoch);
        for message in joined.messages {
            self.message(message);
        }
    }

    /// Takes a frame.
    pub fn take(&mut self, frame: ServerFrame) {
        match frame {
            ServerFrame::Message(message) => self.message(message),
            ServerFrame::Delta(delta) => {
                let text = self.streams.entry(delta.reply).or_default();
                assert_eq!(text.encode_utf16().count() as u64, delta.offset, "{text}");
                text.push_str(&delta.text);
            }
            _ => {}
        }
    }

    fn message(&mut self, message: MessageFrame) {
        assert_eq!(
            message.seq.0,
            self.messages.len() as u64 + 1,
            "a gap or a repeat"
        );
        if let Some(text) = message.reply.and_then(|reply| self.streams.remove(&reply)) {
            // A stream that was missed in part is a beginning of the text all the same.
            assert!(
                message.text.starts_with(&text),
                "{text} is not of {}",
                message.text
            );
        }
        self.messages.push(message);
    }
}

const QUESTIONS: u64 = 12;

// P4
#[tokio::test]
async fn a_device_that_is_cut_at_any_moment_resumes_without_gap_or_repeat() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let server = shared().await;
    let mut writer = Device::connect(server).await;
    let session = writer.open(server.demo.bot).await.session;
    let mut devices = tokio::task::JoinSet::new();
    for n in 0..4 {
        devices.spawn(flicker(
            server,
            session,
            StdRng::seed_from_u64(seed.wrapping_add(n)),
        ));
    }
    let mut answers = Vec::new();
    for n in 0..QUESTIONS {
        answers.push(writer.ask(session, &format!("question {n}")).await.unwrap());
    }
    let stored = Caller::new(server).transcript(session).await.messages;
    assert_eq!(stored.len() as u64, 2 * QUESTIONS);
    let mut cuts = 0;
    while let Some(device) = devices.join_next().await {
        let (held, device_cuts) = device.unwrap();
        assert_eq!(held, stored, "seed {seed}");
        cuts += device_cuts;
    }
    let said: Vec<_> = stored
        .into_iter()
        .filter(|m| m.role == Role::Assistant)
        .collect();
    assert_eq!(said, answers);
    println!("{cuts} cuts");
    assert!(cuts >= 8, "the test cut nothing: {cuts}");
}

/// Reads a session to its end, through many connections, each cut at a random moment.
async fn flicker(
    server: &TestServer,
    session: SessionId,
    mut random: StdRng,
) -> (Vec<MessageFrame>, u32) {
    let (mut held, mut cuts) = (Held::default(), 0);
    loop {
        let mut device = Device::connect(server).await;
        held.joined(device.try_join(held.join(session)).await.unwrap());
        let lives = Duration::from_millis(random.random_range(1..150));
        let read = async {
            while held.messages.len() as u64 != 2 * QUESTIONS {
                held.take(device.next().await.unwrap());
            }
        };
        if tokio::time::timeout(lives, read).await.is_ok() {
            return (held.messages, cuts);
        }
        // Dropped, without a close: the server finds out by itself.
        cuts += 1;
    }
}

#[tokio::test]
async fn a_device_that_joins_in_mid_answer_gets_all_of_it() {
    let server = shared().await;
    let bot = Caller::new(server).bot(&["steady"]).await;
    let mut first = Device::connect(server).await;
    let session = first.open(bot).await.session;
    first.say(session, "long").await.unwrap();
    first
        .until(|frame| matches!(frame, ServerFrame::Delta(_)).then_some(()))
        .await;
    let mut late = Device::connect(server).await;
    let mut held = Held::default();
    let joined = late.try_join(held.join(session)).await.unwrap();
    let running = joined
        .replying
        .clone()
        .expect("the answer is being written");
    assert!(!running.text.is_empty());
    held.joined(joined);
    let mut text = String::new();
    while held.messages.len() < 2 {
        if let Some(longer) = held.streams.get(&running.reply) {
            text.clone_from(longer);
        }
        held.take(late.next().await.unwrap());
    }
    assert_eq!(text, answer_text("long", 60));
    assert_eq!(held.messages[1].text, text);
}

#[tokio::test]
async fn a_device_that_missed_more_than_one_answer_holds_is_told_and_pages() {
    let server = shared().await;
    let caller = Caller::new(server);
    let mut device = Device::connect(server).await;
    let session = device.open(caller.bot(&[]).await).await.session;
    for n in 0..12 {
        device.say(session, &format!("{n}")).await.unwrap();
    }
    let mut late = Device::connect(server).await;
    let join = Join {
        after: Some(Seq(2)),
        limit: Some(4),
        ..of(session)
    };
    let joined = late.try_join(join).await.unwrap();
    let seqs: Vec<u64> = joined
        .messages
        .iter()
        .map(|message| message.seq.0)
        .collect();
    assert!(joined.more);
    assert_eq!((joined.head.0, seqs.len()), (12, 4));
    assert!(seqs.windows(2).all(|two| two[0] + 1 == two[1]), "{seqs:?}");
    // Newest when nothing is held.
    let newest = late
        .try_join(Join {
            limit: Some(4),
            ..of(session)
        })
        .await
        .unwrap();
    let seqs: Vec<u64> = newest
        .messages
        .iter()
        .map(|message| message.seq.0)
        .collect();
    assert_eq!(seqs, [9, 10, 11, 12]);
    assert!(newest.more);
}
