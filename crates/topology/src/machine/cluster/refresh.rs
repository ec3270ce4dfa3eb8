//! When the map is read again, and from whom.

use std::time::{Duration, Instant};

use evenkeel_protocol::Endpoint;

use super::ClusterResolver;
use crate::{
    error::{AskFailure, Found, ResolveError},
    machine::action::{Action, ViewCommand},
    snapshot::Health,
};

/// Least time between two refreshes; it doubles while they keep being wanted, up to the longest.
const LEAST: Duration = Duration::from_millis(100);
const LEAST_MAX: Duration = Duration::from_millis(1600);
/// Quiet for so long, and the least time is the first again.
const QUIET: Duration = Duration::from_secs(5);
/// A refresh waits for a random part of this for each node of the cluster, so that the clients of a large one, which all see the
/// same `MOVED`, do not all ask at once.
const SPREAD: Duration = Duration::from_millis(1);
const SPREAD_MAX: Duration = Duration::from_millis(250);
/// Without an answer for so long, another node is asked as well: one that is stopped must not hold up the rest.
const HEDGE: Duration = Duration::from_millis(100);
/// Nodes asked in one refresh at the most, and at once while there is no map.
const MAX_TRIES: usize = 6;
const FIRST_TRIES: usize = 3;
/// Waits between rounds in which nobody answered.
const ROUND_WAIT: Duration = Duration::from_millis(100);
const ROUND_WAIT_MAX: Duration = Duration::from_secs(2);

/// Where a refresh stands.
///
/// ```text
///          wanted              time              believed
///   Idle ─────────▶ Due{at} ─────────▶ Asking ─────────────▶ Idle
///                     ▲                  │ nobody answered
///                     └──────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asking { hedge_at: Instant },
    Due { at: Instant },
    Idle,
}

#[derive(Debug)]
pub(super) struct Refresh {
    state: State,
    /// Wanted once more while one is being asked.
    again: bool,
    last: Option<Instant>,
    /// Refreshes in quick succession.
    pressure: u32,
    failed_rounds: u32,
    periodic_at: Instant,
    /// Whose view is awaited, and by which command.
    asked: Vec<(Endpoint, ViewCommand)>,
    /// Who was asked in this round, and what came of it.
    tried: Vec<(Endpoint, Option<Outcome>)>,
    /// Who does not know `CLUSTER SHARDS`.
    only_slots: Vec<Endpoint>,
}

#[derive(Clone, Debug)]
enum Outcome {
    AwaitsKind,
    Failed(AskFailure),
    Is(Found),
    NoSlots,
    Stale,
}

impl Refresh {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Due { at: now },
            again: false,
            last: None,
            pressure: 0,
            failed_rounds: 0,
            periodic_at: now,
            asked: Vec::new(),
            tried: Vec::new(),
            only_slots: Vec::new(),
        }
    }

    pub(super) fn due(&self) -> Instant {
        match self.state {
            State::Asking { hedge_at } => hedge_at,
            State::Due { at } => at,
            State::Idle => self.periodic_at,
        }
    }

    pub(super) fn answered(&mut self, endpoint: &Endpoint, failure: Option<AskFailure>) {
        self.asked.retain(|(asked, _)| asked != endpoint);
        self.note(endpoint, failure.map(Outcome::Failed));
    }

    pub(super) fn asked_shards(&self, endpoint: &Endpoint) -> bool {
        self.asked.iter().any(|(asked, by)| asked == endpoint && *by == ViewCommand::Shards)
    }

    pub(super) fn only_slots(&mut self, endpoint: &Endpoint) {
        self.only_slots.push(endpoint.clone());
    }

    pub(super) fn awaits_kind(&mut self, endpoint: &Endpoint) {
        self.note(endpoint, Some(Outcome::AwaitsKind));
    }

    /// Gives whether its kind was awaited.
    pub(super) fn learned_kind(&mut self, endpoint: &Endpoint, kind: Found) -> bool {
        let is_awaited =
            self.tried.iter().any(|(tried, o)| tried == endpoint && matches!(o, Some(Outcome::AwaitsKind)));
        if is_awaited {
            self.note(endpoint, Some(Outcome::Is(kind)));
        }
        is_awaited
    }

    pub(super) fn found_no_slots(&mut self, endpoint: &Endpoint) {
        self.note(endpoint, Some(Outcome::NoSlots));
    }

    pub(super) fn found_stale(&mut self, endpoint: &Endpoint) {
        self.note(endpoint, Some(Outcome::Stale));
    }

    fn note(&mut self, endpoint: &Endpoint, outcome: Option<Outcome>) {
        if let Some(tried) = self.tried.iter_mut().find(|(tried, _)| tried == endpoint) {
            tried.1 = outcome;
        }
    }

    fn count(&self, is_meant: impl Fn(&Outcome) -> bool) -> usize {
        self.tried.iter().filter(|(_, outcome)| outcome.as_ref().is_some_and(&is_meant)).count()
    }

    fn awaits(&self) -> bool {
        let awaits_kind = self.tried.iter().any(|(_, o)| matches!(o, Some(Outcome::AwaitsKind)));
        !self.asked.is_empty() || awaits_kind
    }
}

impl ClusterResolver {
    /// The map may be old: one refresh, soon.
    pub(super) fn want_refresh(&mut self, now: Instant) {
        match self.refresh.state {
            State::Asking { .. } => self.refresh.again = true,
            State::Due { .. } => {}
            State::Idle => {
                let quiet = self.refresh.last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
                self.refresh.pressure = if quiet { 0 } else { self.refresh.pressure + 1 };
                let least = LEAST.saturating_mul(1 << self.refresh.pressure.min(8)).min(LEAST_MAX);
                let nodes = u32::try_from(self.published.nodes().len()).unwrap_or(u32::MAX);
                let spread = self.rng.below(spread(nodes));
                let soonest = self.refresh.last.map_or(now, |last| (last + least).max(now));
                self.refresh.state = State::Due { at: soonest + Duration::from_micros(spread) };
            }
        }
    }

    /// `endpoint` knows better than all others: it is asked at once.
    pub(super) fn refresh_from(&mut self, now: Instant, endpoint: &Endpoint) {
        self.refresh.tried.clear();
        self.refresh.last = Some(now);
        self.refresh.state = State::Asking { hedge_at: now + HEDGE };
        self.ask_view(endpoint);
    }

    pub(super) fn step_refresh(&mut self, now: Instant) {
        match self.refresh.state {
            State::Due { at } if at <= now => self.begin(now),
            State::Idle if self.refresh.periodic_at <= now => self.begin(now),
            State::Asking { hedge_at } if hedge_at <= now => {
                self.refresh.state = State::Asking { hedge_at: now + HEDGE };
                self.ask_one();
                self.close_round(now);
            }
            State::Asking { .. } | State::Due { .. } | State::Idle => {}
        }
    }

    fn begin(&mut self, now: Instant) {
        self.refresh.tried.clear();
        self.refresh.again = false;
        self.refresh.last = Some(now);
        self.refresh.state = State::Asking { hedge_at: now + HEDGE };
        let count = if self.published.nodes().is_empty() { FIRST_TRIES } else { 1 };
        for _ in 0..count {
            self.ask_one();
        }
        self.close_round(now);
    }

    /// The answer was of no use.
    pub(super) fn ask_another(&mut self, now: Instant) {
        if matches!(self.refresh.state, State::Asking { .. }) {
            self.ask_one();
            self.close_round(now);
        }
    }

    /// Asks a random node that was not asked in this round: a sound one first, then any other, then the seeds.
    fn ask_one(&mut self) {
        let is_sound = |node: &&crate::snapshot::Node| {
            node.health == Health::Online && !self.lost.iter().any(|lost| lost.primary == node.endpoint)
        };
        let sound = self.published.nodes().iter().filter(is_sound).map(|node| &node.endpoint);
        let all = self.published.nodes().iter().map(|node| &node.endpoint);
        let untried = |endpoint: &&Endpoint| !self.refresh.tried.iter().any(|(tried, _)| tried == *endpoint);
        let mut candidates: Vec<Endpoint> = sound.filter(untried).cloned().collect();
        if candidates.is_empty() {
            candidates = all.chain(&self.config.seeds).filter(untried).cloned().collect();
        }
        if candidates.is_empty() || self.refresh.tried.len() >= MAX_TRIES.max(self.config.seeds.len()) {
            return;
        }
        let chosen = self.rng.below(candidates.len() as u64) as usize;
        if let Some(endpoint) = candidates.into_iter().nth(chosen) {
            self.ask_view(&endpoint);
        }
    }

    pub(super) fn ask_view(&mut self, endpoint: &Endpoint) {
        let only_slots = self.refresh.only_slots.contains(endpoint);
        let by = if only_slots { ViewCommand::Slots } else { ViewCommand::Shards };
        if !self.refresh.tried.iter().any(|(tried, _)| tried == endpoint) {
            self.refresh.tried.push((endpoint.clone(), None));
        }
        self.refresh.note(endpoint, None);
        if !self.refresh.asked.iter().any(|(asked, _)| asked == endpoint) {
            self.refresh.asked.push((endpoint.clone(), by));
            self.actions.push_back(Action::AskView { endpoint: endpoint.clone(), by });
        }
    }

    /// A view was believed.
    pub(super) fn end_refresh(&mut self, now: Instant) {
        self.refresh.failed_rounds = 0;
        self.refresh.periodic_at = now + self.rng.at_most(self.config.refresh_interval);
        if matches!(self.refresh.state, State::Asking { .. }) {
            self.refresh.state = State::Idle;
            if std::mem::take(&mut self.refresh.again) {
                self.want_refresh(now);
            }
        }
    }

    /// Everybody who could be asked was asked, and nobody had an answer.
    fn close_round(&mut self, now: Instant) {
        if self.refresh.awaits() || !matches!(self.refresh.state, State::Asking { .. }) {
            return;
        }
        let wait = ROUND_WAIT.saturating_mul(1 << self.refresh.failed_rounds.min(8)).min(ROUND_WAIT_MAX);
        self.refresh.failed_rounds = self.refresh.failed_rounds.saturating_add(1);
        self.refresh.state = State::Due { at: now + self.rng.at_most(wait) };
        match self.refresh.count(|outcome| matches!(outcome, Outcome::Stale)) {
            0 => {
                let error = self.why_unresolved();
                self.actions.push_back(Action::Unresolved(error));
            }
            // Nobody at all knows the epoch that we know: the cluster was set up anew.
            stale if stale == self.refresh.tried.len() => self.epoch = 0,
            _ => {}
        }
    }

    fn why_unresolved(&self) -> ResolveError {
        for (endpoint, outcome) in &self.refresh.tried {
            let endpoint = endpoint.clone();
            match outcome {
                Some(Outcome::Is(found)) => {
                    return ResolveError::WrongKind { endpoint, found: *found, expected: "a cluster node" };
                }
                Some(Outcome::Failed(failure)) if failure.is_cluster_off() => {
                    let found = Found::DataNode;
                    return ResolveError::WrongKind { endpoint, found, expected: "a cluster node" };
                }
                Some(Outcome::NoSlots) => return ResolveError::NoSlots { endpoint },
                Some(Outcome::Failed(_) | Outcome::AwaitsKind | Outcome::Stale) | None => {}
            }
        }
        let failure = |outcome: &Option<Outcome>| match outcome {
            Some(Outcome::Failed(failure)) => Some(failure.clone()),
            _ => None,
        };
        let mut seeds: Vec<_> =
            self.refresh.tried.iter().filter_map(|(e, o)| Some((e.clone(), failure(o)?))).collect();
        seeds.sort_by_key(|(endpoint, _)| self.config.seeds.iter().position(|seed| seed == endpoint));
        ResolveError::NoneReachable { seeds }
    }
}

/// Microseconds over which a cluster of so many nodes spreads its refreshes.
fn spread(nodes: u32) -> u64 {
    let spread = SPREAD.saturating_mul(nodes).min(SPREAD_MAX);
    u64::try_from(spread.as_micros()).unwrap_or(u64::MAX)
}
