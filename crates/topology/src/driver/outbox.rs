//! What the client is told, in order, in a bounded queue.

use std::{collections::VecDeque, time::Instant};

use evenkeel_protocol::Endpoint;

use crate::{diff::Change, error::ResolveError, machine::Report};

/// Events that wait for a client that does not read. A failover makes about ten.
const MAX_WAITING: usize = 256;

/// Something that concerns the client. Snapshots are published before the events that follow from them.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyEvent {
    /// The snapshot was replaced; what changed. The first one is all news.
    Changed(Vec<Change>),
    /// Send no write to the primary until [`Release`](Self::Release); reads go on. Comes again when the end changes.
    HoldWrites {
        /// When the old primary is used again if it is in order; `None` when there is none and the hold lasts until one is found.
        until: Option<Instant>,
    },
    /// The client read too slowly: so many events were left out. Holds, releases and the snapshot are as they are told.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// A primary changed.
    PrimaryChanged {
        /// Before; `None` for the first one.
        from: Option<Endpoint>,
        /// After.
        to: Endpoint,
        /// The configuration epoch, as far as it is known.
        epoch: u64,
        /// The one before is known to be down: what it owes will not come.
        from_is_down: bool,
    },
    /// Held writes go to this endpoint, which said after the hold began that it is the primary; perhaps the same as before.
    Release {
        /// The primary.
        primary: Endpoint,
    },
    /// News for those who look after the system.
    Report(Report),
    /// Nothing usable was found; the resolver goes on trying.
    Unresolved(ResolveError),
}

impl TopologyEvent {
    /// A hold or a release: only the last one counts.
    fn is_gate(&self) -> bool {
        matches!(self, Self::HoldWrites { .. } | Self::Release { .. })
    }
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<TopologyEvent>,
    missed: u64,
}

impl Outbox {
    /// Adds an event; when too many wait, the oldest one that may be left out is.
    pub(super) fn push(&mut self, event: TopologyEvent) {
        if self.waiting.len() >= MAX_WAITING {
            if event.is_gate() {
                self.waiting.retain(|waiting| !waiting.is_gate());
            }
            let dispensable = self.waiting.iter().position(|waiting| !waiting.is_gate());
            if dispensable.and_then(|place| self.waiting.remove(place)).is_some() {
                self.missed += 1;
            }
        }
        self.waiting.push_back(event);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.missed == 0
    }

    pub(super) fn pop(&mut self) -> Option<TopologyEvent> {
        match std::mem::take(&mut self.missed) {
            0 => self.waiting.pop_front(),
            missed => Some(TopologyEvent::Lagged { missed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_does_not_read_still_learns_the_last_gate_and_what_it_missed() {
        let mut outbox = Outbox::default();
        let release = TopologyEvent::Release { primary: Endpoint::new("h", 1) };
        for _ in 0..1000 {
            outbox.push(TopologyEvent::HoldWrites { until: None });
            outbox.push(release.clone());
            outbox.push(TopologyEvent::Changed(Vec::new()));
        }
        assert!(outbox.waiting.len() <= MAX_WAITING);
        assert!(matches!(outbox.pop(), Some(TopologyEvent::Lagged { missed }) if missed > 500));
        let rest: Vec<_> = std::iter::from_fn(|| outbox.pop()).collect();
        assert_eq!(rest.iter().rfind(|event| event.is_gate()), Some(&release));
        assert!(outbox.is_empty());
    }
}
