//! Takeovers, stops and interrupts at random moments of answers that stream, three devices each.

use std::collections::HashMap;
use std::time::Duration;

use hubbub_loadtest::simllm::{self, Behaviour};
use hubbub_protocol::client::{Send, SendMode, Stop};
use hubbub_protocol::{
    ClientFrame, ClientMessageId, ReplyId, ServerFrame, SessionHandler, SessionId,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Device, is_end};
use crate::server::{Setup, TestServer};
use crate::takeover::{operator, release, takeover};

const SEED: u64 = 31;

/// A device that judges every frame it gets.
struct Witness {
    device: Device,
    is_handled: bool,
    ends: HashMap<ReplyId, u32>,
}

impl Witness {
    fn new(device: Device) -> Self {
        Self {
            device,
            is_handled: false,
            ends: HashMap::new(),
        }
    }

    async fn send(&mut self, frame: ClientFrame) {
        self.device.send(&frame).await.unwrap();
    }

    fn see(&mut self, frame: &ServerFrame) {
        let of_bots = match frame {
            ServerFrame::Message(message) => {
                if let Some(reply) = message.reply {
                    *self.ends.entry(reply).or_default() += 1;
                }
                message.reply.is_some()
            }
            ServerFrame::Reply(reply) if is_end(&reply.state) => {
                *self.ends.entry(reply.reply).or_default() += 1;
                false
            }
            ServerFrame::Delta(_) | ServerFrame::Reply(_) => true,
            ServerFrame::Handler(frame) => {
                self.is_handled = matches!(frame.handler, SessionHandler::Operator { .. });
                false
            }
            ServerFrame::Error(error) => panic!("{error:?}"),
            _ => false,
        };
        assert!(
            !(self.is_handled && of_bots),
            "after the handler: {frame:?}"
        );
    }

    async fn until(&mut self, is_it: impl Fn(&ServerFrame) -> bool) {
        loop {
            let frame = self.device.next().await.unwrap();
            self.see(&frame);
            if is_it(&frame) {
                return;
            }
        }
    }

    /// Reads until so many replies have their end.
    async fn until_ends(&mut self, count: usize) {
        while self.ends.len() < count {
            self.until(|_| true).await;
        }
    }

    /// Reads what comes for a while.
    async fn listen(&mut self, while_ms: u64) {
        let quiet = tokio::time::sleep(Duration::from_millis(while_ms));
        tokio::pin!(quiet);
        loop {
            tokio::select! {
                () = &mut quiet => return,
                frame = self.device.next() => self.see(&frame.unwrap()),
            }
        }
    }
}

/// One conversation: a visitor's two devices and an operator's.
struct Conversation {
    session: SessionId,
    devices: [Witness; 3],
    asked: usize,
    rng: StdRng,
    /// From asking for the session to each device's last word of the bot's.
    silences: Vec<Duration>,
}

impl Conversation {
    async fn new(server: &TestServer, n: u64) -> Self {
        let mut first = Device::connect(server).await;
        let session = first.open(server.demo.bot).await.session;
        let mut second = Device::connect(server).await;
        second.join(session).await;
        let mut olga = operator(server, "olga", "agent").await;
        olga.join(session).await;
        Self {
            session,
            devices: [first, second, olga].map(Witness::new),
            asked: 0,
            rng: StdRng::seed_from_u64(SEED * 100_000 + n),
            silences: Vec::new(),
        }
    }

    async fn ask(&mut self, mode: SendMode) {
        self.asked += 1;
        let send = Send {
            reference: None,
            session: self.session,
            id: ClientMessageId::generate(),
            text: format!("question {}", self.asked),
            metadata: None,
            mode,
        };
        self.devices[0].send(ClientFrame::Send(send)).await;
    }

    async fn stop(&mut self) {
        let (reference, session) = (None, self.session);
        let stop = ClientFrame::Stop(Stop { reference, session });
        self.devices[0].send(stop).await;
        self.settle(self.asked).await;
    }

    async fn settle(&mut self, ended: usize) {
        for device in &mut self.devices {
            device.until_ends(ended).await;
        }
    }

    /// Until a word of the answer is there, and a little longer.
    async fn streaming(&mut self) {
        let is_text = |frame: &ServerFrame| matches!(frame, ServerFrame::Delta(_));
        self.devices[2].until(is_text).await;
        let pause = self.rng.random_range(0..60);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn take_over(&mut self) {
        let began = Instant::now();
        self.devices[2].send(takeover(self.session)).await;
        for device in &mut self.devices {
            while !device.is_handled {
                device.until(|_| true).await;
            }
            self.silences.push(began.elapsed());
        }
        self.devices[2].listen(20).await;
        self.settle(self.asked).await;
        self.devices[2].send(release(self.session)).await;
        for device in &mut self.devices {
            while device.is_handled {
                device.until(|_| true).await;
            }
        }
    }

    async fn run(mut self, rounds: u32) -> (usize, Vec<Duration>) {
        for _ in 0..rounds {
            self.ask(SendMode::Queue).await;
            self.streaming().await;
            match self.rng.random_range(0..5) {
                0 => self.stop().await,
                1 => {
                    self.ask(SendMode::Interrupt).await;
                    self.settle(self.asked - 1).await;
                    self.streaming().await;
                    self.stop().await;
                }
                _ => self.take_over().await,
            }
        }
        for device in &mut self.devices {
            device.listen(100).await;
            assert_eq!(device.ends.len(), self.asked, "an end for each question");
            assert!(device.ends.values().all(|ends| *ends == 1), "exactly one");
        }
        (self.asked, self.silences)
    }
}

// P13, R004, R031, R152
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_the_bot_is_shown_or_begun_after_a_takeover() {
    check(6, 10, Duration::from_millis(250)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten thousand rounds: by hand, alone"]
async fn nothing_of_the_bot_is_shown_or_begun_after_ten_thousand_takeovers() {
    check(20, 500, Duration::from_millis(50)).await;
}

async fn check(conversations: u64, rounds: u32, most: Duration) {
    println!("seed {SEED}");
    let behaviour = Behaviour {
        ttft_ms: 20,
        token_interval_ms: 10,
        tokens: 400,
        ..Behaviour::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = simllm::serve(listener, behaviour).unwrap();
    let setup = Setup::default()
        .endpoint("sim", &upstream.base_url())
        .set("limits.messages_per_second", 10_000)
        .set("limits.messages_burst", 10_000);
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let mut running = JoinSet::new();
    for n in 0..conversations {
        running.spawn(Conversation::new(&server, n).await.run(rounds));
    }
    let (mut asked, mut silences) = (0, Vec::new());
    for (questions, of_one) in running.join_all().await {
        asked += questions;
        silences.extend(of_one);
    }
    silences.sort_unstable();
    let at = |percent: usize| silences[(silences.len() * percent / 100).min(silences.len() - 1)];
    let counters = upstream.counters();
    println!(
        "{asked} questions, {} takeovers: from takeover to silence p50 {:?}, p99 {:?}; {counters:?}",
        silences.len() / 3,
        at(50),
        at(99)
    );
    assert!(at(99) <= most, "{:?}", at(99));
    // None of the answers came to its end: every request was closed.
    assert_eq!((counters.running, counters.completed), (0, 0));
    assert_eq!(counters.cancelled, asked as u64);
}
