//! Where the server is killed: places in its transactions, and moments that its visitors see.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Notify;

use crate::pg_proxy::{Place, Stop};

/// Something a visitor has just done or seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A message was handed to the network.
    Sent,
    /// A message was acknowledged.
    Acknowledged,
    /// The first piece of an answer.
    FirstDelta,
    /// A piece of an answer that is neither first nor last.
    MidStream,
    /// The last piece of an answer, before the message that ends it.
    LastDelta,
    /// The message that ends an answer.
    Answered,
}

/// When a point is reached.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// The server's transaction is there.
    Place(Place),
    /// A visitor sees it.
    Sight(Sight),
    /// A visitor sees it once the server's transaction is held back there.
    Frozen(Place, Sight),
    /// So many milliseconds at most after the chats began.
    Within(u64),
    /// A second time, when the server that was started after a kill in mid-stream is there.
    Recovery(Place),
}

/// A named point.
pub struct Point {
    pub name: &'static str,
    pub at: At,
}

const LOCKS: &str =
    "FROM sessions s WHERE s.tenant_id = k.tenant_id AND s.id = k.id FOR NO KEY UPDATE";
const INSERT: &str = "INSERT INTO messages";
/// Stored with every visitor's message that a bot answers.
const OWE: &str = "INSERT INTO replies";
/// Stored with every reply's end.
const END: &str = "UPDATE replies r SET state = t.state";
const RENEW: &str = "INSERT INTO nodes";
const RELEASE: &str = "DELETE FROM nodes WHERE id";
const CLAIM: &str = "UPDATE replies r SET node_id";
const COMMIT: &str = "COMMIT";
/// A message that is a statement of its own, and the end of a reply that is.
const MESSAGE_ALONE: &str = "WITH said AS";
const END_ALONE: &str = "held AS MATERIALIZED";

/// A place in the message writer's transaction.
const fn place(behind: &'static str, statement: &'static str, stop: Stop) -> Place {
    Place {
        application: "hubbub-writer",
        behind,
        statement,
        stop,
    }
}

const fn point(name: &'static str, at: At) -> Point {
    Point { name, at }
}

/// In the order in which a message passes them.
pub const POINTS: &[Point] = &[
    point("message-sent", At::Sight(Sight::Sent)),
    point(
        "before-message-alone",
        At::Place(place("", MESSAGE_ALONE, Stop::Unsent)),
    ),
    point(
        "message-alone-unanswered",
        At::Place(place("", MESSAGE_ALONE, Stop::Unanswered)),
    ),
    point(
        "message-alone-answered",
        At::Place(place("", MESSAGE_ALONE, Stop::Answered)),
    ),
    point("before-begin", At::Place(place("", LOCKS, Stop::Begin))),
    point("before-locks", At::Place(place("", LOCKS, Stop::Unsent))),
    point("locks-held", At::Place(place("", LOCKS, Stop::Unanswered))),
    point(
        "before-insert",
        At::Place(place(LOCKS, INSERT, Stop::Unsent)),
    ),
    point("half-inserted", At::Place(place(INSERT, OWE, Stop::Unsent))),
    point(
        "insert-unanswered",
        At::Place(place(INSERT, OWE, Stop::Unanswered)),
    ),
    point("before-commit", At::Place(place(OWE, COMMIT, Stop::Unsent))),
    point("commit-late", At::Place(place(OWE, COMMIT, Stop::Late))),
    point(
        "commit-unanswered",
        At::Place(place(OWE, COMMIT, Stop::Unanswered)),
    ),
    point(
        "commit-answered",
        At::Place(place(OWE, COMMIT, Stop::Answered)),
    ),
    point("ack-received", At::Sight(Sight::Acknowledged)),
    point("first-delta", At::Sight(Sight::FirstDelta)),
    point("mid-stream", At::Sight(Sight::MidStream)),
    point(
        "last-delta",
        At::Frozen(place(END, COMMIT, Stop::Unsent), Sight::LastDelta),
    ),
    point(
        "before-reply-end",
        At::Place(place(INSERT, END, Stop::Unsent)),
    ),
    point(
        "before-reply-commit",
        At::Place(place(END, COMMIT, Stop::Unsent)),
    ),
    point(
        "reply-commit-late",
        At::Place(place(END, COMMIT, Stop::Late)),
    ),
    point(
        "reply-commit-unanswered",
        At::Place(place(END, COMMIT, Stop::Unanswered)),
    ),
    point(
        "reply-committed",
        At::Place(place(END, COMMIT, Stop::Answered)),
    ),
    point(
        "before-reply-alone",
        At::Place(place("", END_ALONE, Stop::Unsent)),
    ),
    point(
        "reply-alone-unanswered",
        At::Place(place("", END_ALONE, Stop::Unanswered)),
    ),
    point(
        "reply-alone-answered",
        At::Place(place("", END_ALONE, Stop::Answered)),
    ),
    point("reply-received", At::Sight(Sight::Answered)),
    point("any-moment", At::Within(600)),
    point(
        "lease-unanswered",
        At::Recovery(place(RENEW, COMMIT, Stop::Unanswered)),
    ),
    point(
        "release-unanswered",
        At::Recovery(place(RELEASE, COMMIT, Stop::Unanswered)),
    ),
    point("before-claim", At::Recovery(place("", CLAIM, Stop::Unsent))),
    point(
        "claim-unanswered",
        At::Recovery(place(CLAIM, COMMIT, Stop::Unanswered)),
    ),
    point("claim-late", At::Recovery(place(CLAIM, COMMIT, Stop::Late))),
    point(
        "before-orphans-end",
        At::Recovery(place(END, COMMIT, Stop::Unsent)),
    ),
    point(
        "orphans-end-late",
        At::Recovery(place(END, COMMIT, Stop::Late)),
    ),
    point(
        "orphans-end-unanswered",
        At::Recovery(place(END, COMMIT, Stop::Unanswered)),
    ),
];

/// No point of a product that keeps its word: a message is acknowledged that was never committed.
pub const LIE: &Point = &point(
    "lie",
    At::Frozen(place(OWE, COMMIT, Stop::Forged), Sight::MidStream),
);

impl Point {
    /// Servers that are killed.
    pub fn kills(&self) -> usize {
        1 + usize::from(matches!(self.at, At::Recovery(_)))
    }

    /// Whether a transaction of the dead server is still to be committed.
    pub fn is_late(&self) -> bool {
        match self.at {
            At::Place(place) | At::Recovery(place) => place.stop == Stop::Late,
            At::Sight(_) | At::Frozen(..) | At::Within(_) => false,
        }
    }
}

/// Kills a process once, at its point.
pub struct Trigger {
    pid: u32,
    sight: Option<Sight>,
    /// Sights count.
    is_open: AtomicBool,
    /// How often the sight is passed over.
    skip: AtomicU32,
    /// The tag of PostgreSQL's answer there.
    fired: Mutex<Option<String>>,
    told: Notify,
}

impl Trigger {
    pub fn new(pid: u32, at: At, skip: u32) -> Self {
        let (sight, skip) = match at {
            At::Sight(sight) => (Some(sight), skip),
            At::Recovery(_) => (Some(Sight::MidStream), skip),
            At::Frozen(_, sight) => (Some(sight), 0),
            At::Place(_) | At::Within(_) => (None, 0),
        };
        Self {
            pid,
            sight,
            is_open: AtomicBool::new(matches!(at, At::Sight(_) | At::Recovery(_))),
            skip: AtomicU32::new(skip),
            fired: Mutex::new(None),
            told: Notify::new(),
        }
    }

    /// From now on, sights count.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// A visitor saw something.
    pub fn see(&self, sight: Sight) {
        let order = Ordering::Relaxed;
        let counts = self.sight == Some(sight) && self.is_open.load(order);
        let pass = |skip: u32| skip.checked_sub(1);
        if counts && self.skip.try_update(order, order, pass).is_err() {
            self.fire("");
        }
    }

    /// Kills, the first time.
    pub fn fire(&self, tag: &str) {
        let mut fired = self.fired.lock().unwrap();
        if fired.is_none() {
            let pid = Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            *fired = Some(tag.to_owned());
            self.told.notify_one();
        }
    }

    /// Waits for the kill; answers the tag.
    pub async fn fired(&self) -> String {
        self.told.notified().await;
        self.fired.lock().unwrap().clone().unwrap()
    }
}
