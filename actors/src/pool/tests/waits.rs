//! Waits as they are told, against waits as they come to be.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Chats that ask again as soon as they are answered, for slots that are too few.
struct Rush {
    rng: StdRng,
    pool: PoolState,
    start: Instant,
    tenants: Vec<TenantId>,
    /// When answers end, in milliseconds, with their slot's.
    ends: BinaryHeap<Reverse<(u64, RequestId, usize, u64)>>,
    /// When whoever waits asked, and how long they were told it takes.
    waiting: HashMap<RequestId, (u64, Duration)>,
    /// How far what was told was off, as a part of the real wait.
    errors: Vec<f64>,
}

impl Rush {
    fn new(seed: u64, slots: u32, tenants: usize) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            pool: PoolState::new(vec![slots..=slots], 10_000),
            start: Instant::now(),
            tenants: (0..tenants).map(|_| TenantId::generate()).collect(),
            ends: BinaryHeap::new(),
            waiting: HashMap::new(),
            errors: Vec::new(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn begin(&mut self, ms: u64, id: RequestId, index: usize) {
        let long: u64 = self.rng.random_range(1_000..7_000);
        self.ends.push(Reverse((ms + long, id, index, long)));
    }

    fn ask(&mut self, ms: u64) {
        let tenant = self.tenants[self.rng.random_range(0..self.tenants.len())];
        let request = Request {
            tenant,
            ..any(&[0])
        };
        match self.pool.admit(self.at(ms), request) {
            Admitted::Granted(id, index) => self.begin(ms, id, index),
            Admitted::Queued(id, place) => {
                self.waiting.insert(id, (ms, place.eta));
            }
            refused => panic!("{refused:?}"),
        }
    }

    /// Ends the next answer, and gives its slot to the next.
    fn step(&mut self) -> u64 {
        let Reverse((ms, id, index, long)) = self.ends.pop().unwrap();
        let returned = Returned {
            id,
            session: SessionId::generate(),
            model: None,
            verdict: Verdict::Answered,
            used: Used {
                input: 10,
                output: long / 100,
            },
        };
        let now = self.at(ms);
        let held = Duration::from_millis(long);
        self.pool.release(now, index, &returned, held);
        while let Some((id, index)) = self.pool.next_grant(now, |_| false) {
            if let Some((asked, told)) = self.waiting.remove(&id) {
                let real = Duration::from_millis(ms - asked).as_secs_f64();
                self.errors.push((told.as_secs_f64() - real).abs() / real);
            }
            self.begin(ms, id, index);
        }
        ms
    }

    fn median_error(&mut self) -> f64 {
        self.errors.sort_unstable_by(f64::total_cmp);
        self.errors[self.errors.len() / 2]
    }
}

#[test]
fn a_thousand_chats_on_two_hundred_slots_are_told_how_long_they_wait() {
    for tenants in [1, 5] {
        let mut rush = Rush::new(3, 200, tenants);
        for _ in 0..1_000 {
            rush.ask(0);
        }
        for step in 0..4_000 {
            let ms = rush.step();
            rush.ask(ms);
            if step == 1_000 {
                // What was told before anything was known is forgotten.
                rush.errors.clear();
            }
        }
        let median = rush.median_error();
        println!(
            "{tenants} tenants: off by {:.1} % at the median",
            median * 100.0
        );
        assert!(median <= 0.25, "{median}");
    }
}
