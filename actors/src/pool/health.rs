//! The health of one upstream: its slots, its breaker, and the models it is set aside for. Pure.
//!
//! Only what says something of the upstream counts. One conversation that makes it fail each time is no
//! reason to keep everybody else away, so failures count once a session.

use std::ops::RangeInclusive;
use std::time::Duration;

use hubbub_protocol::SessionId;
use tokio::time::Instant;

use super::Verdict;
use super::limit::Limit;
use super::request::RequestId;

/// Sessions whose attempts failed in a row, with no answer in between, that open the breaker.
const BREAKER_SESSIONS: usize = 3;

/// How long a failure is remembered.
const FAILURE_REMEMBERED: Duration = Duration::from_mins(2);

/// How long an open breaker keeps everybody away before one attempt may try again.
const BREAKER_PAUSE: Duration = Duration::from_secs(5);

/// Longest pause an upstream may ask for itself (`Retry-After`).
const BREAKER_PAUSE_MAX: Duration = Duration::from_mins(1);

/// How long others are asked before an upstream whose set-up is wrong.
const SET_ASIDE_FOR: Duration = Duration::from_mins(1);

/// Models that one upstream is set aside for at once; for more it is asked each time.
const MODELS_SET_ASIDE: usize = 16;

/// Whether an upstream takes requests.
#[derive(Debug)]
enum Breaker {
    /// It does. The sessions that failed since it last answered, fewer than [`BREAKER_SESSIONS`].
    Closed { failed: Vec<(SessionId, Instant)> },
    /// It does not until then; afterwards one attempt may find out whether it is back.
    Open { until: Instant },
    /// That attempt is running.
    HalfOpen { probe: RequestId, since: Instant },
}

/// The set-up is wrong for requests that name this model (`None`: the upstream's own).
#[derive(Debug)]
struct SetAside {
    model: Option<String>,
    until: Instant,
}

/// One upstream, as the pool sees it.
#[derive(Debug)]
pub(crate) struct Health {
    limit: Limit,
    busy: u32,
    breaker: Breaker,
    /// Kept after its time, until it answers: so it is told once.
    set_aside: Vec<SetAside>,
}

/// A slot that comes back.
#[derive(Clone, Debug)]
pub(crate) struct Returned {
    pub(crate) id: RequestId,
    pub(crate) session: SessionId,
    pub(crate) model: Option<String>,
    pub(crate) verdict: Verdict,
    pub(crate) used: Used,
}

/// What an attempt took so far, in tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// What the pool should tell of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Opened,
    Closed,
    SetAside,
}

impl Health {
    pub(super) fn new(slots: RangeInclusive<u32>) -> Self {
        Self {
            limit: Limit::new(*slots.start(), *slots.end()),
            busy: 0,
            breaker: Breaker::Closed { failed: Vec::new() },
            set_aside: Vec::new(),
        }
    }

    /// Slots it has now.
    pub(super) fn limit(&self) -> u32 {
        self.limit.now()
    }

    pub(super) fn busy(&self) -> u32 {
        self.busy
    }

    /// Whether a request may be sent now. A probe does not wait for answers that are still streaming.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        let takes = match self.breaker {
            Breaker::Closed { .. } => true,
            Breaker::Open { until } => now >= until,
            Breaker::HalfOpen { .. } => false,
        };
        takes && self.busy < self.limit()
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.breaker, Breaker::Closed { .. })
    }

    /// Until it is asked again, if it takes nothing now.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        match self.breaker {
            Breaker::Closed { .. } => None,
            Breaker::Open { until } => Some(until.saturating_duration_since(now)),
            // If this attempt fails, so long until the next.
            Breaker::HalfOpen { since, .. } => {
                Some((since + BREAKER_PAUSE).saturating_duration_since(now))
            }
        }
    }

    pub(super) fn is_set_aside(&self, model: Option<&str>, now: Instant) -> bool {
        let known = |aside: &SetAside| aside.model.as_deref() == model && now < aside.until;
        self.set_aside.iter().any(known)
    }

    pub(super) fn is_set_aside_for_any(&self, now: Instant) -> bool {
        self.set_aside.iter().any(|aside| now < aside.until)
    }

    /// Whether it failed this session lately, and nobody has had an answer since. Once its breaker was
    /// opened that is forgotten: somebody has to find out whether it is back.
    pub(super) fn failed_lately(&self, session: SessionId, now: Instant) -> bool {
        match &self.breaker {
            Breaker::Closed { failed } => failed
                .iter()
                .any(|(known, at)| *known == session && now < *at + FAILURE_REMEMBERED),
            Breaker::Open { .. } | Breaker::HalfOpen { .. } => false,
        }
    }

    pub(super) fn occupy(&mut self, id: RequestId, now: Instant) {
        self.busy += 1;
        if matches!(self.breaker, Breaker::Open { .. }) {
            self.breaker = Breaker::HalfOpen {
                probe: id,
                since: now,
            };
        }
    }

    pub(super) fn release(&mut self, now: Instant, returned: &Returned) -> Option<Change> {
        self.busy = self.busy.saturating_sub(1);
        self.learn(now, returned)
    }

    /// An answer has begun, so long after it was asked for.
    pub(super) fn first_word(&mut self, wait: Duration) {
        self.limit.first_word(wait, self.busy);
    }

    /// Learns how an attempt went, or goes.
    pub(super) fn learn(&mut self, now: Instant, returned: &Returned) -> Option<Change> {
        let is_probe =
            matches!(self.breaker, Breaker::HalfOpen { probe, .. } if probe == returned.id);
        match returned.verdict {
            Verdict::Answered => {
                self.set_aside.retain(|aside| aside.model != returned.model);
                self.answered(is_probe)
            }
            Verdict::Responded => is_probe.then(|| self.close()),
            Verdict::Faulty => self.failed(now, returned.session, None, is_probe),
            Verdict::Busy(pause) => {
                self.limit.overloaded(now);
                self.failed(now, returned.session, pause, is_probe)
            }
            Verdict::Misconfigured => {
                // It is reached, and that is all a probe can find out.
                let closed = is_probe.then(|| self.close());
                self.set_aside_for(returned.model.as_deref(), now)
                    .or(closed)
            }
            Verdict::Neutral => {
                if is_probe {
                    self.breaker = Breaker::Open { until: now };
                }
                None
            }
        }
    }

    /// An answer that was begun before the breaker opened says nothing of requests that are sent now.
    fn answered(&mut self, is_probe: bool) -> Option<Change> {
        match &mut self.breaker {
            Breaker::Closed { failed } => {
                failed.clear();
                None
            }
            _ => is_probe.then(|| self.close()),
        }
    }

    fn close(&mut self) -> Change {
        self.breaker = Breaker::Closed { failed: Vec::new() };
        Change::Closed
    }

    fn failed(
        &mut self,
        now: Instant,
        session: SessionId,
        asked: Option<Duration>,
        is_probe: bool,
    ) -> Option<Change> {
        let pause = asked.unwrap_or(BREAKER_PAUSE).min(BREAKER_PAUSE_MAX);
        let opens = match &mut self.breaker {
            Breaker::Closed { failed } => {
                failed.retain(|(known, at)| *known != session && now < *at + FAILURE_REMEMBERED);
                failed.push((session, now));
                asked.is_some() || failed.len() >= BREAKER_SESSIONS
            }
            Breaker::Open { until } => {
                // Late words of the same trouble; only a longer pause that it asks for counts.
                if asked.is_some() {
                    *until = (*until).max(now + pause);
                }
                return None;
            }
            Breaker::HalfOpen { .. } => is_probe,
        };
        if !opens {
            return None;
        }
        let was_open = self.is_open();
        self.breaker = Breaker::Open { until: now + pause };
        (!was_open).then_some(Change::Opened)
    }

    fn set_aside_for(&mut self, model: Option<&str>, now: Instant) -> Option<Change> {
        let until = now + SET_ASIDE_FOR;
        let mut aside = self.set_aside.iter_mut();
        if let Some(known) = aside.find(|aside| aside.model.as_deref() == model) {
            known.until = until;
            return None;
        }
        if self.set_aside.len() >= MODELS_SET_ASIDE {
            self.set_aside.retain(|aside| now < aside.until);
        }
        if self.set_aside.len() < MODELS_SET_ASIDE {
            let model = model.map(str::to_owned);
            self.set_aside.push(SetAside { model, until });
        }
        Some(Change::SetAside)
    }
}
