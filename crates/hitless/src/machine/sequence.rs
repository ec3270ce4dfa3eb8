//! `Seen`: which announcements were dealt with already; each identity expires, and the memory is bounded.
//!
//! Identities are compared for equality only: a later event may carry a lower sequence id than an earlier one, and 0
//! is an id like any other.

use std::{collections::BTreeMap, time::Instant};

use evenkeel_protocol::Endpoint;

/// Identities remembered; the next to expire makes room.
const MAX_SEEN: usize = 1024;

/// What tells one announcement from another; start and end of one operation are two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    /// Whose connections; `None` where every node tells of the same change.
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) name: &'static str,
    pub(crate) seq: Option<u64>,
    /// A digest of shards, slots or moves.
    pub(crate) content: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    until: BTreeMap<Identity, Instant>,
}

impl Seen {
    /// True when the identity is new or its memory has expired; it is remembered until `until` then.
    pub(crate) fn is_new(&mut self, now: Instant, identity: Identity, until: Instant) -> bool {
        if self.until.get(&identity).is_some_and(|known| now < *known) {
            return false;
        }
        if self.until.len() >= MAX_SEEN {
            self.until.retain(|_, known| now < *known);
        }
        if self.until.len() >= MAX_SEEN
            && let Some(first) = self.until.iter().min_by_key(|(_, until)| **until).map(|(id, _)| id.clone())
        {
            self.until.remove(&first);
        }
        self.until.insert(identity, until);
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn identity(seq: u64) -> Identity {
        Identity { endpoint: None, name: "MIGRATED", seq: Some(seq), content: 0 }
    }

    #[test]
    fn repeats_are_known_until_they_expire() {
        let now = origin();
        let ttl = Duration::from_secs(1);
        let mut seen = Seen::default();
        assert!(seen.is_new(now, identity(0), now + ttl));
        assert!(!seen.is_new(now, identity(0), now + ttl));
        assert!(seen.is_new(now + ttl, identity(0), now + ttl * 2));
    }

    #[test]
    fn the_memory_is_bounded() {
        let now = origin();
        let mut seen = Seen::default();
        for seq in 0..3 * MAX_SEEN as u64 {
            assert!(seen.is_new(now, identity(seq), now + Duration::from_secs(60)));
        }
        assert_eq!(seen.len(), MAX_SEEN);
    }
}
