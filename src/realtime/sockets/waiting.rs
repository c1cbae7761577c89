//! Which sockets wait for their client, since when, and whose turn it is when there are too many. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use tokio::time::Instant;

/// A socket that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) socket: u64,
    /// Until when it may; `None`: that is measured elsewhere.
    pub(super) until: Option<Instant>,
}

/// The waiting sockets of one network, the longest first.
type Queue = BTreeMap<u64, Waiter>;

/// How many a network has, its longest, and the network: the last of them is next.
type Rank = (usize, Reverse<u64>, IpAddr);

/// Every socket that waits. Turns are numbers that rise.
#[derive(Default)]
pub(super) struct Waiting {
    queues: HashMap<IpAddr, Queue>,
    ranking: BTreeSet<Rank>,
    count: usize,
}

impl Waiting {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, network: IpAddr, turn: u64, waiter: Waiter) {
        self.change(network, |queue| {
            queue.insert(turn, waiter);
        });
    }

    pub(super) fn remove(&mut self, network: IpAddr, turn: u64) {
        self.change(network, |queue| {
            queue.remove(&turn);
        });
    }

    /// The one that has waited longest, of the network that has most of them.
    pub(super) fn next_to_go(&self) -> Option<u64> {
        let (_, _, network) = self.ranking.last()?;
        let (_, waiter) = self.queues.get(network)?.first_key_value()?;
        Some(waiter.socket)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Waiter> {
        self.queues.values().flat_map(BTreeMap::values)
    }

    fn change(&mut self, network: IpAddr, change: impl FnOnce(&mut Queue)) {
        let queue = self.queues.entry(network).or_default();
        let (before, had) = (rank(network, queue), queue.len());
        change(queue);
        let (after, has) = (rank(network, queue), queue.len());
        self.count = self.count + has - had;
        if has == 0 {
            self.queues.remove(&network);
        }
        if let Some(before) = before {
            self.ranking.remove(&before);
        }
        self.ranking.extend(after);
    }
}

fn rank(network: IpAddr, queue: &Queue) -> Option<Rank> {
    let (turn, _) = queue.first_key_value()?;
    Some((queue.len(), Reverse(*turn), network))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever comes and goes, the next to go is of a network that no other exceeds, and nobody of its
        /// network has waited longer.
        #[test]
        fn the_largest_network_loses_its_oldest(
            steps in prop::collection::vec((0u8..4, any::<bool>(), 0usize..20), 1..60),
        ) {
            let mut waiting = Waiting::default();
            let mut model: Vec<(IpAddr, u64)> = Vec::new();
            for (turn, (network, goes, which)) in (0u64..).zip(steps) {
                if goes && !model.is_empty() {
                    let (network, turn) = model.remove(which % model.len());
                    waiting.remove(network, turn);
                } else {
                    let network = IpAddr::from([192, 0, 2, network]);
                    let waiter = Waiter { socket: turn, until: None };
                    waiting.insert(network, turn, waiter);
                    model.push((network, turn));
                }
                prop_assert_eq!(waiting.count(), model.len());
                let size = |network| model.iter().filter(|(of, _)| *of == network).count();
                let largest = model.iter().map(|(network, _)| size(*network)).max();
                let next = waiting.next_to_go();
                prop_assert_eq!(next.is_none(), model.is_empty());
                if let Some(next) = next {
                    let (network, _) = *model.iter().find(|(_, turn)| *turn == next).unwrap();
                    prop_assert_eq!(Some(size(network)), largest);
                    // Of networks as large, the one whose oldest is the oldest of all.
                    let of_largest = |entry: &&(IpAddr, u64)| Some(size(entry.0)) == largest;
                    let oldest = model.iter().filter(of_largest).map(|(_, turn)| *turn).min();
                    prop_assert_eq!(Some(next), oldest);
                }
            }
        }
    }
}
