//! In which order the upstreams of a route are asked in one conversation. Pure.
//!
//! Upstreams of one group are equals. A conversation keeps to one of them, its home: that one has read it
//! before, and what a prefix cache holds need not be read again. Home is where it was answered last. As long as
//! that is not known, which one is asked first follows from the session's id: the same after a restart, on every
//! node, and for everybody else when an upstream is added or taken away (rendezvous hashing, Thaler and
//! Ravishankar 1998).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use hubbub_protocol::SessionId;

use crate::ports::Upstream;

/// Upstreams that may answer in one conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// By index, best first.
    pub(crate) upstreams: Vec<usize>,
    /// The first of them, if it is one of several equals and has read the conversation before.
    pub(crate) home: Option<usize>,
}

impl Route {
    /// Orders the upstreams of a route for one session: equals stand where the first of them does.
    pub(super) fn of_session(
        session: SessionId,
        read_by: Option<&str>,
        route: &[usize],
        all: &[Arc<dyn Upstream>],
    ) -> Self {
        let mut ranks: Vec<Vec<(f64, usize)>> = Vec::new();
        for index in route.iter().copied() {
            let Some(upstream) = all.get(index) else {
                continue;
            };
            let is_equal = |rank: &&mut Vec<(f64, usize)>| {
                let first = rank.first().and_then(|(_, first)| all.get(*first));
                upstream.group().is_some()
                    && first.and_then(|first| first.group()) == upstream.group()
            };
            let far = match read_by {
                Some(name) if name == upstream.name() => HOME,
                _ => distance(session, upstream.as_ref()),
            };
            let member = (far, index);
            match ranks.iter_mut().find(is_equal) {
                Some(rank) => rank.push(member),
                None => ranks.push(vec![member]),
            }
        }
        for rank in &mut ranks {
            rank.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        }
        let equals = ranks.first().filter(|rank| rank.len() > 1);
        let first = equals.and_then(|rank| rank.first());
        Self {
            home: first
                .filter(|(far, _)| *far == HOME)
                .map(|(_, index)| *index),
            upstreams: ranks
                .into_iter()
                .flatten()
                .map(|(_, index)| index)
                .collect(),
        }
    }
}

/// No distance at all.
const HOME: f64 = 0.0;

/// How far an upstream is from a session: the least of several is each one's as often as it has slots.
#[expect(clippy::cast_precision_loss, reason = "a hash is as good with 53 bits")]
fn distance(session: SessionId, upstream: &dyn Upstream) -> f64 {
    let mut hasher = DefaultHasher::new();
    (session, upstream.name()).hash(&mut hasher);
    // In (0, 1], so that its logarithm is finite.
    let drawn = (hasher.finish() as f64 + 1.0) / (u64::MAX as f64 + 1.0);
    -drawn.ln() / f64::from((*upstream.slots().end()).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ScriptedUpstream;

    fn upstreams(of: &[(&str, u32, Option<&str>)]) -> Vec<Arc<dyn Upstream>> {
        let upstream = |(name, slots, group): &(&str, u32, Option<&str>)| {
            ScriptedUpstream::in_group(name, *slots, *group) as Arc<dyn Upstream>
        };
        of.iter().map(upstream).collect()
    }

    fn firsts(all: &[Arc<dyn Upstream>], route: &[usize], sessions: &[SessionId]) -> Vec<usize> {
        let route = |session: &SessionId| Route::of_session(*session, None, route, all);
        sessions
            .iter()
            .map(|session| route(session).upstreams[0])
            .collect()
    }

    // R153
    #[test]
    fn sessions_are_spread_over_equals_by_their_slots_and_stay_where_they_are() {
        let all = upstreams(&[
            ("a", 10, Some("g")),
            ("b", 10, Some("g")),
            ("c", 20, Some("g")),
        ]);
        let sessions: Vec<_> = (0..4_000).map(|_| SessionId::generate()).collect();
        let before = firsts(&all, &[0, 1, 2], &sessions);
        for (index, expected) in [(0, 1_000), (1, 1_000), (2, 2_000)] {
            let share = before.iter().filter(|home| **home == index).count();
            assert!(share.abs_diff(expected) < 200, "{index}: {share}");
        }
        assert_eq!(
            before,
            firsts(&all, &[2, 1, 0], &sessions),
            "by name, not by place"
        );
        let read_by = Route::of_session(sessions[0], Some("b"), &[0, 1, 2], &all);
        assert_eq!((read_by.home, read_by.upstreams[0]), (Some(1), 1));
        let unread = Route::of_session(sessions[0], Some("z"), &[0, 1, 2], &all);
        assert_eq!(unread.home, None);
        let without = firsts(&all, &[0, 1], &sessions);
        let moved = before.iter().zip(&without).filter(|(a, b)| a != b);
        assert!(moved.into_iter().all(|(home, _)| *home == 2));
    }

    #[test]
    fn equals_stand_where_the_first_of_them_does_and_the_others_keep_their_order() {
        let all = upstreams(&[
            ("first", 1, None),
            ("a", 1, Some("g")),
            ("last", 1, None),
            ("b", 1, Some("g")),
        ]);
        for _ in 0..20 {
            let route = Route::of_session(SessionId::generate(), None, &[0, 1, 2, 3], &all);
            assert_eq!(route.home, None, "the first has no equals");
            assert_eq!((route.upstreams[0], route.upstreams[3]), (0, 2));
        }
        let session = SessionId::generate();
        let alone = Route::of_session(session, None, &[1, 0], &all);
        assert_eq!((alone.home, alone.upstreams), (None, vec![1, 0]));
        assert_eq!(
            Route::of_session(session, None, &[9], &all),
            Route::default()
        );
    }
}
