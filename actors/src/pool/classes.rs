//! Classes of work: an answer that a person is waiting for goes before one that a program wants some time. Pure.
//!
//! Each class is shared among tenants by a queue of its own, so what a tenant's programs ask for takes nothing
//! from its visitors' share. The first class that waits is served; but one grant in [`FLOOR`] goes to a class
//! that is passed over, so none starves.

use std::collections::HashMap;

use hubbub_protocol::{ReplyClass, TenantId};

use super::Request;
use super::queue::{Charge, Cost, FairQueue, Usable};
use super::request::RequestId;

/// So many grants go to classes before one that waits, at most, then one to it.
const FLOOR: u32 = 9;

/// Requests that wait, by class.
#[derive(Debug, Default)]
pub(crate) struct Classes([Class; ReplyClass::ALL.len()]);

#[derive(Debug, Default)]
struct Class {
    queue: FairQueue,
    /// Grants to others while somebody here could have used them.
    passed_over: u32,
}

impl Classes {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.queues().map(FairQueue::len).sum()
    }

    /// How many of each class wait.
    pub(crate) fn depths(&self) -> impl Iterator<Item = (ReplyClass, usize)> {
        ReplyClass::ALL
            .into_iter()
            .zip(self.queues().map(FairQueue::len))
    }

    pub(crate) fn contains(&self, id: RequestId) -> bool {
        self.queues().any(|queue| queue.contains(id))
    }

    /// Everything that waits, in no order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.queues().flat_map(FairQueue::requests)
    }

    pub(crate) fn push(&mut self, id: RequestId, request: Request, cost: Cost) {
        self.queue(request.class).push(id, request, cost);
    }

    /// Charges what is served without having waited.
    pub(crate) fn serve_at_once(&mut self, id: RequestId, request: &Request, cost: Cost) -> Charge {
        self.queue(request.class).serve_at_once(id, request, cost)
    }

    /// Takes the next request for which `usable` finds something, with what that is.
    pub(crate) fn next<T>(
        &mut self,
        usable: impl Fn(&Request) -> Option<Usable<T>>,
    ) -> Option<(RequestId, T, Charge)> {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        // Sorting is stable: whoever was passed over too often comes first, the others in their order.
        order.sort_by_key(|at| {
            self.0
                .get(*at)
                .is_none_or(|class| class.passed_over < FLOOR)
        });
        let (served, next) = order
            .into_iter()
            .find_map(|at| Some((at, self.0.get_mut(at)?.queue.next(&usable)?)))?;
        for (at, class) in self.0.iter_mut().enumerate() {
            if at == served {
                class.passed_over = 0;
            } else if at > served && class.queue.requests().any(|other| usable(other).is_some()) {
                class.passed_over += 1;
            }
        }
        Some(next)
    }

    /// Lets go of whoever does not wait any more.
    pub(crate) fn retain(&mut self, keep: impl Fn(RequestId) -> bool) {
        for class in &mut self.0 {
            class.queue.retain(&keep);
        }
    }

    /// Makes room for a request: lets go of the newest, of the last class, of whoever has more waiting for its
    /// weight than the request's tenant would have; else of what the tenant itself has in a later class. `None`:
    /// there is neither.
    pub(crate) fn shed_for(&mut self, request: &Request) -> Option<RequestId> {
        let mut waiting: HashMap<TenantId, (usize, u32)> = HashMap::new();
        for (tenant, count, weight) in self.queues().flat_map(FairQueue::lines) {
            waiting.entry(tenant).or_insert((0, weight)).0 += count;
        }
        let share = |(count, weight): (usize, u32)| count as u64 * 1_000 / u64::from(weight.max(1));
        let own = waiting.get(&request.tenant).map_or(0, |(count, _)| *count);
        let most = waiting.into_iter().max_by_key(|(_, has)| share(*has))?;
        let (from, after) = if share(most.1) > share((own + 1, request.weight)) {
            (most.0, 0)
        } else {
            (request.tenant, request.class as usize + 1)
        };
        let mut later = self.0.iter_mut().skip(after).rev();
        later.find_map(|class| class.queue.shed(from))
    }

    /// What was served took so much.
    pub(crate) fn settle(&mut self, charge: &Charge, actual: Cost) {
        self.queue(charge.class()).settle(charge, actual);
    }

    /// About how many would be served before a request that came now.
    pub(crate) fn ahead_of(&self, request: &Request) -> usize {
        let mut queues = self.queues();
        let before = queues.by_ref().take(request.class as usize);
        let before: usize = before.map(FairQueue::len).sum();
        before + queues.next().map_or(0, |own| own.ahead_of(request.tenant))
    }

    /// Everything that waits, about in the order in which it would be served if everything could be.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.queues().flat_map(FairQueue::in_order)
    }

    fn queues(&self) -> impl DoubleEndedIterator<Item = &FairQueue> {
        self.0.iter().map(|class| &class.queue)
    }

    #[expect(clippy::indexing_slicing, reason = "there is one for each class")]
    fn queue(&mut self, class: ReplyClass) -> &mut FairQueue {
        &mut self.0[class as usize].queue
    }
}

#[cfg(test)]
mod tests {
    use hubbub_protocol::{BotId, SessionId};
    use proptest::prelude::*;

    use super::*;

    fn request(tenant: TenantId, class: ReplyClass) -> Request {
        Request {
            tenant,
            class,
            weight: 1,
            session: SessionId::generate(),
            bot: BotId::generate(),
            model: None,
            input_tokens: 10,
            max_output_tokens: 10,
            route: vec![0],
            home: None,
            tried: Vec::new(),
        }
    }

    fn push(classes: &mut Classes, id: u64, tenant: TenantId, class: ReplyClass) {
        classes.push(RequestId(id), request(tenant, class), Cost(30));
    }

    fn next(classes: &mut Classes) -> Option<u64> {
        let (id, (), charge) = classes.next(|_| Some(Usable::FREE))?;
        classes.settle(&charge, Cost(30));
        Some(id.0)
    }

    // R020
    #[test]
    fn whoever_is_waited_for_goes_before_two_hundred_programs() {
        let mut classes = Classes::default();
        let tenant = TenantId::generate();
        for id in 0..200 {
            push(&mut classes, id, tenant, ReplyClass::Batch);
        }
        assert_eq!(next(&mut classes), Some(0));
        push(&mut classes, 200, TenantId::generate(), ReplyClass::Assist);
        push(&mut classes, 201, tenant, ReplyClass::Live);
        assert_eq!(classes.ahead_of(&request(tenant, ReplyClass::Live)), 1);
        assert_eq!(next(&mut classes), Some(201));
        assert_eq!(next(&mut classes), Some(200));
        assert_eq!(next(&mut classes), Some(1));
    }

    #[test]
    fn one_grant_in_ten_goes_to_a_class_that_is_passed_over() {
        let mut classes = Classes::default();
        let tenant = TenantId::generate();
        for id in 0..300 {
            let class = ReplyClass::ALL[usize::try_from(id % 3).unwrap()];
            push(&mut classes, id, tenant, class);
        }
        let mut served = [0; 3];
        for _ in 0..100 {
            let id = next(&mut classes).unwrap();
            served[usize::try_from(id % 3).unwrap()] += 1;
        }
        assert!(
            served[0] >= 79 && served[1] >= 9 && served[2] >= 9,
            "{served:?}"
        );
    }

    #[test]
    fn room_is_made_by_whoever_has_too_much_and_then_by_ones_own_later_class() {
        let mut classes = Classes::default();
        let (greedy, modest) = (TenantId::generate(), TenantId::generate());
        for id in 0..4 {
            push(&mut classes, id, greedy, ReplyClass::Live);
        }
        push(&mut classes, 4, greedy, ReplyClass::Batch);
        push(&mut classes, 5, greedy, ReplyClass::Live);
        let of_modest = request(modest, ReplyClass::Batch);
        assert_eq!(
            classes.shed_for(&of_modest),
            Some(RequestId(4)),
            "its batch"
        );
        assert_eq!(
            classes.shed_for(&of_modest),
            Some(RequestId(5)),
            "its newest"
        );
        let of_greedy = request(greedy, ReplyClass::Live);
        assert_eq!(classes.shed_for(&of_greedy), None);
        push(&mut classes, 6, greedy, ReplyClass::Batch);
        assert_eq!(classes.shed_for(&of_greedy), Some(RequestId(6)));
        let as_batch = request(greedy, ReplyClass::Batch);
        assert_eq!(classes.shed_for(&as_batch), None);
    }

    proptest! {
        /// Whatever comes, nothing that waits is passed over more than a bounded number of times, and everything
        /// is served once.
        #[test]
        fn nothing_starves(coming in prop::collection::vec(0usize..4, 1..300)) {
            let mut classes = Classes::default();
            let tenant = TenantId::generate();
            let (mut waiting, mut served) = (HashMap::new(), 0);
            for (id, class) in coming.iter().enumerate() {
                // Now and then nothing comes, and somebody is served.
                if let Some(class) = ReplyClass::ALL.get(*class) {
                    push(&mut classes, id as u64, tenant, *class);
                    waiting.insert(id as u64, 0);
                }
                if id % 2 == 0 && let Some(id) = next(&mut classes) {
                    prop_assert!(waiting.remove(&id).is_some());
                    served += 1;
                    for passed in waiting.values_mut() { *passed += 1; }
                }
                // Each class has one grant in so many, and is served in its order.
                let most = 2 * (FLOOR as usize + 1) * (waiting.len() + 1);
                prop_assert!(waiting.values().all(|passed| *passed <= most));
            }
            while let Some(id) = next(&mut classes) {
                prop_assert!(waiting.remove(&id).is_some());
                served += 1;
            }
            prop_assert!(waiting.is_empty());
            prop_assert_eq!(classes.len(), 0);
            prop_assert_eq!(served, coming.iter().filter(|class| **class < 3).count());
        }
    }
}
