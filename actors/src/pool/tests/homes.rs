//! Conversations keep to the upstream that has read them, as far as others are not held up for it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const UPSTREAMS: usize = 3;

fn at_home(tenant: TenantId, home: usize) -> Request {
    let others = (0..UPSTREAMS).filter(|other| *other != home);
    Request {
        tenant,
        home: Some(home),
        route: [home].into_iter().chain(others).collect(),
        ..any(&[])
    }
}

#[test]
fn a_free_slot_goes_to_whoever_has_been_there() {
    let now = Instant::now();
    let (one, other) = (TenantId::generate(), TenantId::generate());
    let mut pool = pool_of(&[1, 1, 1], 99);
    let held: Vec<_> = (0..UPSTREAMS)
        .map(|home| asked(&mut pool, now, at_home(one, home)))
        .collect();
    let queue = |pool: &mut PoolState, request| match pool.admit(now, request) {
        Admitted::Queued(id, _) => id,
        refused => panic!("{refused:?}"),
    };
    let away = queue(&mut pool, at_home(one, 1));
    let back = queue(&mut pool, at_home(one, 0));
    let stranger = queue(&mut pool, at_home(other, 2));
    end(&mut pool, now, held[0].clone(), Verdict::Answered);
    assert_eq!(
        pool.next_grant(now, |_| false),
        Some((back, 0)),
        "it is the other tenant's turn, but that one is not at home here"
    );
    end(&mut pool, now, (held[0].0.clone(), 0), Verdict::Neutral);
    assert_eq!(pool.next_grant(now, |_| false), Some((stranger, 0)));
    end(&mut pool, now, (held[0].0.clone(), 0), Verdict::Neutral);
    assert_eq!(
        pool.next_grant(now, |_| false),
        Some((away, 0)),
        "nobody waits while a slot is free"
    );
}

#[test]
fn nobody_is_passed_over_for_ever() {
    let now = Instant::now();
    let tenant = TenantId::generate();
    let mut pool = pool_of(&[1, 1, 1], 999);
    let held: Vec<_> = (0..UPSTREAMS)
        .map(|home| asked(&mut pool, now, at_home(tenant, home)))
        .collect();
    let Admitted::Queued(patient, _) = pool.admit(now, at_home(tenant, 1)) else {
        panic!()
    };
    for _ in 0..100 {
        pool.admit(now, at_home(tenant, 0));
    }
    assert_eq!(served_before(patient, &mut pool, &held[0]), 32);
}

#[test]
fn another_tenant_goes_before_only_for_a_while() {
    let now = Instant::now();
    let (one, other) = (TenantId::generate(), TenantId::generate());
    let mut pool = pool_of(&[1, 1, 1], 999);
    let held: Vec<_> = (0..UPSTREAMS)
        .map(|home| asked(&mut pool, now, at_home(one, home)))
        .collect();
    for _ in 0..100 {
        pool.admit(now, at_home(one, 0));
    }
    let Admitted::Queued(patient, _) = pool.admit(now, at_home(other, 1)) else {
        panic!()
    };
    assert_eq!(served_before(patient, &mut pool, &held[0]), 8);
}

/// How many others are given this slot, each time it is free, before somebody has a turn.
fn served_before(
    patient: RequestId,
    pool: &mut PoolState,
    (held, index): &(Returned, usize),
) -> usize {
    let now = Instant::now();
    let mut served = 0;
    loop {
        end(pool, now, (held.clone(), *index), Verdict::Neutral);
        let (id, _) = pool.next_grant(now, |_| false).unwrap();
        if id == patient {
            return served;
        }
        served += 1;
    }
}

// R153
#[test]
fn with_more_to_do_than_slots_nearly_all_are_served_at_home() {
    let (mut spared, mut could_be) = (0, 0);
    for seed in 0..100 {
        let mut rush = Rush::new(seed);
        for _ in 0..300 {
            rush.ask(0, None, TURNS);
        }
        rush.run();
        // At the end nobody is left to choose from.
        let taken = rush.taken.iter().take(3_000);
        let all: u64 = taken.clone().map(|(_, tokens)| tokens).sum();
        let home: u64 = taken
            .filter(|(at_home, _)| *at_home)
            .map(|(_, tokens)| tokens)
            .sum();
        assert!(home * 100 >= all * 90, "seed {seed}: {home} of {all}");
        (spared, could_be) = (spared + home, could_be + all);
    }
    assert!(spared * 100 >= could_be * 95, "{spared} of {could_be}");
}

/// Questions of a conversation.
const TURNS: u32 = 8;

/// Conversations of two tenants that ask again as soon as they are answered.
struct Rush {
    rng: StdRng,
    pool: PoolState,
    start: Instant,
    tenants: [TenantId; 2],
    /// Of each request: where its conversation was answered last, and how many questions it has left.
    asked: HashMap<RequestId, (Option<usize>, u32)>,
    /// When answers end, in milliseconds.
    ends: BinaryHeap<Reverse<(u64, RequestId, usize)>>,
    /// Whether each that had a home was served there, and the tokens it could be spared.
    taken: Vec<(bool, u64)>,
}

impl Rush {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            pool: pool_of(&[20, 20, 20], 9_999),
            start: Instant::now(),
            tenants: [TenantId::generate(), TenantId::generate()],
            asked: HashMap::new(),
            ends: BinaryHeap::new(),
            taken: Vec::new(),
        }
    }

    fn ask(&mut self, ms: u64, home: Option<usize>, left: u32) {
        let request = Request {
            home,
            input_tokens: tokens(left),
            ..at_home(
                self.tenants[self.rng.random_range(0..2)],
                home.unwrap_or_else(|| self.rng.random_range(0..UPSTREAMS)),
            )
        };
        let now = self.start + Duration::from_millis(ms);
        let id = match self.pool.admit(now, request) {
            Admitted::Granted(id, index) => {
                self.begin(ms, id, index);
                id
            }
            Admitted::Queued(id, _) => id,
            refused => panic!("{refused:?}"),
        };
        self.asked.insert(id, (home, left));
    }

    fn begin(&mut self, ms: u64, id: RequestId, index: usize) {
        let long = self.rng.random_range(1_000..7_000);
        self.ends.push(Reverse((ms + long, id, index)));
    }

    fn run(&mut self) {
        while let Some(Reverse((ms, id, index))) = self.ends.pop() {
            let now = self.start + Duration::from_millis(ms);
            end(
                &mut self.pool,
                now,
                (asked_by(id), index),
                Verdict::Answered,
            );
            let (_, left) = self.asked[&id];
            if self.taken.len() < 3_000 {
                match left {
                    1 => self.ask(ms, None, TURNS),
                    _ => self.ask(ms, Some(index), left - 1),
                }
            }
            while let Some((id, index)) = self.pool.next_grant(now, |_| false) {
                if let (Some(home), left) = self.asked[&id] {
                    self.taken.push((home == index, tokens(left + 1)));
                }
                self.begin(ms, id, index);
            }
        }
    }
}

/// Of a conversation with so many questions left, each and its answer as long as the others.
fn tokens(left: u32) -> u64 {
    u64::from(TURNS - left) * 100
}

fn asked_by(id: RequestId) -> Returned {
    Returned {
        id,
        session: SessionId::generate(),
        model: None,
        verdict: Verdict::Neutral,
        used: Used::default(),
    }
}
