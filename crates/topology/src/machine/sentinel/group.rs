//! The sentinels: who they are, whose events are seen, what each said last.

use std::{cmp::Reverse, time::Duration, time::Instant};

use evenkeel_protocol::Endpoint;

use crate::{
    error::AskFailure,
    machine::{action::SentinelQuestion, jitter::Jitter},
};

/// More sentinels than anybody runs; a list from the wire ends here.
const MAX_SENTINELS: usize = 64;
/// First wait before an event link is made again, and the longest: a sentinel that restarts is back within a second.
const LINK_RETRY: Duration = Duration::from_millis(100);
const LINK_RETRY_MAX: Duration = Duration::from_secs(2);

/// The event link to a sentinel.
///
/// ```text
///           retry is due                  confirmed
///   Down ─────────────────▶ Connecting ─────────────▶ Up
///    ▲                          │                     │
///    └──────────────────────────┴─────────────────────┘  cut
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Down { retry_at: Instant },
    Up,
}

#[derive(Debug)]
pub(super) struct Sentinel {
    pub(super) endpoint: Endpoint,
    is_seed: bool,
    id: Option<String>,
    pub(super) link: Link,
    link_failures: u32,
    /// The address that it gives to clients and the epoch of its configuration.
    pub(super) says: Option<(Endpoint, u64)>,
    pub(super) knows_the_name: bool,
    /// The newest epoch that it published while its link has stood: its later events are of this one or a newer one.
    pub(super) epoch_seen: Option<u64>,
    pub(super) failure: Option<AskFailure>,
    asked_primary: bool,
    asked_members: bool,
    pub(super) told_stale: bool,
}

impl Sentinel {
    pub(super) fn is_asked(&self) -> bool {
        self.asked_primary || self.asked_members
    }

    pub(super) fn has_answered(&self) -> bool {
        self.says.is_some() || !self.knows_the_name
    }

    /// Notes that the question goes out; false when its answer is still awaited.
    pub(super) fn ask(&mut self, question: SentinelQuestion) -> bool {
        let asked = self.asked(question);
        !std::mem::replace(asked, true)
    }

    pub(super) fn answered(&mut self, question: SentinelQuestion, failure: Option<AskFailure>) {
        *self.asked(question) = false;
        self.failure = failure;
    }

    fn asked(&mut self, question: SentinelQuestion) -> &mut bool {
        match question {
            SentinelQuestion::Members => &mut self.asked_members,
            SentinelQuestion::Primary => &mut self.asked_primary,
        }
    }

    pub(super) fn link_is_down(&mut self, now: Instant, rng: &mut Jitter) {
        let wait = LINK_RETRY.saturating_mul(1 << self.link_failures.min(8)).min(LINK_RETRY_MAX);
        self.link_failures += 1;
        self.link = Link::Down { retry_at: now + rng.at_most(wait) };
        self.epoch_seen = None;
    }

    pub(super) fn link_is_up(&mut self) {
        self.link = Link::Up;
        self.link_failures = 0;
    }
}

/// All sentinels that we know; dead ones stay, at the back.
#[derive(Debug, Default)]
pub(super) struct Sentinels(Vec<Sentinel>);

impl Sentinels {
    /// Adds one that is not known yet, neither by address nor by run id; gives whether it did.
    pub(super) fn add(&mut self, endpoint: &Endpoint, id: Option<String>, is_seed: bool) -> bool {
        let is_known = self.0.iter().any(|s| s.endpoint == *endpoint || (id.is_some() && s.id == id));
        if is_known || self.0.len() >= MAX_SENTINELS {
            return false;
        }
        self.0.push(Sentinel {
            endpoint: endpoint.clone(),
            is_seed,
            id,
            link: Link::Connecting,
            link_failures: 0,
            says: None,
            knows_the_name: true,
            epoch_seen: None,
            failure: None,
            asked_primary: false,
            asked_members: false,
            told_stale: false,
        });
        true
    }

    /// Notes the run id of the sentinel at `endpoint`; gives the learned addresses that turn out to be the same sentinel.
    pub(super) fn identify(&mut self, endpoint: &Endpoint, id: &str) -> Vec<Endpoint> {
        let mut doubles = Vec::new();
        self.0.retain(|s| {
            let is_double = !s.is_seed && s.endpoint != *endpoint && s.id.as_deref() == Some(id);
            if is_double {
                doubles.push(s.endpoint.clone());
            }
            !is_double
        });
        if let Some(sentinel) = self.find(endpoint) {
            sentinel.id = Some(id.to_owned());
        }
        doubles
    }

    pub(super) fn find(&mut self, endpoint: &Endpoint) -> Option<&mut Sentinel> {
        self.0.iter_mut().find(|sentinel| sentinel.endpoint == *endpoint)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Sentinel> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Sentinel> {
        self.0.iter_mut()
    }

    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.0.iter().map(|sentinel| sentinel.endpoint.clone()).collect()
    }

    /// The one whose word counts most: it answered last time, with the newest configuration.
    pub(super) fn front(&self) -> Option<Endpoint> {
        self.0.first().map(|sentinel| sentinel.endpoint.clone())
    }

    /// Puts those that did not answer, and those with older configurations, to the back.
    pub(super) fn sort(&mut self) {
        let epoch = |s: &Sentinel| s.says.as_ref().map(|(_, epoch)| *epoch);
        self.0.sort_by_key(|s| (s.failure.is_some(), Reverse(epoch(s))));
    }

    /// How many make a majority.
    pub(super) fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    /// How many name this address.
    pub(super) fn naming(&self, endpoint: &Endpoint) -> usize {
        self.0.iter().filter(|s| s.says.as_ref().is_some_and(|(named, _)| named == endpoint)).count()
    }

    /// How many name another address in a newer configuration.
    pub(super) fn superseding(&self, endpoint: &Endpoint, epoch: u64) -> usize {
        let says = self.0.iter().filter_map(|sentinel| sentinel.says.as_ref());
        says.filter(|(named, newer)| named != endpoint && *newer > epoch).count()
    }

    /// The newest configuration epoch in which one of them names this address.
    pub(super) fn epoch_of(&self, endpoint: &Endpoint) -> Option<u64> {
        let says = self.0.iter().filter_map(|sentinel| sentinel.says.as_ref());
        says.filter(|(named, _)| named == endpoint).map(|(_, epoch)| *epoch).max()
    }
}
