//! Who is the primary, whether writes wait, and what is asked next.

use std::time::{Duration, Instant};

use evenkeel_protocol::Endpoint;

use super::{
    AFTER_CHANGE, ALONE_STEP, FAST_FOR, FAST_STEP, HEARD_STEP, HOLD_LIMIT, Hold, PATIENCE, PATIENT_STEP,
    Phase, REFUSED_FOR, REFUSED_STEP, ROUND_WAIT, ROUND_WAIT_MAX, ROUND_WAIT_MAX_ANSWERED, SENTINEL_STEP,
    SETTLE, SentinelResolver, Settle,
    group::Link,
    nodes::{Current, Said},
};
use crate::{
    error::{Found, ResolveError},
    machine::action::{Action, Report, SentinelQuestion},
};

impl SentinelResolver {
    /// Draws every conclusion that the evidence allows. Called after each observation.
    pub(super) fn decide(&mut self, now: Instant) {
        if let Some((primary, epoch)) = self.winner(now) {
            self.adopt(now, primary, epoch);
        }
        if self.is_superseded() {
            self.doubt(now);
            self.hold(None);
        }
        self.release_if_proven();
        self.report_unexpected();
        self.calm_down(now);
        self.close_round(now);
        self.publish_if_changed();
    }

    /// The node that is to become the primary in place of the present one.
    fn winner(&mut self, now: Instant) -> Option<(Endpoint, u64)> {
        let says_primary = self.nodes.iter().filter(|node| node.said == Said::Primary);
        let claims = says_primary.filter_map(|node| Some((self.claim(&node.endpoint)?, &node.endpoint)));
        let Some(current) = &self.current else {
            let (epoch, best) = claims.max_by_key(|(epoch, _)| *epoch)?;
            let best = best.clone();
            return self.is_settled(now, epoch).then_some((best, epoch));
        };
        let rivals: Vec<_> = claims.filter(|(_, endpoint)| **endpoint != current.endpoint).collect();
        let newest = rivals.iter().max_by_key(|(epoch, _)| *epoch);
        if let Some((epoch, newest)) = newest.filter(|(epoch, _)| *epoch > current.epoch) {
            return Some(((*newest).clone(), *epoch));
        }
        match self.nodes.said(&current.endpoint) {
            Said::Primary => None,
            // It handed its role over by itself (`FAILOVER`), which needs no sentinel.
            Said::Replica { of: Some(heir) } if *self.nodes.said(heir) == Said::Primary => {
                Some((heir.clone(), current.epoch))
            }
            // Sentinels that were set up anew begin with epoch 0, and an epoch may have been taken for a newer one's: a majority
            // is believed when nothing else is left.
            _ => {
                let lost = current.lost_since.is_some_and(|since| now.duration_since(since) >= PATIENCE);
                let agreed =
                    |endpoint: &Endpoint| self.sentinels.naming(endpoint) >= self.sentinels.majority();
                let found = rivals.iter().find(|(_, endpoint)| lost && agreed(endpoint));
                found.map(|(epoch, endpoint)| ((*endpoint).clone(), *epoch))
            }
        }
    }

    /// The newest epoch in which a sentinel made this node the primary.
    fn claim(&self, endpoint: &Endpoint) -> Option<u64> {
        self.attempts.epoch_of(endpoint).max(self.sentinels.epoch_of(endpoint))
    }

    /// The first answers agree, or the best of a majority is known, or they had time enough.
    fn is_settled(&mut self, now: Instant, best: u64) -> bool {
        let says = || self.sentinels.iter().filter_map(|sentinel| sentinel.says.as_ref());
        let first = says().next().map(|(endpoint, _)| endpoint);
        if says().all(|(endpoint, _)| Some(endpoint) == first) {
            return true;
        }
        let newest = says().map(|(_, epoch)| *epoch).max();
        let is_majority = says().count() >= self.sentinels.majority();
        let is_best = is_majority && newest.is_none_or(|newest| best >= newest);
        if self.settle == Settle::Open {
            self.settle = Settle::Until(now + SETTLE);
        }
        is_best || self.settle == Settle::Over
    }

    fn adopt(&mut self, now: Instant, primary: Endpoint, epoch: u64) {
        let from = self.current.take().map(|current| current.endpoint);
        // Sentinels that name it may know a newer epoch than the one by which it won.
        let epoch = epoch.max(self.sentinels.epoch_of(&primary).unwrap_or(0));
        self.current = Some(Current { endpoint: primary.clone(), epoch, since: now, lost_since: None });
        self.resets = self.attempts.passing_to(&primary);
        self.attempts.end_up_to(epoch);
        self.attempts.taken_over(&primary);
        if self.attempts.blocks(&primary) && self.hold.is_none() {
            self.hold(Some(now + HOLD_LIMIT));
        }
        let from_is_down = self.odown.take().is_some();
        self.fast_until = None;
        self.settle = Settle::Open;
        self.rounds = 0;
        self.is_round_open = false;
        if self.phase == Phase::Searching {
            self.phase = Phase::Calm;
        }
        self.next_ask = now + AFTER_CHANGE;
        self.is_settling = true;
        self.publish_if_changed();
        self.actions.push_back(Action::PrimaryChanged { from, to: primary, epoch, from_is_down });
    }

    /// Writes wait from here on, or wait on with another end.
    pub(super) fn hold(&mut self, until: Option<Instant>) {
        let is_told = self.hold.is_some_and(|hold| until.is_none() || hold.until == until);
        if !is_told {
            self.hold = Some(Hold { until });
            self.actions.push_back(Action::HoldWrites { until });
        }
    }

    pub(super) fn end_hold_that_is_over(&mut self, now: Instant) {
        let Some(hold) = &mut self.hold else { return };
        if hold.until.take_if(|until| *until <= now).is_none() {
            return;
        }
        self.actions.push_back(Action::HoldWrites { until: None });
        self.attempts.unblock();
        self.prove_current_anew();
    }

    /// The next release needs a word of the primary that is newer than now.
    pub(super) fn prove_current_anew(&mut self) {
        let Some(primary) = self.primary().cloned() else { return };
        if let Some(node) = self.nodes.find(&primary) {
            node.said = Said::Nothing;
        }
        self.ask_role(&primary);
    }

    /// A majority of the sentinels has another primary, which does not say so yet, or is lost again. What the old one
    /// acknowledges will be thrown away.
    fn is_superseded(&self) -> bool {
        self.current.as_ref().is_some_and(|current| {
            self.sentinels.superseding(&current.endpoint, current.epoch) >= self.sentinels.majority()
        })
    }

    fn release_if_proven(&mut self) {
        let Some(current) = &self.current else { return };
        let is_proven = *self.nodes.said(&current.endpoint) == Said::Primary;
        let is_free = !self.attempts.blocks(&current.endpoint) && !self.is_superseded();
        let primary = current.endpoint.clone();
        if is_proven && is_free && self.hold.take().is_some() {
            self.actions.push_back(Action::Release { primary });
        }
    }

    /// The primary is to be proven anew; every known node and every sentinel is asked.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.doubt_again(now, ALONE_STEP);
    }

    /// As [`doubt`](Self::doubt), of a primary that says itself that it is none.
    pub(super) fn doubt_refusing(&mut self, now: Instant) {
        if self.last_doubt.is_none_or(|last| last + REFUSED_FOR <= now) {
            self.refusals = 0;
        }
        let step = REFUSED_STEP.saturating_mul(1 << self.refusals.saturating_sub(1).min(8)).min(ALONE_STEP);
        if self.phase == Phase::Calm {
            self.refusals += 1;
        }
        self.doubt_again(now, step);
    }

    fn doubt_again(&mut self, now: Instant, pause: Duration) {
        if self.phase != Phase::Calm {
            return;
        }
        self.phase = Phase::Doubting;
        self.doubt_rounds = 0;
        for node in self.nodes.iter_mut() {
            node.forget();
        }
        let soonest = self.last_doubt.map_or(now, |last| last + pause);
        self.next_step = soonest.max(now);
        self.last_doubt = Some(self.next_step);
        self.next_ask = self.next_step;
        if self.next_step == now {
            self.step(now);
            self.ask_in_turn(now);
        }
    }

    /// A promotion is imminent.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.doubt(now);
        self.fast_until = Some(now + FAST_FOR);
        if self.phase == Phase::Doubting {
            self.step(now);
        }
    }

    /// Asks every node whose answer is not awaited.
    pub(super) fn step(&mut self, now: Instant) {
        for node in self.nodes.endpoints() {
            self.ask_role(&node);
        }
        let wait = if self.fast_until.is_some_and(|until| now < until) {
            FAST_STEP
        } else if !self.attempts.is_empty() || self.odown.is_some() {
            PATIENT_STEP
        } else {
            self.rng.at_most(ALONE_STEP)
        };
        self.next_step = now + wait;
    }

    /// Asks the sentinels, as often as the phase wants it.
    pub(super) fn ask_in_turn(&mut self, now: Instant) {
        match self.phase {
            Phase::Searching => return self.open_round(now),
            Phase::Doubting => {
                let round = self.doubt_rounds;
                self.doubt_rounds += 1;
                let is_heard = self.hears_everybody();
                self.next_ask = now + if is_heard { HEARD_STEP } else { SENTINEL_STEP };
                if is_heard && round > 0 {
                    let sentinels = self.sentinels.endpoints();
                    if let Some(sentinel) = sentinels.get(round % sentinels.len().max(1)) {
                        self.ask_sentinel(sentinel, SentinelQuestion::Primary);
                    }
                    return;
                }
            }
            Phase::Calm => {
                self.next_ask = now + self.config.poll_interval;
                if let Some(front) = self.sentinels.front() {
                    self.ask_sentinel(&front, SentinelQuestion::Members);
                }
                for node in self.nodes.endpoints() {
                    self.ask_role(&node);
                }
                if std::mem::take(&mut self.is_settling) && self.hears_everybody() {
                    return self.ask_sentinels_that_differ();
                }
            }
        }
        self.ask_all_sentinels();
    }

    /// An event link to every known sentinel stands.
    pub(super) fn hears_everybody(&self) -> bool {
        self.sentinels.iter().all(|sentinel| sentinel.link == Link::Up)
    }

    /// Asks those that named another primary, or none, when they spoke last.
    pub(super) fn ask_sentinels_that_differ(&mut self) {
        let Some(primary) = self.primary().cloned() else { return };
        let differs =
            |s: &&super::group::Sentinel| s.says.as_ref().is_none_or(|(named, _)| *named != primary);
        let differing: Vec<Endpoint> =
            self.sentinels.iter().filter(differs).map(|sentinel| sentinel.endpoint.clone()).collect();
        for sentinel in differing {
            self.ask_sentinel(&sentinel, SentinelQuestion::Primary);
        }
    }

    pub(super) fn watch_again(&mut self, now: Instant) {
        for sentinel in self.sentinels.iter_mut() {
            if matches!(sentinel.link, Link::Down { retry_at } if retry_at <= now) {
                sentinel.link = Link::Connecting;
                self.actions.push_back(Action::WatchSentinel { sentinel: sentinel.endpoint.clone() });
            }
        }
    }

    fn calm_down(&mut self, now: Instant) {
        let is_proven = self.primary().is_some_and(|primary| *self.nodes.said(primary) == Said::Primary);
        let is_quiet = self.attempts.is_empty() && self.odown.is_none() && self.hold.is_none();
        if self.phase == Phase::Doubting && is_proven && is_quiet {
            self.phase = Phase::Calm;
            self.fast_until = None;
            self.next_ask = now + AFTER_CHANGE;
        }
    }

    fn report_unexpected(&mut self) {
        let mut found = Vec::new();
        for node in self.nodes.iter() {
            let is_odd = node.said == Said::Primary
                && self.current.as_ref().is_some_and(|current| current.endpoint != node.endpoint)
                && self.claim(&node.endpoint).is_none();
            if is_odd != node.told_unexpected {
                found.push((node.endpoint.clone(), is_odd));
            }
        }
        for (endpoint, is_odd) in found {
            if let Some(node) = self.nodes.find(&endpoint) {
                node.told_unexpected = is_odd;
            }
            if is_odd {
                self.report(Report::UnexpectedPrimary { endpoint });
            }
        }
    }

    /// While searching: when every answer is in and no primary was proven, says why and sets the next round.
    fn close_round(&mut self, now: Instant) {
        let awaits = self.sentinels.iter().any(super::group::Sentinel::is_asked)
            || self.nodes.iter().any(super::nodes::DataNode::is_asked)
            || matches!(self.settle, Settle::Until(_));
        if self.phase != Phase::Searching || !self.is_round_open || awaits {
            return;
        }
        self.is_round_open = false;
        self.settle = Settle::Open;
        let has_answer = self.sentinels.iter().any(super::group::Sentinel::has_answered);
        let most = if has_answer { ROUND_WAIT_MAX_ANSWERED } else { ROUND_WAIT_MAX };
        let wait = ROUND_WAIT.saturating_mul(1 << self.rounds.min(8)).min(most);
        self.rounds = self.rounds.saturating_add(1);
        self.next_ask = now + self.rng.at_most(wait);
        self.actions.push_back(Action::Unresolved(self.why_unresolved()));
    }

    fn why_unresolved(&self) -> ResolveError {
        let named = self.sentinels.iter().filter_map(|sentinel| sentinel.says.as_ref());
        for (endpoint, _) in named {
            let node = self.nodes.iter().find(|node| node.endpoint == *endpoint);
            match node {
                None => return ResolveError::Denied { endpoint: endpoint.clone() },
                Some(node) => {
                    if let Some(found) = node.unproven() {
                        return ResolveError::PrimaryUnproven { endpoint: endpoint.clone(), found };
                    }
                }
            }
        }
        if let Some(sentinel) = self.sentinels.iter().find(|sentinel| !sentinel.knows_the_name) {
            let (name, sentinel) = (self.config.name.clone(), sentinel.endpoint.clone());
            return ResolveError::UnknownName { name, sentinel };
        }
        let failed = self.sentinels.iter().filter_map(|s| Some((s.endpoint.clone(), s.failure.clone()?)));
        let mut seeds: Vec<_> = failed.collect();
        // As they were configured, so that the first one is the one that people look at first.
        seeds.sort_by_key(|(endpoint, _)| self.config.seeds.iter().position(|seed| seed == endpoint));
        match seeds.iter().find(|(_, failure)| failure.is_unsupported()) {
            Some((endpoint, _)) => ResolveError::WrongKind {
                endpoint: endpoint.clone(),
                found: Found::DataNode,
                expected: "a sentinel",
            },
            None => ResolveError::NoneReachable { seeds },
        }
    }
}
