//! `Windows`: the spans of announced maintenance, as a set.
//!
//! A window is known by endpoint, family, sequence id and what it concerns. Start and end of one operation carry
//! different ids, so an end closes what it covers among the windows that began before it, and nothing else. Each
//! window has a cap, because an end can be lost.

use std::{
    collections::{BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Instant,
};

use evenkeel_protocol::{Endpoint, maintenance::SlotRanges};

use super::slot_set::SlotSet;
use crate::Family;

/// Windows open at once; the oldest is closed for one more.
const MAX_WINDOWS: usize = 256;
/// Ends remembered, so that a start that comes after its own end opens nothing.
const MAX_ENDS: usize = 128;

/// Shards that one announcement may name.
const MAX_SHARDS: usize = 4096;

/// What a window or its end concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The server did not say.
    Unknown,
    Shards(BTreeSet<String>),
    Slots(SlotSet),
}

impl Extent {
    pub(crate) fn shards(shards: &[String]) -> Self {
        // A list of that length is no list of shards; it is not worth remembering.
        if shards.is_empty() || shards.len() > MAX_SHARDS {
            return Self::Unknown;
        }
        Self::Shards(shards.iter().cloned().collect())
    }

    pub(crate) fn slots(slots: &SlotRanges) -> Self {
        if slots.is_empty() { Self::Unknown } else { Self::Slots(SlotSet::of(slots)) }
    }

    /// What is left of `self` without `other`; `None` when nothing is, and `self` when they have nothing in common.
    fn without(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Shards(mine), Self::Shards(theirs)) => {
                let left: BTreeSet<_> = mine.difference(theirs).cloned().collect();
                (!left.is_empty()).then_some(Self::Shards(left))
            }
            (Self::Slots(mine), Self::Slots(theirs)) => {
                let mut left = mine.clone();
                left.remove(theirs);
                (!left.is_empty()).then_some(Self::Slots(left))
            }
            _ => None,
        }
    }

    /// A digest, for identities.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Unknown => 0.hash(&mut hasher),
            Self::Shards(shards) => shards.hash(&mut hasher),
            Self::Slots(slots) => slots.words().hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// One span of maintenance.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) key: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) family: Family,
    pub(crate) seq: Option<u64>,
    pub(crate) extent: Extent,
    pub(crate) until: Instant,
}

#[derive(Debug)]
struct End {
    endpoint: Endpoint,
    family: Family,
    seq: u64,
    extent: Extent,
    until: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Windows {
    open: VecDeque<Window>,
    ends: VecDeque<End>,
}

impl Windows {
    /// Opens a window; gives the oldest one back when it had to make room.
    pub(crate) fn open(&mut self, window: Window) -> Option<Window> {
        let evicted = if self.open.len() >= MAX_WINDOWS { self.open.pop_front() } else { None };
        self.open.push_back(window);
        evicted
    }

    /// Closes what an end covers and gives it back.
    ///
    /// An end that says what it concerns closes every covered window that began before it, and shrinks those that it
    /// covers in part. An end that does not closes the oldest that began before it. Slots move between nodes and every
    /// node tells of it, so their ends are heard for all endpoints.
    pub(crate) fn end(
        &mut self,
        endpoint: &Endpoint,
        family: Family,
        seq: Option<u64>,
        extent: &Extent,
    ) -> Vec<Window> {
        let mut closed = Vec::new();
        self.open.retain_mut(|window| {
            let concerned = window.family == family
                && (family == Family::Slots || window.endpoint == *endpoint)
                && began_before(window.seq, seq)
                && (*extent != Extent::Unknown || closed.is_empty());
            if !concerned {
                return true;
            }
            if let Some(left) = window.extent.without(extent) {
                window.extent = left;
                return true;
            }
            closed.push(window.clone());
            false
        });
        closed
    }

    /// Remembers an end, so that its start opens nothing should it come later.
    pub(crate) fn remember_end(
        &mut self,
        endpoint: &Endpoint,
        family: Family,
        seq: Option<u64>,
        extent: &Extent,
        until: Instant,
    ) {
        let Some(seq) = seq else { return };
        if self.ends.len() >= MAX_ENDS {
            self.ends.pop_front();
        }
        let (endpoint, extent) = (endpoint.clone(), extent.clone());
        self.ends.push_back(End { endpoint, family, seq, extent, until });
    }

    /// True when an end that was heard before covers a start wholly.
    pub(crate) fn has_ended(
        &self,
        now: Instant,
        endpoint: &Endpoint,
        family: Family,
        seq: Option<u64>,
        extent: &Extent,
    ) -> bool {
        let Some(seq) = seq else { return false };
        self.ends.iter().any(|end| {
            now < end.until
                && end.family == family
                && (family == Family::Slots || end.endpoint == *endpoint)
                && seq < end.seq
                // What does not say what it concerns cannot be shown to be the same.
                && *extent != Extent::Unknown
                && end.extent != Extent::Unknown
                && extent.without(&end.extent).is_none()
        })
    }

    /// Closes what matches, whatever its end.
    pub(crate) fn close(&mut self, matches: impl Fn(&Window) -> bool) -> Vec<Window> {
        let mut closed = Vec::new();
        self.open.retain(|window| {
            let close = matches(window);
            if close {
                closed.push(window.clone());
            }
            !close
        });
        closed
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.open.iter().map(|window| window.until).min()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

fn began_before(start: Option<u64>, end: Option<u64>) -> bool {
    match (start, end) {
        (Some(start), Some(end)) => start <= end,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_windows_than_the_cap() {
        #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
        let now = Instant::now();
        let mut windows = Windows::default();
        let mut evicted = 0;
        for key in 0..1000 {
            let window = Window {
                key,
                endpoint: Endpoint::new("h", 1),
                family: Family::Migration,
                seq: Some(key),
                extent: Extent::Unknown,
                until: now,
            };
            evicted += usize::from(windows.open(window).is_some());
        }
        assert_eq!((windows.len(), evicted), (MAX_WINDOWS, 1000 - MAX_WINDOWS));
    }
}
