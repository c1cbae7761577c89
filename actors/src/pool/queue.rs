//! The fair queue: who is next where not everybody can be served at once. Pure.
//!
//! Each tenant has a counter of the work it was given, divided by its weight, and the least is next; within a
//! tenant the same holds for its sessions, and within a session the order of arrival. Work is counted in
//! tokens. It is charged as predicted when a slot is given, and corrected when the slot comes back. Whoever
//! comes back after a while is lifted to the least that was done for one who waits: what was not used is not
//! owed.
//! After Sheng et al., "Fairness in Serving Large Language Models" (arXiv 2401.00588).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hubbub_protocol::{ReplyClass, SessionId, TenantId};

use super::Request;
use super::state::Ticket;

/// Counters are kept in these parts of a token, so that weights divide them exactly enough.
const PARTS: u64 = 1_000;

/// How often a request may be passed over for another of its tenant, because what is free has read that one's
/// conversation before.
const PASSED_AT_MOST: u32 = 32;

/// Most that have left whose counters are kept: each operation looks at all of them.
const LEFT_AT_MOST: usize = 1_024;

/// As many are looked at for that.
const LOOKED_AT: usize = 64;

/// Something that a waiting request can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usable<T> {
    pub(crate) what: T,
    /// It has read the conversation before, or is as good as any other.
    pub(crate) is_home: bool,
}

#[cfg(test)]
impl Usable<()> {
    pub(crate) const FREE: Self = Self {
        what: (),
        is_home: true,
    };
}

/// Work that was given, or is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost(pub(crate) u64);

impl Cost {
    /// A token of the answer counts twice: it takes a step of the model of its own, and is priced like it.
    pub(crate) fn of(input_tokens: u64, output_tokens: u64) -> Self {
        Self(input_tokens.saturating_add(output_tokens.saturating_mul(2)))
    }
}

/// Who was served for whom, to be corrected once what it took is known.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    ticket: Ticket,
    tenant: TenantId,
    session: SessionId,
    class: ReplyClass,
    cost: Cost,
    done: Progress,
}

/// How much of a request's work is done. Clones are of the same request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub(crate) fn add(&self, Cost(work): Cost) {
        self.0.fetch_add(work, Ordering::Relaxed);
    }

    fn done(&self) -> Cost {
        Cost(self.0.load(Ordering::Relaxed))
    }
}

impl Charge {
    pub(crate) fn class(&self) -> ReplyClass {
        self.class
    }

    pub(crate) fn progress(&self) -> Progress {
        self.done.clone()
    }
}

/// Requests that wait, and what their tenants and sessions were given.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    tenants: Counters<TenantId>,
    lines: HashMap<TenantId, Line>,
    /// Where each request waits.
    waiting: HashMap<Ticket, (TenantId, u64)>,
}

/// One tenant's.
#[derive(Debug, Default)]
struct Line {
    sessions: Counters<SessionId>,
    /// By their session's counter when they came, then in order of arrival.
    waiting: BTreeMap<(u64, Ticket), Waiting>,
    weight: u32,
    /// Of all that wait.
    cost: u64,
}

impl Line {
    fn is_here(&self) -> bool {
        self.sessions.0.values().any(Counter::is_here)
    }

    /// The first for which there is something. Where that is not its home it lets others go before, a limited
    /// number of times: one that is at home there, or the one that has least to be read again.
    fn next<T>(
        &mut self,
        usable: impl Fn(&Request) -> Option<Usable<T>>,
    ) -> Option<((u64, Ticket), T)> {
        let mut candidates = self
            .waiting
            .iter()
            .filter_map(
                |(
                    key,
                    Waiting {
                        request, passed, ..
                    },
                )| {
                    Some((*key, request.input_tokens, *passed, usable(request)?))
                },
            )
            .take(LOOKED_AT);
        let (first, tokens, passed, found) = candidates.next()?;
        let mut best = (first, tokens, found.what);
        if !found.is_home && passed < PASSED_AT_MOST {
            for (key, tokens, _, found) in candidates {
                if found.is_home || tokens < best.1 {
                    best = (key, tokens, found.what);
                }
                if found.is_home {
                    break;
                }
            }
        }
        let (key, _, what) = best;
        if key != first {
            self.waiting.get_mut(&first)?.passed += 1;
        }
        Some((key, what))
    }
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    cost: Cost,
    /// How often one of its tenant was served before its turn.
    passed: u32,
}

impl FairQueue {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn contains(&self, ticket: Ticket) -> bool {
        self.waiting.contains_key(&ticket)
    }

    /// Everything that waits, in no order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &Request> {
        let lines = self.lines.values();
        lines.flat_map(|line| line.waiting.values().map(|waiting| &waiting.request))
    }

    pub(crate) fn push(&mut self, ticket: Ticket, request: Request, cost: Cost) {
        let tenant = request.tenant;
        let (line, turn) = self.enter(&request);
        line.cost = line.cost.saturating_add(cost.0);
        line.waiting.insert(
            (turn, ticket),
            Waiting {
                request,
                cost,
                passed: 0,
            },
        );
        self.waiting.insert(ticket, (tenant, turn));
    }

    /// Charges what is served without having waited.
    pub(crate) fn serve_at_once(
        &mut self,
        ticket: Ticket,
        request: &Request,
        cost: Cost,
    ) -> Charge {
        self.enter(request);
        self.serve(ticket, request, cost)
    }

    /// Takes the next request for which `usable` finds something, with what that is. Which tenant is next does
    /// not depend on what is free; which of its sessions may, for a while.
    pub(crate) fn next<T>(
        &mut self,
        usable: impl Fn(&Request) -> Option<Usable<T>>,
    ) -> Option<(Ticket, T, Charge)> {
        let mut tenants: Vec<_> = self.fronts().collect();
        tenants.sort_unstable();
        let (tenant, (key, found)) = tenants
            .into_iter()
            .find_map(|(.., tenant)| Some((tenant, self.lines.get_mut(&tenant)?.next(&usable)?)))?;
        let line = self.lines.get_mut(&tenant)?;
        let Waiting { request, cost, .. } = line.waiting.remove(&key)?;
        line.cost = line.cost.saturating_sub(cost.0);
        self.waiting.remove(&key.1);
        let charge = self.serve(key.1, &request, cost);
        Some((key.1, found, charge))
    }

    /// Lets go of whoever does not wait any more.
    pub(crate) fn retain(&mut self, keep: impl Fn(Ticket) -> bool) {
        let gone = self.waiting.keys().filter(|ticket| !keep(**ticket));
        for ticket in gone.copied().collect::<Vec<_>>() {
            self.remove(ticket);
        }
    }

    /// Whose lines there are, with how many wait in each, and their weights.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (TenantId, usize, u32)> {
        let lines = self.lines.iter();
        lines.map(|(tenant, line)| (*tenant, line.waiting.len(), line.weight))
    }

    /// Lets go of a tenant's newest.
    pub(crate) fn shed(&mut self, tenant: TenantId) -> Option<Ticket> {
        let waiting = self.lines.get(&tenant)?.waiting.keys();
        let newest = waiting.map(|(_, ticket)| *ticket).max()?;
        self.remove(newest);
        Some(newest)
    }

    /// What was served took so much.
    pub(crate) fn settle(&mut self, charge: &Charge, actual: Cost) {
        let tenant = charge.tenant;
        if let Some(line) = self.lines.get_mut(&tenant) {
            line.sessions.settle(charge.session, charge, actual);
        }
        self.tenants.settle(tenant, charge, actual);
        self.forget(tenant);
    }

    /// About how many would be served before a request of this tenant that came now.
    pub(crate) fn ahead_of(&self, tenant: TenantId) -> usize {
        let cost_of = |line: &Line| parts(Cost(line.cost), line.weight);
        let own = self.lines.get(&tenant);
        let until = self.tenants.value(tenant) + own.map_or(0, cost_of);
        let others = self.tenants.waiting().filter(|(_, other)| *other != tenant);
        let before = others.filter_map(|(value, other)| {
            let line = self.lines.get(&other)?;
            let each = (cost_of(line) / line.waiting.len().max(1) as u64).max(1);
            let fitting = until.saturating_sub(value).div_ceil(each);
            Some(line.waiting.len().min(usize::try_from(fitting).ok()?))
        });
        own.map_or(0, |line| line.waiting.len()) + before.sum::<usize>()
    }

    /// Everything that waits, in the order in which it would be served if everything could be.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (Ticket, &Request)> {
        let line_of = |(_, _, tenant)| {
            let line = self.lines.get(&tenant)?;
            Some((tenant, (line.waiting.iter().peekable(), line.weight)))
        };
        let mut left: HashMap<_, _> = self.fronts().filter_map(line_of).collect();
        let mut next: BinaryHeap<_> = self.fronts().map(Reverse).collect();
        std::iter::from_fn(move || {
            let Reverse((value, _, tenant)) = next.pop()?;
            let (waiting, weight) = left.get_mut(&tenant)?;
            let ((_, ticket), first) = waiting.next()?;
            if let Some(((_, second), _)) = waiting.peek() {
                let value = value + parts(first.cost, *weight);
                next.push(Reverse((value, *second, tenant)));
            }
            Some((*ticket, &first.request))
        })
    }

    /// Those who wait: what they were given, who is first in their line, and whose line it is.
    fn fronts(&self) -> impl Iterator<Item = (u64, Ticket, TenantId)> {
        self.tenants.waiting().filter_map(|(value, tenant)| {
            let ((_, first), _) = self.lines.get(&tenant)?.waiting.first_key_value()?;
            Some((value, *first, tenant))
        })
    }

    /// One more request of its tenant and session is here: their line, and what the session was given so far.
    fn enter(&mut self, request: &Request) -> (&mut Line, u64) {
        let weight = request.weight.max(1);
        self.tenants.wait(request.tenant, weight);
        let line = self.lines.entry(request.tenant).or_default();
        line.weight = weight;
        let turn = line.sessions.wait(request.session, 1);
        (line, turn)
    }

    fn serve(&mut self, ticket: Ticket, request: &Request, cost: Cost) -> Charge {
        let charge = Charge {
            ticket,
            tenant: request.tenant,
            session: request.session,
            class: request.class,
            cost,
            done: Progress::default(),
        };
        if let Some(line) = self.lines.get_mut(&charge.tenant) {
            line.sessions.serve(charge.session, &charge);
        }
        self.tenants.serve(charge.tenant, &charge);
        charge
    }

    fn remove(&mut self, ticket: Ticket) {
        let Some((tenant, turn)) = self.waiting.remove(&ticket) else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&tenant)
            && let Some(gone) = line.waiting.remove(&(turn, ticket))
        {
            line.cost = line.cost.saturating_sub(gone.cost.0);
            line.sessions.leave(gone.request.session);
        }
        self.tenants.leave(tenant);
        self.forget(tenant);
    }

    fn forget(&mut self, tenant: TenantId) {
        if !self.lines.get(&tenant).is_some_and(Line::is_here) {
            self.lines.remove(&tenant);
        }
    }
}

fn parts(cost: Cost, weight: u32) -> u64 {
    cost.0.saturating_mul(PARTS) / u64::from(weight.max(1))
}

/// What each was given.
#[derive(Debug)]
struct Counters<K>(HashMap<K, Counter>);

#[derive(Debug, Default)]
struct Counter {
    /// What was charged, for its weight.
    value: u64,
    weight: u32,
    waiting: usize,
    served: HashMap<Ticket, (Cost, Progress)>,
}

impl Counter {
    fn is_here(&self) -> bool {
        self.waiting > 0 || !self.served.is_empty()
    }

    /// What was done, of what was charged.
    fn done(&self) -> u64 {
        let left = |(cost, done): &(Cost, Progress)| {
            parts(*cost, self.weight).cast_signed() - parts(done.done(), self.weight).cast_signed()
        };
        let left: i64 = self.served.values().map(left).sum();
        self.value.saturating_add_signed(-left)
    }
}

impl<K> Default for Counters<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash> Counters<K> {
    /// Those who wait, with what they were given.
    fn waiting(&self) -> impl Iterator<Item = (u64, K)> {
        let waiting = self.0.iter().filter(|(_, counter)| counter.waiting > 0);
        waiting.map(|(key, counter)| (counter.value, *key))
    }

    /// Where whoever comes begins: at the least that was done for one who waits; if nobody does, nobody is
    /// owed anything by those who are served.
    fn lift(&self) -> u64 {
        let (waiting, served): (Vec<&Counter>, Vec<&Counter>) = self
            .0
            .values()
            .filter(|counter| counter.is_here())
            .partition(|counter| counter.waiting > 0);
        let least = waiting.into_iter().map(Counter::done).min();
        let most = || served.into_iter().map(Counter::done).max();
        least.or_else(most).unwrap_or_default()
    }

    /// What somebody was given; at least what they are lifted to, if they do not wait already.
    fn value(&self, key: K) -> u64 {
        match self.0.get(&key) {
            Some(counter) if counter.waiting > 0 => counter.value,
            Some(counter) => counter.value.max(self.lift()),
            None => self.lift(),
        }
    }

    /// One more of its requests waits; what it was given so far.
    fn wait(&mut self, key: K, weight: u32) -> u64 {
        let value = self.value(key);
        let counter = self.0.entry(key).or_default();
        counter.value = value;
        counter.weight = weight;
        counter.waiting += 1;
        value
    }

    fn leave(&mut self, key: K) {
        if let Some(counter) = self.0.get_mut(&key) {
            counter.waiting = counter.waiting.saturating_sub(1);
        }
        self.forget();
    }

    fn serve(&mut self, key: K, charge: &Charge) {
        if let Some(counter) = self.0.get_mut(&key) {
            let amount = parts(charge.cost, counter.weight);
            counter.waiting = counter.waiting.saturating_sub(1);
            counter.value = counter.value.saturating_add(amount);
            let served = (charge.cost, charge.done.clone());
            counter.served.insert(charge.ticket, served);
        }
    }

    fn settle(&mut self, key: K, charge: &Charge, actual: Cost) {
        if let Some(counter) = self.0.get_mut(&key)
            && let Some((cost, _)) = counter.served.remove(&charge.ticket)
        {
            let (charged, actual) = (parts(cost, counter.weight), parts(actual, counter.weight));
            counter.value = counter.value.saturating_add(actual).saturating_sub(charged);
        }
        self.forget();
    }

    /// What was given counts for as long as somebody else might be given less: until all have caught up, or
    /// nobody is there. While more keep coming than can be served nobody catches up; then whoever left with the
    /// least is forgotten.
    fn forget(&mut self) {
        let lift = self.lift();
        self.0
            .retain(|_, counter| counter.is_here() || counter.value > lift);
        if !self.0.values().any(Counter::is_here) {
            self.0.clear();
        }
        let left = |counter: &&Counter| !counter.is_here();
        if self.0.values().filter(left).count() > LEFT_AT_MOST {
            let mut values: Vec<u64> = self.0.values().filter(left).map(|c| c.value).collect();
            let (_, middle, _) = values.select_nth_unstable(LEFT_AT_MOST / 2);
            let middle = *middle;
            self.0
                .retain(|_, counter| counter.is_here() || counter.value > middle);
        }
    }
}

#[cfg(test)]
mod tests;
