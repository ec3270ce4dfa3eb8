//! Nodes that died as primaries: what they say of their role, once they are back, is old until they have heard from the others.
//!
//! A node reads its role from its own file when it starts, and says that it is the primary until its cluster tells it who took
//! over. If its successor is lost by then, that looks like the promotion that is waited for. Its own view tells the two apart: a
//! promotion has an epoch of its own, and a view of before has an older one than is known.
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
}

/// At most one for each node of the map.
#[derive(Debug, Default)]
pub(super) struct Doubts(Vec<Doubt>);

impl Doubts {
    pub(super) fn begin(&mut self, endpoint: &Endpoint, now: Instant) {
        if !self.has(endpoint) {
            self.0.push(Doubt { endpoint: endpoint.clone(), next_look: now });
        }
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
