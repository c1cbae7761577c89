//! A proxy between a server and PostgreSQL that understands just enough of the wire protocol (version
//! 3, plain text) to stop at a named place in a transaction, so that a process can be killed exactly
//! there without a word of it in the product.
//!
//! Started by a test, on a thread of its own so that a blocked test does not blur the place; ends with
//! it. Holds nothing but bytes on their way.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[path = "pg_proxy/link.rs"]
mod link;

use link::Link;

/// Longest wait for PostgreSQL's answer to a late COMMIT.
const PATIENCE: Duration = Duration::from_secs(10);

static THREAD: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
});

/// A place in a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The connection's `application_name`.
    pub application: &'static str,
    /// Part of a statement that the transaction has sent before; empty: none needed.
    pub behind: &'static str,
    /// Part of the statement itself.
    pub statement: &'static str,
    /// What is held back there.
    pub stop: Stop,
}

/// What is held back at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The transaction's BEGIN, and everything after it.
    Begin,
    /// The statement, and everything after it.
    Unsent,
    /// As `Unsent`, of a COMMIT that still arrives when its sender is dead: see [`PgProxy::deliver`].
    Late,
    /// The answer. The statement was executed.
    Unanswered,
    /// Nothing: the answer has just been passed on.
    Answered,
    /// A COMMIT, which is answered with a lie: what was committed is lost. Shows that a test would see.
    Forged,
}

/// What is done at a place; told the tag of the answer (`COMMIT`), if there is one.
type Reached = Box<dyn FnOnce(&str) + Send>;

struct Armed {
    place: Place,
    /// How many times it is passed before it counts.
    skip: u32,
    reached: Reached,
}

/// What became of what was held back for [`PgProxy::deliver`].
#[derive(Clone, Debug, PartialEq)]
enum Delivery {
    Nothing,
    Held,
    Wanted,
    Done(String),
}

struct Shared {
    socket: PathBuf,
    armed: Mutex<Option<Armed>>,
    late: watch::Sender<Delivery>,
}

/// A running proxy.
pub struct PgProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

impl PgProxy {
    /// Starts one in front of the PostgreSQL that listens on `socket`.
    pub fn start(socket: PathBuf) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            socket,
            armed: Mutex::new(None),
            late: watch::Sender::new(Delivery::Nothing),
        });
        let accept = THREAD.spawn(accept(listener, shared.clone()));
        Self {
            address,
            shared,
            accept,
        }
    }

    /// The URL of a database behind it.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@{}/{database}", self.address)
    }

    /// Stops at a place once, after having passed it `skip` times, and calls `reached` there.
    pub fn arm(&self, place: Place, skip: u32, reached: impl FnOnce(&str) + Send + 'static) {
        self.shared.late.send_replace(Delivery::Nothing);
        let reached = Box::new(reached);
        *self.shared.armed.lock().unwrap() = Some(Armed {
            place,
            skip,
            reached,
        });
    }

    /// Stops nowhere any more. What is held back stays so.
    pub fn disarm(&self) {
        *self.shared.armed.lock().unwrap() = None;
    }

    /// Sends the COMMIT that was held back with [`Stop::Late`]; answers the tag of PostgreSQL's answer.
    pub async fn deliver(&self) -> String {
        let mut late = self.shared.late.subscribe();
        let held = self.shared.late.send_replace(Delivery::Wanted);
        assert_eq!(held, Delivery::Held, "nothing is held back");
        let done = late.wait_for(|delivery| matches!(delivery, Delivery::Done(_)));
        let done = tokio::time::timeout(PATIENCE, done).await;
        match done.expect("PostgreSQL did not answer").unwrap().clone() {
            Delivery::Done(tag) => tag,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for PgProxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (server, _) = listener.accept().await.unwrap();
        server.set_nodelay(true).unwrap();
        let shared = shared.clone();
        tokio::spawn(async move {
            // A connection that breaks is what this is for.
            let _broken = relay(server, shared).await;
        });
    }
}

/// Relays a connection until either side ends it.
async fn relay(mut server: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut database = UnixStream::connect(&shared.socket).await?;
    let mut link = Link::new(shared.clone());
    let (mut asked, mut answered) = (BytesMut::new(), BytesMut::new());
    loop {
        tokio::select! {
            read = server.read_buf(&mut asked) => {
                if !matches!(read, Ok(1..)) {
                    break;
                }
                let passed = link.ask(&mut asked);
                database.write_all(&passed).await?;
            }
            read = database.read_buf(&mut answered) => {
                if read? == 0 {
                    return Ok(());
                }
                let passed = link.answer(&mut answered);
                if server.write_all(&passed).await.is_err() {
                    break;
                }
            }
        }
        if let Some(lie) = link.forged() {
            server.write_all(lie).await?;
        }
        link.tell();
    }
    let Some(late) = link.into_late() else {
        return Ok(());
    };
    let mut wanted = shared.late.subscribe();
    drop(wanted.wait_for(|late| *late == Delivery::Wanted).await);
    database.write_all(&late).await?;
    // Behind answers that nobody took any more.
    let mut tag = link::tag(&answered);
    while !matches!(tag.as_str(), "COMMIT" | "ROLLBACK") {
        if database.read_buf(&mut answered).await? == 0 {
            break;
        }
        tag = link::tag(&answered);
    }
    shared.late.send_replace(Delivery::Done(tag));
    Ok(())
}
