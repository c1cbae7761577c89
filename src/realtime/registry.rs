//! Every connection of this node: how many there are, per address too, and the way to close them all.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::WeakRecipient;
use actix::prelude::*;
use dashmap::DashMap;
use hubbub_actors::{Caller, Rejection};
use hubbub_protocol::{CloseCode, ConnectionId};

use super::cut::Cut;
use crate::admission::Rates;
use crate::admission::address::subnet;

/// Connections told to close in one go, and the pause before the next: a drain does not stampede.
const BATCH: usize = 200;
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// Clients come back within this time, each at a moment of its own.
const RECONNECT_SPREAD: Duration = Duration::from_secs(3);

/// Asks a connection to close.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Close {
    pub(super) code: CloseCode,
    /// Told in a `bye` before; `None`: coming back with the same credentials is of no use.
    pub(super) reconnect_after: Option<Duration>,
}

/// An open connection, as the registry knows it.
struct Open {
    close: WeakRecipient<Close>,
    cut: Cut,
    /// The API key it came with, by its public id.
    key: Option<Box<str>>,
}

/// Why a connection was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The node has as many as it may.
    Full,
    /// The address has as many as it may.
    TooManyFromAddress,
    /// The node is about to stop.
    Draining,
}

/// The connections of a node.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    open: DashMap<ConnectionId, Open>,
    by_address: DashMap<IpAddr, u32>,
    count: AtomicUsize,
    draining: std::sync::atomic::AtomicBool,
    max: usize,
    max_per_address: u32,
    rates: Arc<Rates>,
}

/// A counted connection, and where it comes from. Dropping it makes room for another.
pub struct Admission {
    connections: Connections,
    address: IpAddr,
}

/// A connection's entry, taken out when dropped.
pub(super) struct RegistryEntry {
    connections: Connections,
    id: ConnectionId,
}

impl Connections {
    /// An empty registry.
    pub fn new(max: usize, max_per_address: u32, rates: &Arc<Rates>) -> Self {
        Self(Arc::new(Inner {
            open: DashMap::new(),
            by_address: DashMap::new(),
            count: AtomicUsize::new(0),
            draining: std::sync::atomic::AtomicBool::new(false),
            max,
            max_per_address,
            rates: rates.clone(),
        }))
    }

    /// Counts a connection.
    ///
    /// # Errors
    /// There are too many, or the node is draining.
    pub fn admit(&self, address: IpAddr) -> Result<Admission, Refused> {
        if self.is_draining() {
            return Err(Refused::Draining);
        }
        let network = subnet(address);
        let mut from_address = self.0.by_address.entry(network).or_insert(0);
        // This machine is no stranger: a proxy in front of the server, or a load test.
        if *from_address >= self.0.max_per_address && !address.is_loopback() {
            return Err(Refused::TooManyFromAddress);
        }
        let fits = |now| (now < self.0.max).then_some(now + 1);
        let Ok(before) = self
            .0
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
        else {
            drop(from_address);
            self.0
                .by_address
                .remove_if(&network, |_, count| *count == 0);
            return Err(Refused::Full);
        };
        gauge(before + 1);
        *from_address += 1;
        drop(from_address);
        Ok(Admission {
            connections: self.clone(),
            address,
        })
    }

    /// Connections open now.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Whether new ones are refused because the node is about to stop.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Refuses new connections from now on.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Says `bye` to everybody, in batches, waits for them to be gone until the deadline, then cuts
    /// those that are left.
    pub async fn close_all(&self, deadline: tokio::time::Instant) {
        let open: Vec<ConnectionId> = self.0.open.iter().map(|entry| *entry.key()).collect();
        for batch in open.chunks(BATCH) {
            for id in batch {
                let close = Close {
                    code: CloseCode::Draining,
                    reconnect_after: Some(RECONNECT_SPREAD.mul_f64(rand::random())),
                };
                self.ask_to_close(*id, close);
            }
            tokio::time::sleep(BATCH_PAUSE).await;
        }
        while !self.0.open.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(BATCH_PAUSE).await;
        }
        for entry in &self.0.open {
            entry.value().cut.cut();
        }
    }

    /// The public ids of the API keys that open connections came with.
    pub fn api_keys(&self) -> HashSet<Box<str>> {
        let open = self.0.open.iter();
        open.filter_map(|entry| entry.key.clone()).collect()
    }

    /// Closes the connections that came with an API key; how many there were.
    pub fn sign_out(&self, key: &str) -> usize {
        let of_key = |open: &Open| open.key.as_deref() == Some(key);
        let open = self.0.open.iter().filter(|entry| of_key(entry.value()));
        // Taken down first: who closes is taken out of the same table.
        let open: Vec<ConnectionId> = open.map(|entry| *entry.key()).collect();
        for id in &open {
            let close = Close {
                code: CloseCode::SignedOut,
                reconnect_after: None,
            };
            self.ask_to_close(*id, close);
        }
        open.len()
    }

    fn ask_to_close(&self, id: ConnectionId, close: Close) {
        let Some(open) = self.0.open.get(&id) else {
            return;
        };
        // Full means that it does not read: there is no way to tell it anything.
        let told = open
            .close
            .upgrade()
            .is_some_and(|recipient| recipient.try_send(close).is_ok());
        if !told {
            open.cut.cut();
        }
    }

    pub(super) fn enter(
        &self,
        id: ConnectionId,
        close: WeakRecipient<Close>,
        cut: Cut,
        key: Option<Box<str>>,
    ) -> RegistryEntry {
        self.0.open.insert(id, Open { close, cut, key });
        RegistryEntry {
            connections: self.clone(),
            id,
        }
    }
}

impl Admission {
    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Counts a session that the caller opens.
    ///
    /// # Errors
    /// There are too many from this address or of this visitor.
    pub(super) fn admit_session(&self, caller: &Caller) -> Result<(), Rejection> {
        self.connections.0.rates.admit_session(self.address, caller)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        gauge(self.connections.0.count.fetch_sub(1, Ordering::Relaxed) - 1);
        let by_address = &self.connections.0.by_address;
        let network = subnet(self.address);
        if let Some(mut count) = by_address.get_mut(&network) {
            *count = count.saturating_sub(1);
        }
        by_address.remove_if(&network, |_, count| *count == 0);
    }
}

impl Drop for RegistryEntry {
    fn drop(&mut self) {
        let open = &self.connections.0.open;
        open.remove(&self.id);
        // Tables grow by themselves but do not shrink.
        if open.capacity() > 16_384 && open.len() < open.capacity() / 8 {
            open.shrink_to_fit();
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; the count is small"
)]
fn gauge(count: usize) {
    metrics::gauge!("hubbub_connections_open").set(count as f64);
}
