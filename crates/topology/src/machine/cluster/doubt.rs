//! Nodes that died as primaries: what they say of their role, once they are back, is old until they have heard from the others.
//!
//! A node reads its role from its own file when it starts, and says that it is the primary until its cluster tells it who took
//! over. If its successor is lost by then, that looks like the promotion that is waited for. Its own view tells the two apart: a
//! promotion has an epoch of its own, newer than every epoch before it. A view of before has none: the node may have heard of
//! the epoch in which it was replaced, in the first words of any other node, and not yet of what happened in it.
//!
//! ```text
//! trusted --lost as a primary, and replaced--> doubted --says that it is a replica, or a believed map makes it primary--> trusted
//! ```

use std::time::{Duration, Instant};

use evenkeel_protocol::Endpoint;

/// Least time between two views that the same node is asked for; it takes about as long until it has heard from the others.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Doubt {
    endpoint: Endpoint,
    next_look: Instant,
    /// It was replaced in this epoch, or in an older one.
    epoch: u64,
}

/// At most one for each node of the map.
#[derive(Debug, Default)]
pub(super) struct Doubts(Vec<Doubt>);

impl Doubts {
    pub(super) fn begin(&mut self, endpoint: &Endpoint, now: Instant, epoch: u64) {
        if !self.has(endpoint) {
            self.0.push(Doubt { endpoint: endpoint.clone(), next_look: now, epoch });
        }
    }

    /// Its successor was seen before any view that tells of it: that was in an epoch after the one that is known.
    pub(super) fn began_after(&mut self, endpoint: &Endpoint, epoch: u64) {
        for doubt in self.0.iter_mut().filter(|doubt| doubt.endpoint == *endpoint) {
            doubt.epoch = doubt.epoch.max(epoch + 1);
        }
    }

    /// Whether what it says of itself in this epoch, where `known` is the newest that is known, may be of before.
    pub(super) fn is_doubtful(&self, endpoint: &Endpoint, epoch: Option<u64>, known: u64) -> bool {
        let doubt = self.0.iter().find(|doubt| doubt.endpoint == *endpoint);
        doubt.is_some_and(|doubt| epoch.is_none_or(|epoch| epoch <= doubt.epoch.max(known)))
    }

    pub(super) fn has(&self, endpoint: &Endpoint) -> bool {
        self.0.iter().any(|doubt| doubt.endpoint == *endpoint)
    }

    /// Whether it may be asked for its view now; then not again for a while.
    pub(super) fn is_due(&mut self, endpoint: &Endpoint, now: Instant) -> bool {
        let due = self.0.iter_mut().find(|doubt| doubt.endpoint == *endpoint && doubt.next_look <= now);
        due.map(|doubt| doubt.next_look = now + LOOK).is_some()
    }

    pub(super) fn settle(&mut self, endpoint: &Endpoint) {
        self.0.retain(|doubt| doubt.endpoint != *endpoint);
    }

    pub(super) fn retain(&mut self, is_known: impl Fn(&Endpoint) -> bool) {
        self.0.retain(|doubt| is_known(&doubt.endpoint));
    }
}
