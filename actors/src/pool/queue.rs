//! The fair queue: who is next where not everybody can be served at once. Pure.
//!
//! Each tenant has a counter of the work it was given, divided by its weight, and the least is next; within a
//! tenant the same holds for its sessions, and within a session the order of arrival. Work is counted in
//! tokens. It is charged as predicted when a slot is given, and corrected when the slot comes back. Whoever
//! comes back after a while is lifted to the least that was done for one who waits: what was not used is not
//! owed.
//! After Sheng et al., "Fairness in Serving Large Language Models" (arXiv 2401.00588).

mod counters;
mod line;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hubbub_protocol::{ReplyClass, SessionId, TenantId};

use super::Request;
use super::request::RequestId;
use counters::{Counters, parts};
use line::{Choice, Line, Waiting};

/// How many other tenants to check for one that is at home in the free slot.
const OTHERS_LOOKED_AT: usize = 16;

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
    id: RequestId,
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
    waiting: HashMap<RequestId, (TenantId, u64)>,
}

impl FairQueue {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn contains(&self, id: RequestId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Everything that waits, in no order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &Request> {
        let lines = self.lines.values();
        lines.flat_map(|line| line.waiting.values().map(|waiting| &waiting.request))
    }

    pub(crate) fn push(&mut self, id: RequestId, request: Request, cost: Cost) {
        let tenant = request.tenant;
        let (line, turn) = self.enter(&request);
        line.cost = line.cost.saturating_add(cost.0);
        line.waiting.insert(
            (turn, id),
            Waiting {
                request,
                cost,
                passed: 0,
                yielded: 0,
            },
        );
        self.waiting.insert(id, (tenant, turn));
    }

    /// Charges what is served without having waited.
    pub(crate) fn serve_at_once(&mut self, id: RequestId, request: &Request, cost: Cost) -> Charge {
        self.enter(request);
        self.serve(id, request, cost)
    }

    /// Takes the next request for which `usable` finds something, with what that is. Whoever's turn it is waits a
    /// little for its home, while others go before who are at home in what is free.
    pub(crate) fn next<T>(
        &mut self,
        usable: impl Fn(&Request) -> Option<Usable<T>>,
    ) -> Option<(RequestId, T, Charge)> {
        let mut tenants: Vec<_> = self.fronts().collect();
        tenants.sort_unstable();
        let of_tenant = |(.., tenant): (_, _, TenantId)| {
            Some((tenant, self.lines.get(&tenant)?.choose(&usable)?))
        };
        let mut choices = tenants.into_iter().filter_map(of_tenant);
        let (first, choice) = choices.next()?;
        let is_home = |(_, other): &(TenantId, Choice<T>)| other.found.is_home;
        let other = (!choice.found.is_home && choice.yields)
            .then(|| choices.take(OTHERS_LOOKED_AT).find(is_home))
            .flatten();
        let (tenant, choice) = match other {
            Some(other) => {
                self.waiting_mut(first, choice.first)?.yielded += 1;
                other
            }
            None => (first, choice),
        };
        let Choice {
            first, key, found, ..
        } = choice;
        if key != first {
            self.waiting_mut(tenant, first)?.passed += 1;
        }
        let line = self.lines.get_mut(&tenant)?;
        let Waiting { request, cost, .. } = line.waiting.remove(&key)?;
        line.cost = line.cost.saturating_sub(cost.0);
        self.waiting.remove(&key.1);
        let charge = self.serve(key.1, &request, cost);
        Some((key.1, found.what, charge))
    }

    fn waiting_mut(&mut self, tenant: TenantId, key: (u64, RequestId)) -> Option<&mut Waiting> {
        self.lines.get_mut(&tenant)?.waiting.get_mut(&key)
    }

    /// Lets go of whoever does not wait any more.
    pub(crate) fn retain(&mut self, keep: impl Fn(RequestId) -> bool) {
        let gone = self.waiting.keys().filter(|id| !keep(**id));
        for id in gone.copied().collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    /// Whose lines there are, with how many wait in each, and their weights.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (TenantId, usize, u32)> {
        let lines = self.lines.iter();
        lines.map(|(tenant, line)| (*tenant, line.waiting.len(), line.weight))
    }

    /// Lets go of a tenant's newest.
    pub(crate) fn shed(&mut self, tenant: TenantId) -> Option<RequestId> {
        let waiting = self.lines.get(&tenant)?.waiting.keys();
        let newest = waiting.map(|(_, id)| *id).max()?;
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
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        let line_of = |(_, _, tenant)| {
            let line = self.lines.get(&tenant)?;
            Some((tenant, (line.waiting.iter().peekable(), line.weight)))
        };
        let mut left: HashMap<_, _> = self.fronts().filter_map(line_of).collect();
        let mut next: BinaryHeap<_> = self.fronts().map(Reverse).collect();
        std::iter::from_fn(move || {
            let Reverse((value, _, tenant)) = next.pop()?;
            let (waiting, weight) = left.get_mut(&tenant)?;
            let ((_, id), first) = waiting.next()?;
            if let Some(((_, second), _)) = waiting.peek() {
                let value = value + parts(first.cost, *weight);
                next.push(Reverse((value, *second, tenant)));
            }
            Some((*id, &first.request))
        })
    }

    /// Those who wait: what they were given, who is first in their line, and whose line it is.
    fn fronts(&self) -> impl Iterator<Item = (u64, RequestId, TenantId)> {
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

    fn serve(&mut self, id: RequestId, request: &Request, cost: Cost) -> Charge {
        let charge = Charge {
            id,
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

    fn remove(&mut self, id: RequestId) {
        let Some((tenant, turn)) = self.waiting.remove(&id) else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&tenant)
            && let Some(gone) = line.waiting.remove(&(turn, id))
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

#[cfg(test)]
mod tests;
