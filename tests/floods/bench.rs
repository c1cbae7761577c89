//! A server with victims, who ask one question after the other and note how long they wait.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hubbub_protocol::{BotId, ClientMessageId, ServerFrame, SessionId};

use crate::attack::{Outcome, Target};
use crate::client::{Caller, Credentials, Device, message};
use crate::server::{Setup, TestServer};
use crate::tenant::another_tenant;
use crate::upstream;

/// How long the victims are watched before a flood, and after it.
const QUIET: Duration = Duration::from_secs(4);

/// A victim's pause between an answer and its next question.
const PAUSE: Duration = Duration::from_millis(40);

/// How often it is asked whether the server lives, and what memory it takes.
const LOOK: Duration = Duration::from_millis(50);

/// On top of twice the quiet value. Server, database, upstream, victims and attacker share two cores, so a
/// thread that has been asleep may wait for several slices of the scheduler (3 ms each) at each of the dozen
/// hand-overs between a question and its first word. What the floods did before is seconds.
const ALLOWANCE: Duration = Duration::from_millis(250);

/// Longest that `/livez` may take, by a connection of its own.
const LIVE: Duration = Duration::from_millis(250);

/// Most memory that a flood may cost, in KiB.
const MEMORY: u64 = 64 * 1024;

pub struct Bench {
    server: TestServer,
    /// Who waits, and for whom: visitors of the attacker's own tenant, and as many of another tenant's.
    victims: Vec<(Credentials, BotId)>,
}

/// What was noted.
#[derive(Debug, Default)]
pub struct Figures {
    acks: Vec<Duration>,
    first_words: Vec<Duration>,
    live: Vec<Duration>,
    most_kib: u64,
}

impl Bench {
    /// So many victims of either tenant, slots for six more, and every limit as it is by default.
    pub async fn start(first_word: Duration, victims: usize) -> Self {
        let (url, slots) = (upstream::start(first_word), 2 * victims + 6);
        let upstreams = format!(r#"[{{name="sim", base_url="{url}", model="m", slots={slots}}}]"#);
        let server = tokio::task::spawn_blocking(move || {
            Setup::default().set("upstreams", upstreams).start()
        });
        let server = server.await.unwrap();
        let (key, other_bot) = another_tenant(&server).await;
        let own_bot = server.demo.bot;
        let mut all = Vec::new();
        for _ in 0..victims {
            let (_, token) = Caller::with(&server, None).visitor(own_bot).await;
            all.push((Credentials::Bearer(token), own_bot));
            all.push((Credentials::Bearer(key.clone()), other_bot));
        }
        Self {
            server,
            victims: all,
        }
    }

    /// An anonymous visitor who means no good.
    pub async fn target(&self) -> Target {
        let bot = self.server.demo.bot;
        let (_, token) = Caller::with(&self.server, None).visitor(bot).await;
        Target {
            address: self.server.address,
            bot,
            token,
        }
    }

    /// What the victims meet when nothing else happens.
    pub async fn quiet(&self) -> Figures {
        // The first questions of a server are slower: statements are planned, pages of memory are new.
        self.measure(Duration::from_secs(1)).await;
        self.measure(QUIET).await
    }

    /// What the victims meet for a while.
    pub async fn measure(&self, during: Duration) -> Figures {
        let until = Instant::now() + during;
        let victims = self.victims.iter();
        let asking = join_all(victims.map(|(who, bot)| self.ask_until(until, who, *bot)));
        let (asked, mut figures) = tokio::join!(asking, self.look_until(until));
        for victim in asked {
            figures.acks.extend(victim.acks);
            figures.first_words.extend(victim.first_words);
        }
        figures
    }

    async fn ask_until(&self, until: Instant, who: &Credentials, bot: BotId) -> Figures {
        let mut device = Device::connect_as(self.server.address, who).await.unwrap();
        let session = device.open(bot).await.session;
        let mut figures = Figures::default();
        while Instant::now() < until {
            ask(&mut device, session, &mut figures).await;
            tokio::time::sleep(PAUSE).await;
        }
        device.close().await;
        figures
    }

    async fn look_until(&self, until: Instant) -> Figures {
        let mut figures = Figures::default();
        while Instant::now() < until {
            let asked = Instant::now();
            let answer = Caller::with(&self.server, None).get("/livez").await;
            assert_eq!(answer.status, 200);
            figures.live.push(asked.elapsed());
            figures.most_kib = figures.most_kib.max(self.server.rss_kib());
            tokio::time::sleep(LOOK).await;
        }
        figures
    }

    /// Holds what the victims met against what they may meet.
    pub async fn judge(&self, quiet: &Figures, under: &Figures, outcome: &Outcome) {
        let mut after = self.measure(QUIET / 2).await;
        // So few questions are judged by the slowest: a stall of the machine passes, harm that lasts does not.
        let is_slow = |(_, now, before): (_, Duration, Duration)| now > before * 2 + ALLOWANCE;
        if compared(&after, quiet).into_iter().any(is_slow) {
            println!("after: {}; once more", after.summary());
            after = self.measure(QUIET / 2).await;
        }
        println!("quiet: {}", quiet.summary());
        println!("flood: {}", under.summary());
        println!("after: {}", after.summary());
        println!("the flooding visitor: {outcome:?}");
        for (when, met) in [("flood", under), ("after", &after)] {
            for (what, now, before) in compared(met, quiet) {
                let most = before * 2 + ALLOWANCE;
                assert!(now <= most, "{when}: {what} after {now:?}, not {most:?}");
            }
        }
        let live = under.live.iter().max().unwrap();
        assert!(*live <= LIVE, "/livez took {live:?}");
        let grown = under
            .most_kib
            .max(after.most_kib)
            .saturating_sub(quiet.most_kib);
        assert!(grown <= MEMORY, "{grown} KiB more");
        assert!(
            outcome.told + outcome.closed > 0,
            "nobody stopped it: {outcome:?}"
        );
        let metrics = Caller::with(&self.server, None).get("/metrics").await.text;
        let open = metrics
            .lines()
            .find(|line| line.starts_with("hubbub_llm_breaker_open{") && !line.ends_with(" 0"));
        assert_eq!(open, None, "a breaker opened");
    }
}

impl Figures {
    pub fn first_word_p99(&self) -> Duration {
        p99(&self.first_words)
    }

    pub fn summary(&self) -> String {
        format!(
            "{} questions, ack p99 {:?}, first word p99 {:?}, livez at most {:?}, {} KiB",
            self.acks.len(),
            p99(&self.acks),
            p99(&self.first_words),
            self.live.iter().max().unwrap(),
            self.most_kib,
        )
    }
}

/// Asks, and waits for the whole answer.
async fn ask(device: &mut Device, session: SessionId, figures: &mut Figures) {
    let asked = Instant::now();
    let id = ClientMessageId::generate();
    let question = message(session, id, "how are you?", None);
    device.send(&question).await.unwrap();
    let (mut is_acked, mut has_word) = (false, false);
    loop {
        match device.next().await.unwrap() {
            ServerFrame::Ack(ack) if ack.id == id => {
                figures.acks.push(asked.elapsed());
                is_acked = true;
            }
            ServerFrame::Delta(_) if !has_word => {
                figures.first_words.push(asked.elapsed());
                has_word = true;
            }
            ServerFrame::Message(message) if message.reply.is_some() => {
                assert!(is_acked && has_word);
                return;
            }
            ServerFrame::Error(error) => panic!("a victim was refused: {error:?}"),
            ServerFrame::Reply(reply) if crate::client::is_end(&reply.state) => {
                panic!("a victim got no answer: {reply:?}")
            }
            _ => {}
        }
    }
}

/// What is held against its quiet value: its name, what it is now, and what it was.
fn compared(now: &Figures, quiet: &Figures) -> [(&'static str, Duration, Duration); 2] {
    [
        ("ack", p99(&now.acks), p99(&quiet.acks)),
        ("first word", p99(&now.first_words), p99(&quiet.first_words)),
    ]
}

fn p99(figures: &[Duration]) -> Duration {
    let mut sorted = figures.to_vec();
    sorted.sort();
    let rank = (sorted.len() * 99).div_ceil(100);
    sorted[rank - 1]
}
