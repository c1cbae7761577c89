//! One tenant's requests that wait, and which of them goes first. Pure.

use std::collections::BTreeMap;

use hubbub_protocol::SessionId;

use super::counters::{Counter, Counters};
use super::{Cost, Usable};
use crate::pool::request::{Request, RequestId};

/// How often a request may be passed over for another of its tenant, because what is free has read that one's
/// conversation before.
const PASSED_AT_MOST: u32 = 32;

/// How often it may be passed over for one of another tenant for that reason: with three equals the slot that is
/// free next is its home's sooner than that in 24 of 25 cases.
const YIELDS_AT_MOST: u32 = 8;

/// How many of its tenant's requests to check for that.
const LOOKED_AT: usize = 64;

/// One tenant's.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) sessions: Counters<SessionId>,
    /// By their session's counter when they came, then in order of arrival.
    pub(super) waiting: BTreeMap<(u64, RequestId), Waiting>,
    pub(super) weight: u32,
    /// Of all that wait.
    pub(super) cost: u64,
}

impl Line {
    pub(super) fn is_here(&self) -> bool {
        self.sessions.0.values().any(Counter::is_here)
    }

    /// The first for which there is something. Where that is not its home it lets others go before, a limited
    /// number of times: one that is at home there, or the one that has least to be read again.
    pub(super) fn choose<T>(
        &self,
        usable: impl Fn(&Request) -> Option<Usable<T>>,
    ) -> Option<Choice<T>> {
        let found = |(key, waiting): (&(u64, RequestId), _)| {
            let Waiting { request, .. }: &Waiting = waiting;
            Some((*key, waiting, usable(request)?))
        };
        let mut candidates = self.waiting.iter().filter_map(found).take(LOOKED_AT);
        let (first, waiting, found) = candidates.next()?;
        let mut choice = Choice {
            first,
            key: first,
            found,
            yields: waiting.yielded < YIELDS_AT_MOST,
        };
        if choice.found.is_home || waiting.passed >= PASSED_AT_MOST {
            return Some(choice);
        }
        let mut tokens = waiting.request.input_tokens;
        for (key, waiting, found) in candidates {
            let is_home = found.is_home;
            if is_home || waiting.request.input_tokens < tokens {
                tokens = waiting.request.input_tokens;
                choice = Choice {
                    key,
                    found,
                    ..choice
                };
            }
            if is_home {
                break;
            }
        }
        Some(choice)
    }
}

/// Whom a tenant would have served.
pub(super) struct Choice<T> {
    /// Whose turn it is.
    pub(super) first: (u64, RequestId),
    /// Who goes before, or the same.
    pub(super) key: (u64, RequestId),
    pub(super) found: Usable<T>,
    /// Whether it would let another tenant go before, too.
    pub(super) yields: bool,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) cost: Cost,
    /// How often one of its tenant was served before its turn.
    pub(super) passed: u32,
    /// How often one of another tenant was.
    pub(super) yielded: u32,
}
