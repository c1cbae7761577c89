//! What each tenant was given, or each session of one. Pure.

use std::collections::HashMap;
use std::hash::Hash;

use super::{Charge, Cost, Progress};
use crate::pool::request::RequestId;

/// Counters are kept in these parts of a token, so that weights divide them exactly enough.
const PARTS: u64 = 1_000;

/// Most that have left whose counters are kept: each operation looks at all of them.
pub(super) const LEFT_AT_MOST: usize = 1_024;

pub(super) fn parts(cost: Cost, weight: u32) -> u64 {
    cost.0.saturating_mul(PARTS) / u64::from(weight.max(1))
}

/// What each was given.
#[derive(Debug)]
pub(super) struct Counters<K>(pub(super) HashMap<K, Counter>);

#[derive(Debug, Default)]
pub(super) struct Counter {
    /// What was charged, for its weight.
    pub(super) value: u64,
    pub(super) weight: u32,
    pub(super) waiting: usize,
    pub(super) served: HashMap<RequestId, (Cost, Progress)>,
}

impl Counter {
    pub(super) fn is_here(&self) -> bool {
        self.waiting > 0 || !self.served.is_empty()
    }

    /// What was done, of what was charged.
    pub(super) fn done(&self) -> u64 {
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
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u64, K)> {
        let waiting = self.0.iter().filter(|(_, counter)| counter.waiting > 0);
        waiting.map(|(key, counter)| (counter.value, *key))
    }

    /// Where whoever comes begins: at the least that was done for one who waits; if nobody does, nobody is
    /// owed anything by those who are served.
    pub(super) fn lift(&self) -> u64 {
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
    pub(super) fn value(&self, key: K) -> u64 {
        match self.0.get(&key) {
            Some(counter) if counter.waiting > 0 => counter.value,
            Some(counter) => counter.value.max(self.lift()),
            None => self.lift(),
        }
    }

    /// One more of its requests waits; what it was given so far.
    pub(super) fn wait(&mut self, key: K, weight: u32) -> u64 {
        let value = self.value(key);
        let counter = self.0.entry(key).or_default();
        counter.value = value;
        counter.weight = weight;
        counter.waiting += 1;
        value
    }

    pub(super) fn leave(&mut self, key: K) {
        if let Some(counter) = self.0.get_mut(&key) {
            counter.waiting = counter.waiting.saturating_sub(1);
        }
        self.forget();
    }

    pub(super) fn serve(&mut self, key: K, charge: &Charge) {
        if let Some(counter) = self.0.get_mut(&key) {
            let amount = parts(charge.cost, counter.weight);
            counter.waiting = counter.waiting.saturating_sub(1);
            counter.value = counter.value.saturating_add(amount);
            let served = (charge.cost, charge.done.clone());
            counter.served.insert(charge.id, served);
        }
    }

    pub(super) fn settle(&mut self, key: K, charge: &Charge, actual: Cost) {
        if let Some(counter) = self.0.get_mut(&key)
            && let Some((cost, _)) = counter.served.remove(&charge.id)
        {
            let (charged, actual) = (parts(cost, counter.weight), parts(actual, counter.weight));
            counter.value = counter.value.saturating_add(actual).saturating_sub(charged);
        }
        self.forget();
    }

    /// What was given counts for as long as somebody else might be given less: until all have caught up, or
    /// nobody is there. While more keep coming than can be served nobody catches up; then whoever left with the
    /// least is forgotten.
    pub(super) fn forget(&mut self) {
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
