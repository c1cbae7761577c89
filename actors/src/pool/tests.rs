//! Rules of the pool on their own: slots, breakers, the queue.

use std::collections::HashSet;

use hubbub_protocol::{BotId, ReplyClass, TenantId};
use proptest::prelude::*;

use super::health::Health;
use super::*;

mod homes;
mod waits;

fn pool_of(slots: &[u32], queue_len: usize) -> PoolState {
    let fixed = slots.iter().map(|slots| *slots..=*slots);
    PoolState::new(fixed.collect(), queue_len)
}

fn any(route: &[usize]) -> Request {
    of(SessionId::generate(), route)
}

fn of(session: SessionId, route: &[usize]) -> Request {
    Request {
        tenant: TenantId::generate(),
        class: ReplyClass::Live,
        weight: 1,
        session,
        bot: BotId::generate(),
        model: None,
        input_tokens: 10,
        max_output_tokens: 10,
        route: route.to_vec(),
        home: None,
        tried: Vec::new(),
    }
}

fn asked(pool: &mut PoolState, now: Instant, request: Request) -> (Returned, usize) {
    let session = request.session;
    let model = request.model.clone();
    let Admitted::Granted(id, index) = pool.admit(now, request) else {
        panic!("not granted: {pool:?}")
    };
    let returned = Returned {
        id,
        session,
        model,
        verdict: Verdict::Neutral,
        used: Used::default(),
    };
    (returned, index)
}

fn end(
    pool: &mut PoolState,
    now: Instant,
    (returned, index): (Returned, usize),
    verdict: Verdict,
) -> Option<Change> {
    let returned = Returned {
        verdict,
        ..returned
    };
    pool.release(now, index, &returned, Duration::from_secs(1))
}

/// Asks the upstreams of the route, sees which one, and how it goes.
fn ask(pool: &mut PoolState, now: Instant, request: Request, verdict: Verdict) -> usize {
    let granted = asked(pool, now, request);
    let index = granted.1;
    end(pool, now, granted, verdict);
    index
}

/// An upstream that fails three sessions.
fn open(pool: &mut PoolState, now: Instant) {
    for _ in 0..3 {
        assert_eq!(ask(pool, now, any(&[0]), Verdict::Faulty), 0);
    }
}

#[test]
fn slots_go_in_order_of_arrival_and_the_queue_is_bounded() {
    let now = Instant::now();
    let mut pool = pool_of(&[1], 2);
    let request = any(&[0]);
    let first = asked(&mut pool, now, request.clone());
    let Admitted::Queued(second, place) = pool.admit(now, request.clone()) else {
        panic!()
    };
    assert_eq!(place.position, 1);
    let Admitted::Queued(third, place) = pool.admit(now, request.clone()) else {
        panic!()
    };
    assert_eq!(place.position, 2);
    assert!(matches!(pool.admit(now, request), Admitted::Full(_)));

    assert_eq!(pool.next_grant(now, |_| false), None);
    end(&mut pool, now, first.clone(), Verdict::Answered);
    assert_eq!(pool.next_grant(now, |_| false), Some((second, 0)));
    end(&mut pool, now, first, Verdict::Answered);
    assert_eq!(pool.next_grant(now, |_| false), Some((third, 0)));
}

#[test]
fn an_upstream_that_keeps_failing_is_left_alone_and_tried_again_later() {
    let now = Instant::now();
    let mut pool = pool_of(&[4, 4], 2);
    open(&mut pool, now);
    assert_eq!(asked(&mut pool, now, any(&[0, 1])).1, 1);
    let later = now + Duration::from_secs(6);
    let probe = asked(&mut pool, later, any(&[0, 1]));
    assert_eq!(probe.1, 0);
    assert_eq!(
        asked(&mut pool, later, any(&[0, 1])).1,
        1,
        "half-open lets one attempt through"
    );
    end(&mut pool, later, probe, Verdict::Answered);
    assert_eq!(asked(&mut pool, later, any(&[0, 1])).1, 0);
}

// M1
#[test]
fn a_probe_waits_for_no_stream_and_is_alone() {
    let now = Instant::now();
    let mut pool = pool_of(&[4, 4], 2);
    let streaming = asked(&mut pool, now, any(&[0]));
    open(&mut pool, now);
    let later = now + Duration::from_secs(6);
    let probe = asked(&mut pool, later, any(&[0, 1]));
    assert_eq!(probe.1, 0, "one of four slots is busy");
    assert_eq!(asked(&mut pool, later, any(&[0, 1])).1, 1, "only one probe");
    // How the old stream ends says nothing of requests that are sent now.
    assert_eq!(end(&mut pool, later, streaming, Verdict::Answered), None);
    assert_eq!(asked(&mut pool, later, any(&[0, 1])).1, 1);
    assert_eq!(
        end(&mut pool, later, probe, Verdict::Responded),
        Some(Change::Closed)
    );
    assert_eq!(asked(&mut pool, later, any(&[0, 1])).1, 0);
}

// M1
#[test]
fn a_probe_that_nobody_waits_for_any_more_makes_room_for_the_next() {
    let now = Instant::now();
    let mut pool = pool_of(&[4], 2);
    open(&mut pool, now);
    let later = now + Duration::from_secs(6);
    assert_eq!(ask(&mut pool, later, any(&[0]), Verdict::Neutral), 0);
    let probe = asked(&mut pool, later, any(&[0]));
    // Its first word is enough: others do not wait for its last.
    let words = Returned {
        verdict: Verdict::Answered,
        ..probe.0
    };
    assert_eq!(
        pool.learn(later, 0, &words, Duration::from_millis(200)),
        Some(Change::Closed)
    );
    asked(&mut pool, later, any(&[0]));
}

// M1
#[test]
fn one_session_whose_prompt_always_fails_keeps_nobody_away() {
    let now = Instant::now();
    let mut pool = pool_of(&[4], 2);
    let session = SessionId::generate();
    for verdict in [Verdict::Faulty, Verdict::Responded].repeat(20) {
        assert_eq!(ask(&mut pool, now, of(session, &[0]), verdict), 0);
    }
    assert!(!pool.upstreams().iter().any(Health::is_open));
    // Neither do prompts that it refuses, whoever sends them.
    for _ in 0..20 {
        assert_eq!(ask(&mut pool, now, any(&[0]), Verdict::Responded), 0);
    }
    asked(&mut pool, now, any(&[0]));
}

// M9
#[test]
fn a_session_that_an_upstream_failed_lately_asks_another_first() {
    let now = Instant::now();
    let mut pool = pool_of(&[4, 4], 2);
    let session = SessionId::generate();
    let fails = Verdict::Faulty;
    assert_eq!(ask(&mut pool, now, of(session, &[0, 1]), fails), 0);
    assert_eq!(asked(&mut pool, now, of(session, &[0, 1])).1, 1);
    assert_eq!(
        asked(&mut pool, now, any(&[0, 1])).1,
        0,
        "others are not kept away"
    );
    let later = now + Duration::from_mins(3);
    assert_eq!(asked(&mut pool, later, of(session, &[0, 1])).1, 0);
}

// M9
#[test]
fn an_upstream_whose_set_up_is_wrong_is_asked_after_the_others_and_told_once() {
    let now = Instant::now();
    let mut pool = pool_of(&[4, 1], 2);
    let wrong = asked(&mut pool, now, any(&[0, 1]));
    assert_eq!(wrong.1, 0);
    let change = end(&mut pool, now, wrong, Verdict::Misconfigured);
    assert_eq!(change, Some(Change::SetAside));
    let busy = asked(&mut pool, now, any(&[0, 1]));
    assert_eq!(busy.1, 1);
    assert!(
        matches!(pool.admit(now, any(&[0, 1])), Admitted::Queued(..)),
        "the other is in service, though it is full"
    );
    assert_eq!(
        pool.next_grant(now, |_| true),
        None,
        "nobody waits any more"
    );
    // Alone it is asked: it says at once what is wrong, and perhaps it was put right.
    let again = asked(&mut pool, now, any(&[0]));
    assert_eq!(end(&mut pool, now, again, Verdict::Misconfigured), None);
    let later = now + Duration::from_secs(61);
    let again = asked(&mut pool, later, any(&[0, 1]));
    assert_eq!(again.1, 0, "asked again after a while");
    assert_eq!(end(&mut pool, later, again, Verdict::Answered), None);
    assert!(!pool.upstreams()[0].is_open());
    assert!(!pool.upstreams()[0].is_set_aside_for_any(later));
}

// M9
#[test]
fn a_model_that_an_upstream_does_not_have_keeps_no_other_model_away() {
    let now = Instant::now();
    let mut pool = pool_of(&[4, 4], 2);
    let unknown = Request {
        model: Some("no-such-model".into()),
        ..any(&[0, 1])
    };
    let wrong = Verdict::Misconfigured;
    assert_eq!(ask(&mut pool, now, unknown.clone(), wrong), 0);
    assert_eq!(asked(&mut pool, now, any(&[0, 1])).1, 0);
    assert_eq!(asked(&mut pool, now, unknown).1, 1);
}

// H13
#[test]
fn whoever_waits_for_an_upstream_that_pauses_is_told_when_it_is_tried_again() {
    let now = Instant::now();
    let mut pool = pool_of(&[4, 1], 9);
    open(&mut pool, now);
    let Admitted::Queued(id, place) = pool.admit(now, any(&[0])) else {
        panic!()
    };
    assert!(place.paused);
    assert_eq!(place.eta, Duration::from_secs(5));
    let soon = now + Duration::from_secs(2);
    let (_, place) = pool.places(soon).next().unwrap();
    assert_eq!((place.paused, place.eta), (true, Duration::from_secs(3)));
    // Where another takes requests, one waits for that one.
    let busy = asked(&mut pool, now, any(&[0, 1]));
    let Admitted::Queued(_, place) = pool.admit(now, any(&[0, 1])) else {
        panic!()
    };
    assert!(!place.paused);
    end(&mut pool, now, busy, Verdict::Neutral);
    let later = now + Duration::from_secs(5);
    assert_eq!(pool.next_grant(later, |_| false), Some((id, 0)));
}

#[test]
fn an_upstream_that_says_for_how_long_is_left_alone_so_long() {
    let now = Instant::now();
    let mut pool = pool_of(&[4], 2);
    let busy = Verdict::Busy(Some(Duration::from_secs(20)));
    ask(&mut pool, now, any(&[0]), busy);
    let soon = now + Duration::from_secs(19);
    assert!(matches!(pool.admit(soon, any(&[0])), Admitted::Queued(..)));
}

#[test]
fn a_retry_goes_elsewhere_if_it_can() {
    let now = Instant::now();
    let mut pool = pool_of(&[4, 1, 1], 2);
    let retry = Request {
        tried: vec![0, 0, 2],
        ..any(&[0, 1, 2])
    };
    for index in [1, 2, 0] {
        assert_eq!(asked(&mut pool, now, retry.clone()).1, index);
    }
}

#[test]
fn a_route_without_upstreams_is_refused() {
    let mut pool = pool_of(&[1], 2);
    assert_eq!(pool.admit(Instant::now(), any(&[])), Admitted::NoUpstream);
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
        let mut pool = pool_of(&slots, 8);
        let mut held: Vec<(RequestId, usize)> = Vec::new();
        let mut served = HashSet::new();
        let mut last_granted = None;
        let route: Vec<usize> = (0..upstreams).collect();
        for (ask, pick) in steps {
            if ask {
                if let Admitted::Granted(id, index) = pool.admit(now, any(&route)) {
                    prop_assert!(served.insert(id));
                    prop_assert!(pool.waiting() == 0);
                    held.push((id, index));
                }
            } else if !held.is_empty() {
                let (id, index) = held.swap_remove(pick % held.len());
                let (session, model) = (SessionId::generate(), None);
                let verdict = Verdict::Answered;
                let used = Used::default();
                let returned = Returned { id, session, model, verdict, used };
                pool.release(now, index, &returned, Duration::ZERO);
                while let Some((id, index)) = pool.next_grant(now, |_| false) {
                    prop_assert!(served.insert(id));
                    prop_assert!(last_granted.is_none_or(|last| last < id));
                    last_granted = Some(id);
                    held.push((id, index));
                }
            }
            for (index, total) in slots.iter().enumerate() {
                let busy = held.iter().filter(|(_, held)| *held == index).count();
                prop_assert!(busy <= *total as usize);
            }
            prop_assert!(pool.waiting() == 0 || held.len() == slots.iter().sum::<u32>() as usize);
        }
    }
}
