//! `Breakers`: targets that fail again and again are left alone for a while, and then tried again by real calls.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use evenkeel_protocol::Endpoint;

use crate::config::BreakerConfig;

/// Targets remembered; one that is closed makes room, else the first to recover.
const MAX_TARGETS: usize = 256;

/// ```text
///            failure x threshold                permit() after `until`
///   Closed ----------------------> Open{until} ------------------------> HalfOpen
///     ^  ^                          |    ^                                |    |
///     |  +--------- success --------+    +------------- failure ----------+    |
///     +------------------------- success x max_requests -----------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    HalfOpen { probes: u32, successes: u32 },
    Open { until: Instant },
}

/// Whether a target may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    Go,
    Refuse,
    /// The probes under way decide.
    Wait,
}

/// What a result changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Closed,
    Opened,
}

#[derive(Debug)]
pub(crate) struct Breakers {
    failure_threshold: u32,
    reset_timeout: Duration,
    max_requests: u32,
    targets: BTreeMap<Endpoint, State>,
}

impl Breakers {
    pub(crate) fn new(config: BreakerConfig) -> Self {
        Self {
            failure_threshold: config.failure_threshold,
            reset_timeout: config.reset_timeout,
            max_requests: config.max_requests,
            targets: BTreeMap::new(),
        }
    }

    /// Asks to dial; each `Go` is answered by `record` or `cancel`.
    pub(crate) fn permit(&mut self, now: Instant, target: &Endpoint) -> Permit {
        let Some(state) = self.targets.get_mut(target) else { return Permit::Go };
        match *state {
            State::Closed { .. } => Permit::Go,
            State::Open { until } if now < until => Permit::Refuse,
            State::Open { .. } => {
                *state = State::HalfOpen { probes: 1, successes: 0 };
                Permit::Go
            }
            State::HalfOpen { probes, successes } if probes + successes < self.max_requests => {
                *state = State::HalfOpen { probes: probes + 1, successes };
                Permit::Go
            }
            State::HalfOpen { .. } => Permit::Wait,
        }
    }

    /// Takes the result of a permitted dial.
    pub(crate) fn record(&mut self, now: Instant, target: &Endpoint, success: bool) -> Option<Change> {
        let state = match self.targets.get(target) {
            Some(state) => *state,
            None if success => return None,
            None => State::Closed { failures: 0 },
        };
        let next = match (state, success) {
            (State::Closed { failures }, false) if failures + 1 >= self.failure_threshold => {
                Some(State::Open { until: now + self.reset_timeout })
            }
            (State::Closed { failures }, false) => Some(State::Closed { failures: failures + 1 }),
            // Dials that were under way when it opened: a failure says nothing new, a success disproves it.
            (State::Closed { .. } | State::Open { .. }, true) => None,
            (open @ State::Open { .. }, false) => Some(open),
            (State::HalfOpen { successes, .. }, true) if successes + 1 >= self.max_requests => None,
            (State::HalfOpen { probes, successes }, true) => {
                Some(State::HalfOpen { probes: probes.saturating_sub(1), successes: successes + 1 })
            }
            (State::HalfOpen { .. }, false) => Some(State::Open { until: now + self.reset_timeout }),
        };
        let was_closed = matches!(state, State::Closed { .. });
        match next {
            None => {
                self.targets.remove(target);
                (!was_closed).then_some(Change::Closed)
            }
            Some(next) => {
                self.make_room(target);
                self.targets.insert(target.clone(), next);
                let opened = matches!(next, State::Open { .. }) && !matches!(state, State::Open { .. });
                opened.then_some(Change::Opened)
            }
        }
    }

    /// Gives a permit back unused.
    pub(crate) fn cancel(&mut self, target: &Endpoint) {
        if let Some(State::HalfOpen { probes, .. }) = self.targets.get_mut(target) {
            *probes = probes.saturating_sub(1);
        }
    }

    fn make_room(&mut self, target: &Endpoint) {
        if self.targets.len() < MAX_TARGETS || self.targets.contains_key(target) {
            return;
        }
        let first = self.targets.iter().min_by_key(|(_, state)| match state {
            State::Closed { .. } => (0, None),
            State::Open { until } => (1, Some(*until)),
            State::HalfOpen { .. } => (2, None),
        });
        if let Some(first) = first.map(|(target, _)| target.clone()) {
            self.targets.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn breakers() -> Breakers {
        Breakers::new(BreakerConfig {
            failure_threshold: 5,
            reset_timeout: Duration::from_secs(60),
            max_requests: 3,
        })
    }

    fn opened(now: Instant, target: &Endpoint) -> Breakers {
        let mut breakers = breakers();
        for failure in 1..=5 {
            assert_eq!(breakers.permit(now, target), Permit::Go);
            let change = breakers.record(now, target, false);
            assert_eq!(change, (failure == 5).then_some(Change::Opened));
        }
        breakers
    }

    #[test]
    fn five_failures_open_and_three_probes_close() {
        let (now, target) = (origin(), Endpoint::new("t", 1));
        let mut breakers = opened(now, &target);
        assert_eq!(breakers.permit(now + Duration::from_secs(59), &target), Permit::Refuse);
        let later = now + Duration::from_secs(60);
        for _ in 0..3 {
            assert_eq!(breakers.permit(later, &target), Permit::Go);
        }
        assert_eq!(breakers.permit(later, &target), Permit::Wait);
        assert_eq!(breakers.record(later, &target, true), None);
        assert_eq!(breakers.record(later, &target, true), None);
        assert_eq!(breakers.record(later, &target, true), Some(Change::Closed));
        assert_eq!(breakers.permit(later, &target), Permit::Go);
    }

    #[test]
    fn a_failed_probe_opens_again_and_a_cancelled_one_is_free_again() {
        let (now, target) = (origin(), Endpoint::new("t", 1));
        let mut breakers = opened(now, &target);
        let later = now + Duration::from_secs(60);
        for _ in 0..10 {
            assert_eq!(breakers.permit(later, &target), Permit::Go);
            breakers.cancel(&target);
        }
        assert_eq!(breakers.permit(later, &target), Permit::Go);
        assert_eq!(breakers.record(later, &target, false), Some(Change::Opened));
        assert_eq!(breakers.permit(later, &target), Permit::Refuse);
    }

    #[test]
    fn successes_between_failures_keep_it_closed_and_the_memory_is_bounded() {
        let (now, target) = (origin(), Endpoint::new("t", 1));
        let mut breakers = breakers();
        for _ in 0..20 {
            for _ in 0..4 {
                assert_eq!(breakers.record(now, &target, false), None);
            }
            assert_eq!(breakers.record(now, &target, true), None);
        }
        for port in 1..2000 {
            breakers.record(now, &Endpoint::new("t", port), false);
        }
        assert_eq!(breakers.targets.len(), MAX_TARGETS);
    }
}
