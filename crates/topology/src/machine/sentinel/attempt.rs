//! Failovers under way, as the sentinels that lead them announce them.

use std::time::{Duration, Instant};

use evenkeel_protocol::Endpoint;

/// Sentinel's own default of `failover-timeout`: a failover of which nothing was heard for so long is over.
const LIMIT: Duration = Duration::from_secs(180);
/// A sentinel leads one failover of a name at a time; repeated announcements end here.
const MAX_ATTEMPTS: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) sentinel: Endpoint,
    /// A lower bound of the epoch that the promoted replica will have.
    pub(super) epoch: u64,
    /// The primary that it began with.
    meant: Endpoint,
    /// The primary that is replaced by it.
    pub(super) primary: Endpoint,
    /// The replica that is to be promoted.
    pub(super) selected: Option<Endpoint>,
    /// Writes wait for its end.
    pub(super) blocks: bool,
    /// The primary hands over by itself: nothing that it acknowledges can be lost.
    pub(super) is_passing: bool,
    /// When it is about to be told to, and writes have to wait.
    stops_at: Option<Instant>,
    /// The sentinel says that it is over.
    is_finished: bool,
    since: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Attempts(Vec<Attempt>);

impl Attempts {
    /// Notes an announcement of `sentinel`; gives the attempt and whether it is new.
    pub(super) fn note(
        &mut self,
        now: Instant,
        sentinel: &Endpoint,
        primary: &Endpoint,
        epoch: u64,
    ) -> Option<(&mut Attempt, bool)> {
        let known = self.0.iter().position(|a| a.sentinel == *sentinel && a.epoch == epoch);
        if known.is_none() {
            // The older attempt of this sentinel has ended without a word.
            self.0.retain(|attempt| attempt.sentinel != *sentinel);
            if self.0.len() >= MAX_ATTEMPTS {
                return None;
            }
            self.0.push(Attempt {
                sentinel: sentinel.clone(),
                epoch,
                meant: primary.clone(),
                primary: primary.clone(),
                selected: None,
                blocks: false,
                is_passing: false,
                stops_at: None,
                is_finished: false,
                since: now,
            });
        }
        let index = known.unwrap_or(self.0.len() - 1);
        let attempt = self.0.get_mut(index)?;
        attempt.is_finished = false;
        Some((attempt, known.is_none()))
    }

    /// Forgets the failover that `sentinel` gave up; gives whether there was something.
    pub(super) fn end(&mut self, sentinel: &Endpoint) -> bool {
        let before = self.0.len();
        self.0.retain(|attempt| attempt.sentinel != *sentinel);
        self.0.len() < before
    }

    /// `sentinel` has taken over that `primary` is in office: it replaces no other one any more.
    pub(super) fn end_others_than_of(&mut self, primary: &Endpoint, sentinel: &Endpoint) {
        self.0.retain(|attempt| attempt.sentinel != *sentinel || attempt.meant == *primary);
    }

    /// `sentinel` says that its failover is over. Until its primary was reached, or the hold ends, writes wait on: what goes to
    /// the old one would be lost.
    pub(super) fn finish(&mut self, sentinel: &Endpoint) {
        for attempt in self.0.iter_mut().filter(|attempt| attempt.sentinel == *sentinel) {
            attempt.is_finished = true;
        }
        self.0.retain(|attempt| attempt.blocks || !attempt.is_finished);
    }

    /// A primary of this epoch stands: older attempts are over.
    pub(super) fn end_up_to(&mut self, epoch: u64) {
        self.0.retain(|attempt| attempt.epoch > epoch);
    }

    /// `primary` has taken over. Nothing waits for the replacement of another one any more; but a newer failover that has chosen
    /// whom to promote promotes it all the same, whomever it meant to replace: it replaces this one.
    pub(super) fn taken_over(&mut self, primary: &Endpoint) {
        for attempt in self.0.iter_mut().filter(|attempt| attempt.primary != *primary) {
            if attempt.selected.as_ref().is_some_and(|selected| selected != primary) && !attempt.is_finished {
                attempt.primary = primary.clone();
            } else {
                attempt.blocks = false;
                attempt.stops_at = None;
            }
        }
        self.0.retain(|attempt| attempt.blocks || !attempt.is_finished);
    }

    pub(super) fn end_overdue(&mut self, now: Instant) {
        self.0.retain(|attempt| now.saturating_duration_since(attempt.since) < LIMIT);
    }

    /// The primary that `sentinel` replaces hands over by itself; gives whether writes need no longer wait.
    pub(super) fn let_pass(&mut self, sentinel: &Endpoint) -> bool {
        let mut waited = false;
        for attempt in self.0.iter_mut().filter(|attempt| attempt.sentinel == *sentinel) {
            if !std::mem::replace(&mut attempt.is_passing, true) && attempt.selected.is_none() {
                waited |= std::mem::take(&mut attempt.blocks);
            }
        }
        waited
    }

    /// `sentinel` replaces a primary, and does not let it hand over: what was said before was of another failover. Gives whether
    /// writes have to wait from here on.
    pub(super) fn stop_passing(&mut self, sentinel: &Endpoint) -> bool {
        let mut waits = false;
        for attempt in self.0.iter_mut().filter(|a| a.sentinel == *sentinel && a.is_passing) {
            attempt.is_passing = false;
            attempt.stops_at = None;
            waits |= !std::mem::replace(&mut attempt.blocks, true);
        }
        waits
    }

    /// The primary that `sentinel` replaces, if it hands over by itself, will be told to at `at`.
    pub(super) fn stop_passing_at(&mut self, sentinel: &Endpoint, at: Instant) {
        for attempt in self.0.iter_mut().filter(|a| a.sentinel == *sentinel && a.is_passing && !a.blocks) {
            attempt.stops_at = Some(attempt.stops_at.map_or(at, |known| known.min(at)));
        }
    }

    /// When the first of them has to stop.
    pub(super) fn next_stop(&self) -> Option<Instant> {
        self.0.iter().filter_map(|attempt| attempt.stops_at).min()
    }

    /// Writes wait for those whose time has come; gives whether `primary` is among them.
    pub(super) fn stop_due(&mut self, now: Instant, primary: &Endpoint) -> bool {
        let mut is_due = false;
        for attempt in &mut self.0 {
            if attempt.stops_at.take_if(|at| *at <= now).is_some() {
                attempt.blocks = true;
                is_due |= attempt.primary == *primary;
            }
        }
        is_due
    }

    /// Who leads the failover in which a primary hands over to `heir` by itself.
    pub(super) fn passing_to(&self, heir: &Endpoint) -> Option<Endpoint> {
        let passing = |a: &&Attempt| a.is_passing && a.selected.as_ref() == Some(heir);
        self.0.iter().find(passing).map(|attempt| attempt.sentinel.clone())
    }

    /// Writes no longer wait for any of them.
    pub(super) fn unblock(&mut self) {
        for attempt in &mut self.0 {
            attempt.blocks = false;
        }
        self.0.retain(|attempt| !attempt.is_finished);
    }

    /// A failover that `sentinel` leads is known.
    pub(super) fn is_led_by(&self, sentinel: &Endpoint) -> bool {
        self.0.iter().any(|attempt| attempt.sentinel == *sentinel)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn blocks(&self, primary: &Endpoint) -> bool {
        self.0.iter().any(|attempt| attempt.blocks && attempt.primary == *primary)
    }

    /// The newest epoch in which `endpoint` was selected.
    pub(super) fn epoch_of(&self, endpoint: &Endpoint) -> Option<u64> {
        let selected = self.0.iter().filter(|attempt| attempt.selected.as_ref() == Some(endpoint));
        selected.map(|attempt| attempt.epoch).max()
    }

    pub(super) fn mentions(&self, endpoint: &Endpoint) -> bool {
        self.0.iter().any(|a| a.selected.as_ref() == Some(endpoint) || a.primary == *endpoint)
    }
}
