//! Visitors: what one visitor may take of this node, whichever door it comes through.
//!
//! Started by the node and lives as long as it does. A visitor is known here only while it holds something
//! or has asked for something lately. If it is lost with the node, so are the connections and replies that
//! it counts.

use std::num::NonZeroU32;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hubbub_protocol::{ErrorCode, TenantId, VisitorId};

use crate::rejection::Rejection;

/// When a visitor with too many connections may try again, in milliseconds: it may have closed one by then.
const CONNECTION_CLOSES: u64 = 5_000;

/// When a visitor with too many unanswered messages may try again, in milliseconds.
const REPLY_ENDS: u64 = 2_000;

/// What one visitor may take of this node.
#[derive(Clone, Copy, Debug)]
pub struct VisitorLimits {
    /// Frames and HTTP requests a second, together.
    pub messages_per_second: u32,
    /// Frames and HTTP requests at once after a pause.
    pub messages_burst: u32,
    /// Most connections at once.
    pub connections: u32,
    /// Most messages at once that wait for their reply, in all its sessions.
    pub replies: u32,
}

/// A visitor of a tenant.
pub(crate) type VisitorKey = (TenantId, VisitorId);

/// The visitors of a node.
pub(crate) struct Visitors {
    rate: DefaultKeyedRateLimiter<VisitorKey>,
    connections: Shares,
    replies: Shares,
}

impl Visitors {
    pub(crate) fn new(limits: VisitorLimits) -> Self {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(limits.messages_per_second))
            .allow_burst(at_least_one(limits.messages_burst));
        Self {
            rate: RateLimiter::keyed(quota),
            connections: Shares::new(limits.connections),
            replies: Shares::new(limits.replies),
        }
    }

    /// Counts something a visitor asks for, unless it asks too fast.
    pub(crate) fn admit(&self, visitor: VisitorKey) -> Result<(), Rejection> {
        self.rate.check_key(&visitor).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            Rejection::too_fast("you send too fast", wait)
        })
    }

    /// Counts a connection of a visitor, unless it has too many.
    pub(crate) fn admit_connection(&self, visitor: VisitorKey) -> Result<Share, Rejection> {
        self.connections.take(visitor).ok_or(Rejection::later(
            ErrorCode::RateLimited,
            "you have too many connections open",
            CONNECTION_CLOSES,
        ))
    }

    /// Counts a reply that a visitor waits for, unless it waits for too many.
    pub(crate) fn admit_reply(&self, visitor: VisitorKey) -> Result<Share, Rejection> {
        self.replies.take(visitor).ok_or(Rejection::later(
            ErrorCode::RateLimited,
            "earlier messages are still being answered",
            REPLY_ENDS,
        ))
    }

    /// Forgets visitors who asked for nothing lately; called now and then by the lease keeper.
    pub(crate) fn sweep(&self) {
        self.rate.retain_recent();
        self.rate.shrink_to_fit();
    }
}

/// How much of one thing each visitor holds. Clones count the same.
#[derive(Clone)]
struct Shares {
    held: Arc<DashMap<VisitorKey, u32>>,
    most: u32,
}

/// One of them, until it is dropped.
pub(crate) struct Share {
    shares: Shares,
    visitor: VisitorKey,
}

impl Shares {
    fn new(most: u32) -> Self {
        let held = Arc::default();
        Self { held, most }
    }

    /// One more, if the visitor does not hold its share yet.
    fn take(&self, visitor: VisitorKey) -> Option<Share> {
        let mut held = self.held.entry(visitor).or_insert(0);
        // At least one: nobody is shut out.
        if *held >= self.most.max(1) {
            return None;
        }
        *held += 1;
        drop(held);
        let shares = self.clone();
        Some(Share { shares, visitor })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.shares.held.entry(self.visitor) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn visitor() -> VisitorKey {
        (TenantId::generate(), VisitorId::generate())
    }

    // X8
    #[test]
    fn a_visitor_holds_no_more_than_its_share_and_leaves_nothing_behind() {
        let shares = Shares::new(2);
        let (one, other) = (visitor(), visitor());
        let held = (shares.take(one).unwrap(), shares.take(one).unwrap());
        assert!(shares.take(one).is_none());
        let of_other = shares.take(other);
        assert!(of_other.is_some(), "another visitor is not concerned");
        drop(held);
        assert!(
            shares.take(one).is_some(),
            "what was given back is there again"
        );
        drop(of_other);
        assert!(shares.held.is_empty());
    }

    // X8
    #[test]
    fn a_visitor_who_asks_too_fast_is_told_when_to_go_on_and_forgotten_later() {
        let visitors = Visitors::new(VisitorLimits {
            messages_per_second: 50,
            messages_burst: 5,
            connections: 1,
            replies: 1,
        });
        let (one, other) = (visitor(), visitor());
        let refused = (0..20).find_map(|_| visitors.admit(one).err()).unwrap();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert!(refused.retry_after_ms.is_some_and(|ms| ms >= 50));
        assert!(visitors.admit(other).is_ok());
        let until = Instant::now() + Duration::from_secs(10);
        while !visitors.rate.is_empty() {
            assert!(Instant::now() < until, "never forgotten");
            std::thread::sleep(Duration::from_millis(10));
            visitors.sweep();
        }
    }
}
