//! Rules of the pool on their own: slots, breakers, the queue.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn any(route: &[usize]) -> Waiting {
    Waiting {
        route: route.to_vec(),
        avoid: None,
    }
}

#[test]
fn slots_go_in_order_of_arrival_and_the_queue_is_bounded() {
    let now = Instant::now();
    let mut pool = PoolState::new(vec![1], 2);
    assert!(matches!(
        pool.admit(now, any(&[0])),
        Admission::Granted(_, 0)
    ));
    let Admission::Queued(second, place) = pool.admit(now, any(&[0])) else {
        panic!()
    };
    assert_eq!(place.position, 1);
    let Admission::Queued(third, place) = pool.admit(now, any(&[0])) else {
        panic!()
    };
    assert_eq!(place.position, 2);
    assert!(matches!(pool.admit(now, any(&[0])), Admission::Full(_)));

    assert_eq!(pool.next_grant(now, |_| false), None);
    pool.release(now, 0, Outcome::Answered, Duration::from_secs(1));
    assert_eq!(pool.next_grant(now, |_| false), Some((second, 0)));
    pool.release(now, 0, Outcome::Answered, Duration::from_secs(1));
    assert_eq!(pool.next_grant(now, |_| false), Some((third, 0)));
}

#[test]
fn an_upstream_that_keeps_failing_is_left_alone_and_tried_again_later() {
    let now = Instant::now();
    let mut pool = PoolState::new(vec![4, 4], 2);
    for _ in 0..3 {
        assert!(matches!(
            pool.admit(now, any(&[0, 1])),
            Admission::Granted(_, 0)
        ));
        pool.release(now, 0, Outcome::Faulty(None), Duration::ZERO);
    }
    assert!(matches!(
        pool.admit(now, any(&[0, 1])),
        Admission::Granted(_, 1)
    ));
    let later = now + Duration::from_secs(6);
    assert!(matches!(
        pool.admit(later, any(&[0, 1])),
        Admission::Granted(_, 0)
    ));
    assert!(
        matches!(pool.admit(later, any(&[0, 1])), Admission::Granted(_, 1)),
        "half-open lets one attempt through"
    );
    pool.release(later, 0, Outcome::Answered, Duration::ZERO);
    assert!(matches!(
        pool.admit(later, any(&[0, 1])),
        Admission::Granted(_, 0)
    ));
}

#[test]
fn a_retry_goes_elsewhere_if_it_can() {
    let now = Instant::now();
    let mut pool = PoolState::new(vec![4, 1], 2);
    let retry = Waiting {
        route: vec![0, 1],
        avoid: Some(0),
    };
    assert!(matches!(
        pool.admit(now, retry.clone()),
        Admission::Granted(_, 1)
    ));
    assert!(matches!(pool.admit(now, retry), Admission::Granted(_, 0)));
}

#[test]
fn a_route_without_upstreams_is_refused() {
    let mut pool = PoolState::new(vec![1], 2);
    assert_eq!(pool.admit(Instant::now(), any(&[])), Admission::NoUpstream);
}

proptest! {
    /// Whatever happens, no upstream holds more than its slots, nobody is served twice, and whoever
    /// waits is served before those who came later and want the same.
    #[test]
    fn slots_are_never_exceeded_and_order_is_kept(
        slots in prop::collection::vec(1u32..4, 1..4),
        steps in prop::collection::vec((proptest::bool::ANY, 0usize..4), 0..200),
    ) {
        let now = Instant::now();
        let upstreams = slots.len();
        let mut pool = PoolState::new(slots.clone(), 8);
        let mut held: Vec<usize> = Vec::new();
        let mut served = HashSet::new();
        let mut last_granted = None;
        let route: Vec<usize> = (0..upstreams).collect();
        for (ask, pick) in steps {
            if ask {
                if let Admission::Granted(ticket, index) = pool.admit(now, any(&route)) {
                    prop_assert!(served.insert(ticket));
                    prop_assert!(pool.waiting() == 0);
                    held.push(index);
                }
            } else if !held.is_empty() {
                let index = held.swap_remove(pick % held.len());
                pool.release(now, index, Outcome::Answered, Duration::ZERO);
                while let Some((ticket, index)) = pool.next_grant(now, |_| false) {
                    prop_assert!(served.insert(ticket));
                    prop_assert!(last_granted.is_none_or(|last| last < ticket));
                    last_granted = Some(ticket);
                    held.push(index);
                }
            }
            for (index, total) in slots.iter().enumerate() {
                let busy = held.iter().filter(|held| **held == index).count();
                prop_assert!(busy <= *total as usize);
            }
            prop_assert!(pool.waiting() == 0 || held.len() == slots.iter().sum::<u32>() as usize);
        }
    }
}
