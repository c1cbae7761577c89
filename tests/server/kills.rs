//! The server killed with SIGKILL at named points of its work, and started again on the same data.
//!
//! Nothing in the product helps: the points lie in its conversation with PostgreSQL, which goes through
//! a proxy, and in what visitors see. The seed chooses the order of the points, how often each is passed
//! before it counts, and the moments; the operating system's own timing it cannot choose.

#[path = "kills/points.rs"]
mod points;
#[path = "kills/visitor.rs"]
mod visitor;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::Behaviour;
use hubbub_protocol::SessionId;
use hubbub_storage::private::PrivateCluster;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{Barrier, oneshot};
use tokio::task::JoinSet;

use crate::client::{Caller, Device, in_time};
use crate::crash::{Acknowledged, assert_kept, wait_for_ends};
use crate::pg_proxy::{PgProxy, Place};
use crate::postgres::{self, OwnFolder};
use crate::server::{Setup, TestServer, quick};
use points::{At, POINTS, Point, Trigger};
use visitor::Visitor;

const VISITORS: usize = 4;
const SESSIONS_EACH: usize = 3;
/// Most times a point is passed before it counts.
const SKIP_MAX: u32 = 8;
/// Longest wait for a point.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait, after the last restart, for the ends of what dead servers were writing: their leases
/// last 15 s.
const HEALED: Duration = Duration::from_secs(40);
/// Sessions that one device watches to their end; the server allows 32.
const SESSIONS_A_DEVICE: usize = 24;
/// Kills between two looks at the ends of replies.
const KILLS_A_LOOK: usize = 60;

/// A server that reaches its database through a proxy.
struct Rig {
    server: TestServer,
    proxy: PgProxy,
    cluster: PrivateCluster,
    random: StdRng,
    /// Everything acknowledged since the last look.
    acknowledged: Acknowledged,
    figures: BTreeMap<&'static str, Figures>,
    _folder: OwnFolder,
}

/// What a point came to.
#[derive(Default)]
struct Figures {
    kills: usize,
    /// Messages acknowledged before or after the kill; all are there.
    acknowledged: usize,
    /// Messages stored by the dead server, and not acknowledged by it.
    repeats: usize,
    longest_restart: Duration,
}

impl Rig {
    async fn start(seed: u64) -> Self {
        let (cluster, folder) = postgres::own_cluster().await;
        let proxy = PgProxy::start(cluster.socket_dir().join(".s.PGSQL.5432"));
        let behaviour = Behaviour {
            token_interval_ms: 8,
            ..quick()
        };
        let quoted = |url: String| format!("\"{url}\"");
        let setup = Setup::default()
            .upstream("sim", behaviour)
            .set("database.url", quoted(proxy.url("hubbub_app", "hubbub")))
            .set(
                "database.migration_url",
                quoted(proxy.url("postgres", "hubbub")),
            )
            .set("session.flush_ms", 10)
            .set("limits.messages_per_second", 1_000)
            .set("limits.messages_burst", 1_000);
        let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
        Self {
            server,
            proxy,
            cluster,
            random: StdRng::seed_from_u64(seed),
            acknowledged: Acknowledged::new(),
            figures: BTreeMap::new(),
            _folder: folder,
        }
    }

    /// Chats, kills the server at the point, starts it again, and compares everybody's notes with what
    /// is stored.
    async fn kill_at(mut self, point: &'static Point) -> Self {
        let mut visitors = self.chat(point).await;
        if let At::Recovery(place) = point.at {
            self.die_again(point.name, place).await;
        }
        let restarted = Instant::now();
        let mut rig = tokio::task::spawn_blocking(move || {
            self.server.restart();
            self
        })
        .await
        .unwrap();
        let figures = rig.figures.entry(point.name).or_default();
        figures.kills += point.kills();
        figures.longest_restart = figures.longest_restart.max(restarted.elapsed());
        let address = rig.server.address;
        let coming = visitors
            .iter_mut()
            .map(|visitor| visitor.come_back(address));
        let coming = futures_util::future::join_all(coming);
        if point.is_late() {
            tokio::join!(coming, rig.deliver());
        } else {
            coming.await;
        }
        let caller = Caller::new(&rig.server);
        let figures = rig.figures.entry(point.name).or_default();
        for visitor in &visitors {
            visitor.check(&caller).await;
            let acknowledged = visitor.acknowledged();
            figures.acknowledged += acknowledged.values().map(Vec::len).sum::<usize>();
            figures.repeats += visitor.repeats();
            rig.acknowledged.extend(acknowledged);
        }
        rig
    }

    /// Chats until the server is killed.
    async fn chat(&mut self, point: &Point) -> Vec<Visitor> {
        let skip = self.random.random_range(0..=SKIP_MAX);
        let trigger = Arc::new(Trigger::new(self.server.pid(), point.at, skip));
        let ready = Arc::new(Barrier::new(VISITORS + 1));
        let mut chats = JoinSet::new();
        for _ in 0..VISITORS {
            chats.spawn(Visitor::chat_until_gone(
                self.server.address,
                self.server.demo.api_key.clone(),
                (self.server.demo.bot, SESSIONS_EACH),
                ready.clone(),
                trigger.clone(),
            ));
        }
        // Everybody is there; then everybody begins. What came before counts for nothing.
        in_time(ready.wait()).await;
        let armed = trigger.clone();
        match point.at {
            At::Place(place) => self.proxy.arm(place, skip, move |tag| armed.fire(tag)),
            At::Frozen(place, _) => self.proxy.arm(place, skip, move |_| armed.open()),
            At::Sight(_) | At::Within(_) | At::Recovery(_) => {}
        }
        in_time(ready.wait()).await;
        if let At::Within(most) = point.at {
            let moment = self.random.random_range(0..most);
            tokio::time::sleep(Duration::from_millis(moment)).await;
            trigger.fire("");
        }
        let fired = tokio::time::timeout(PATIENCE, trigger.fired()).await;
        let tag = fired.unwrap_or_else(|_| panic!("{} was never reached", point.name));
        assert_answer(point.name, &tag);
        let visitors = chats.join_all().await;
        self.server.kill();
        self.proxy.disarm();
        visitors
    }

    /// Starts the server and kills it when it has come so far.
    async fn die_again(&mut self, name: &str, place: Place) {
        let (reached, told) = oneshot::channel();
        self.proxy
            .arm(place, 0, move |tag| drop(reached.send(tag.to_owned())));
        self.server.begin_restart();
        let tag = tokio::time::timeout(PATIENCE, told).await;
        let tag = tag.unwrap_or_else(|_| panic!("{name} was never reached"));
        self.server.kill();
        self.proxy.disarm();
        assert_answer(name, &tag.unwrap());
    }

    /// Lets the dead server's transaction commit, when the living one waits for its locks; or soon, if
    /// it does not.
    async fn deliver(&self) {
        let owner = postgres::connect(&self.cluster.superuser_url("hubbub")).await;
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        let patience = Instant::now() + Duration::from_millis(500);
        while owner
            .query_one(waiting, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
            && Instant::now() < patience
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.proxy.deliver().await, "COMMIT");
    }

    /// Waits until every reply has its end, and looks at everything again.
    async fn look(&mut self) {
        let restarted = Instant::now();
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let sessions: Vec<SessionId> = acknowledged.keys().copied().collect();
        let mut devices = JoinSet::new();
        for sessions in sessions.chunks(SESSIONS_A_DEVICE) {
            let (mut device, sessions) = (Device::connect(&self.server).await, sessions.to_vec());
            devices.spawn(async move {
                for session in sessions {
                    wait_for_ends(&mut device, session).await;
                }
            });
        }
        let all = tokio::time::timeout(HEALED, devices.join_all()).await;
        all.expect("a reply has no end");
        let (questions, failed) = assert_kept(&self.server, &acknowledged).await;
        println!(
            "{questions} messages in {} sessions, each with one end: {failed} without a message; all \
             ended within {:?}",
            sessions.len(),
            restarted.elapsed()
        );
    }

    fn report(&self) {
        for (name, figures) in &self.figures {
            let Figures {
                kills,
                acknowledged,
                repeats,
                longest_restart,
            } = figures;
            println!(
                "{name:24} {kills:4} kills, {acknowledged:6} messages acknowledged, 0 lost, {repeats:5} \
                 found stored when sent again, ready after {longest_restart:.1?} at most"
            );
        }
    }
}

/// A commit that was answered was one.
fn assert_answer(name: &str, tag: &str) {
    assert_ne!(tag, "ROLLBACK", "{name}");
}

/// Kills the server at least so many times, at every point about as often.
async fn kill(kills: usize, seed: u64) {
    println!("seed {seed}");
    let began = Instant::now();
    let mut rig = Rig::start(seed).await;
    let mut points: Vec<&'static Point> = Vec::new();
    let (mut done, mut unseen) = (0, 0);
    while done < kills {
        if points.is_empty() {
            points.extend(POINTS);
            points.shuffle(&mut rig.random);
        }
        let point = points.pop().unwrap();
        println!("{done}: {}", point.name);
        rig = rig.kill_at(point).await;
        done += point.kills();
        unseen += point.kills();
        if unseen >= KILLS_A_LOOK || done >= kills {
            rig.look().await;
            unseen = 0;
        }
    }
    rig.report();
    println!("{done} kills in {:?}, seed {seed}", began.elapsed());
}

// P1, P4, P5, R009
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_a_kill_at_every_point() {
    let once_each = POINTS.iter().map(Point::kills).sum();
    kill(once_each, rand::random()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[should_panic(expected = "the server broke its word")]
async fn an_acknowledged_message_that_was_lost_is_noticed() {
    let mut rig = Rig::start(1).await;
    // A lie that reached nobody is none: whoever has no ack sends the message again.
    for _ in 0..5 {
        rig = rig.kill_at(points::LIE).await;
        rig.look().await;
    }
}

// P1, by hand: make chaos KILLS=1000 SEED=1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn what_is_acknowledged_survives_many_kills() {
    let number = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let kills = number("KILLS").map_or(200, |kills| kills.parse().unwrap());
    let seed = number("SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
    kill(kills, seed).await;
}
