//! Every open socket of this node, and which of them wait for their client.
//!
//! A socket is an open file and some memory from the moment it is accepted, long before anybody says who they
//! are. While it waits for a request, or for the rest of one, it costs its client nothing, so there are only so
//! many of those: when there are too many, or files run short, the one that has waited longest is cut, from the
//! network that has the most. Whoever speaks at once is never the one. Sockets whose request is being
//! answered, and WebSockets, are not cut.

mod waiting;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::cut::Cut;
use crate::admission::address::subnet;
use waiting::{Waiter, Waiting};

/// Longest wait for the next request on a socket, and for its head: the library's own limits, with a margin. It
/// keeps no time for the head of a second request, nor for bodies that nobody reads.
const SILENCE: Duration = Duration::from_secs(40);

/// The same on a socket that has been answered although the rest of its request is still to come.
const SILENCE_AFTER_ALL: Duration = Duration::from_secs(2);

/// How many sockets there may be.
#[derive(Clone, Copy, Debug)]
pub struct SocketBounds {
    /// In all: what the process's open files allow.
    pub all: usize,
    /// That wait for their client.
    pub waiting: usize,
    /// From one network, proxies excepted.
    pub per_network: u32,
}

/// The sockets of a node.
#[derive(Clone)]
pub struct Sockets(Arc<Inner>);

struct Inner {
    bounds: SocketBounds,
    table: Mutex<Table>,
}

/// Numbers rise, so the order of numbers is the order of time.
#[derive(Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Open>,
    by_network: HashMap<IpAddr, u32>,
    waiting: Waiting,
}

struct Open {
    network: IpAddr,
    cut: Cut,
    /// Its turn among those that wait.
    turn: Option<u64>,
    is_given_up: bool,
}

/// One socket, for whoever handles its requests.
#[derive(Clone)]
pub struct Socket {
    sockets: Sockets,
    number: u64,
}

/// A socket's place, free again when dropped.
pub struct SocketPlace(Socket);

/// A request that is being answered: its socket waits for its client again when this is dropped.
pub struct Held(Option<Socket>);

impl Sockets {
    /// An empty table.
    pub fn new(bounds: SocketBounds) -> Self {
        Self(Arc::new(Inner {
            bounds,
            table: Mutex::default(),
        }))
    }

    /// A place for an accepted socket, which waits for its client at first. `None`: its network has enough, or
    /// there is no place left and none to be made. A proxy's network is never full.
    pub fn enter(&self, peer: IpAddr, is_proxy: bool, cut: Cut) -> Option<SocketPlace> {
        let (network, bounds) = (subnet(peer), self.0.bounds);
        let mut table = self.table();
        let is_full = table.by_network.get(&network).copied().unwrap_or(0) >= bounds.per_network;
        if is_full && !is_proxy {
            count_cut("network");
            return None;
        }
        if table.open.len() >= bounds.all && !table.cut_one() {
            count_cut("full");
            return None;
        }
        let number = table.next_number();
        *table.by_network.entry(network).or_insert(0) += 1;
        let open = Open {
            network,
            cut,
            turn: None,
            is_given_up: false,
        };
        table.open.insert(number, open);
        table.wait(number, Some(SILENCE), bounds.waiting);
        Some(SocketPlace(Socket {
            sockets: self.clone(),
            number,
        }))
    }

    /// Cuts those that have waited for a request for too long.
    pub fn cut_silent(&self) {
        let mut table = self.table();
        let now = Instant::now();
        let is_silent = |waiter: &&Waiter| waiter.until.is_some_and(|until| until <= now);
        let silent = table.waiting.all().filter(is_silent);
        let silent: Vec<u64> = silent.map(|waiter| waiter.socket).collect();
        for socket in silent {
            count_cut("silent");
            table.cut(socket);
        }
    }

    /// A panic elsewhere leaves numbers that are still right: each change is one statement.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Counts a socket among those that wait, and makes room if they are too many.
    fn wait(&mut self, socket: u64, silence: Option<Duration>, most: usize) {
        self.hold(socket);
        let turn = self.next_number();
        let Some(open) = self.open.get_mut(&socket) else {
            return;
        };
        open.turn = Some(turn);
        let most_silence = if open.is_given_up {
            SILENCE_AFTER_ALL
        } else {
            Duration::MAX
        };
        let until = silence.map(|silence| Instant::now() + silence.min(most_silence));
        let waiter = Waiter { socket, until };
        self.waiting.insert(open.network, turn, waiter);
        if self.waiting.count() > most {
            self.cut_one();
        }
    }

    fn hold(&mut self, socket: u64) {
        if let Some(open) = self.open.get_mut(&socket)
            && let Some(turn) = open.turn.take()
        {
            self.waiting.remove(open.network, turn);
        }
    }

    /// Makes room; whether there was anybody to go.
    fn cut_one(&mut self) -> bool {
        let next = self.waiting.next_to_go();
        if let Some(socket) = next {
            count_cut("crowded");
            self.cut(socket);
        }
        next.is_some()
    }

    fn cut(&mut self, socket: u64) {
        self.hold(socket);
        if let Some(open) = self.open.get(&socket) {
            open.cut.cut();
        }
    }
}

impl Socket {
    /// A request of it is being answered from now on.
    pub fn answer(&self) -> Held {
        self.hold();
        Held(Some(self.clone()))
    }

    /// It waits for the rest of a request, for as long as whoever says this sees fit.
    pub fn await_body(&self) {
        self.wait(None);
    }

    /// The rest of its request is not waited for any longer, and no other is read before that has come.
    pub fn give_up(&self) {
        if let Some(open) = self.sockets.table().open.get_mut(&self.number) {
            open.is_given_up = true;
        }
    }

    /// It waits for us.
    pub fn hold(&self) {
        self.sockets.table().hold(self.number);
    }

    fn wait(&self, silence: Option<Duration>) {
        let most = self.sockets.0.bounds.waiting;
        self.sockets.table().wait(self.number, silence, most);
    }
}

impl Held {
    /// It is no socket of requests any more.
    pub fn for_good(mut self) {
        self.0 = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(socket) = self.0.take() {
            socket.wait(Some(SILENCE));
        }
    }
}

impl SocketPlace {
    /// For whoever handles its requests.
    pub fn socket(&self) -> Socket {
        self.0.clone()
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        let Socket { sockets, number } = &self.0;
        let mut table = sockets.table();
        table.hold(*number);
        let Some(open) = table.open.remove(number) else {
            return;
        };
        if let Some(count) = table.by_network.get_mut(&open.network) {
            *count -= 1;
            if *count == 0 {
                table.by_network.remove(&open.network);
            }
        }
        // Tables grow by themselves but do not shrink.
        if table.open.capacity() > 16_384 && table.open.len() < table.open.capacity() / 8 {
            table.open.shrink_to_fit();
        }
    }
}

fn count_cut(reason: &'static str) {
    metrics::counter!("hubbub_sockets_cut_total", "reason" => reason).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: SocketBounds = SocketBounds {
        all: 6,
        waiting: 4,
        per_network: 5,
    };

    fn enter(sockets: &Sockets, peer: &str) -> (Option<SocketPlace>, Cut) {
        let cut = Cut::default();
        let is_proxy = peer == "127.0.0.1";
        (
            sockets.enter(peer.parse().unwrap(), is_proxy, cut.clone()),
            cut,
        )
    }

    // X9
    #[test]
    fn who_has_waited_longest_makes_room_and_who_is_answered_stays() {
        let sockets = Sockets::new(BOUNDS);
        let (busy, busy_cut) = enter(&sockets, "127.0.0.1");
        let held = busy.as_ref().unwrap().socket().answer();
        let (other, other_cut) = enter(&sockets, "192.0.2.9");
        // One more than may wait, again and again: the crowd cuts its own, the oldest first.
        let mut crowd: Vec<_> = (0..8).map(|_| enter(&sockets, "127.0.0.1")).collect();
        let cut: Vec<bool> = crowd.iter().map(|(_, cut)| cut.is_cut()).collect();
        assert_eq!(cut, [true, true, true, true, true, false, false, false]);
        assert!(!busy_cut.is_cut() && !other_cut.is_cut());
        // Answered, it waits again, and is the newest of its network.
        drop(held);
        let cut: Vec<bool> = crowd.iter().map(|(_, cut)| cut.is_cut()).collect();
        assert_eq!(cut, [true, true, true, true, true, true, false, false]);
        assert!(!busy_cut.is_cut());
        // What is gone gives its place back.
        crowd.clear();
        drop((busy, other));
        let table = sockets.table();
        assert!(table.open.is_empty() && table.by_network.is_empty());
        assert_eq!(table.waiting.count(), 0);
    }

    #[test]
    fn places_are_not_exceeded_when_nobody_waits() {
        let sockets = Sockets::new(BOUNDS);
        let places: Vec<_> = (0..6)
            .map(|_| {
                let place = enter(&sockets, "127.0.0.1").0.unwrap();
                place.socket().answer().for_good();
                place
            })
            .collect();
        assert!(enter(&sockets, "127.0.0.1").0.is_none());
        drop(places);
        assert!(enter(&sockets, "127.0.0.1").0.is_some());
    }

    #[test]
    fn one_network_has_its_share_and_proxies_have_none() {
        let sockets = Sockets::new(SocketBounds { all: 100, ..BOUNDS });
        let mut places: Vec<_> = (0..5)
            .map(|_| enter(&sockets, "2001:db8::1").0.unwrap())
            .collect();
        assert!(enter(&sockets, "2001:db8::2").0.is_none());
        assert!(enter(&sockets, "2001:db8:0:1::1").0.is_some());
        places.pop();
        assert!(enter(&sockets, "2001:db8::2").0.is_some());
        let proxied: Vec<_> = (0..9)
            .map(|_| enter(&sockets, "127.0.0.1").0.unwrap())
            .collect();
        assert_eq!(proxied.len(), 9);
    }
}
