//! Which publications reached whom: counted once, by the id that each of them carries.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::board::{Board, When};
use super::clock;

/// Publications that may be under way before publishers wait.
const MAX_UNDER_WAY: usize = 50_000;
/// Times of repeats that are kept; further ones are only counted.
const MAX_TIMES: usize = 1_000;

/// What the broker has said of a publication.
///
/// ```text
/// Asked ──> Published
///   └─────> Unknown
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The broker has not said anything yet.
    Asked,
    /// The broker took it.
    Published,
    /// The broker was reached, and nobody knows.
    Unknown,
}

#[derive(Debug)]
struct Entry {
    start: Instant,
    end: Option<Instant>,
    state: State,
    /// A bit for each subscriber.
    seen: u32,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<(usize, u64), Entry>,
    published: u64,
    delivered: u64,
    doubled: u64,
    doubled_at: Vec<Instant>,
    refused_at: Vec<Instant>,
}

/// What came of all publications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) published: u64,
    /// Those that every subscriber has got.
    pub(super) delivered: u64,
    /// Those that a subscriber has not got.
    pub(super) missing: u64,
    pub(super) doubled: u64,
}

/// All publications on channels with history.
#[derive(Debug)]
pub(super) struct Ledger {
    inner: Mutex<Inner>,
    everybody: u32,
}

impl Ledger {
    /// For so many subscribers, at most 31.
    pub(super) fn new(subscribers: usize) -> Self {
        Self { inner: Mutex::default(), everybody: (1 << subscribers) - 1 }
    }

    /// Takes note of a publication that is about to be made; false when too many are under way.
    pub(super) fn ask(&self, channel: usize, id: u64) -> bool {
        let mut inner = self.inner.lock();
        let entry = Entry { start: clock::now(), end: None, state: State::Asked, seen: 0 };
        inner.entries.len() < MAX_UNDER_WAY && inner.entries.insert((channel, id), entry).is_none()
    }

    /// The broker took it.
    pub(super) fn published(&self, channel: usize, id: u64) {
        let mut inner = self.inner.lock();
        inner.published += 1;
        let Some(entry) = inner.entries.get_mut(&(channel, id)) else { return };
        entry.state = State::Published;
        entry.end = Some(clock::now());
        if entry.seen == self.everybody {
            inner.entries.remove(&(channel, id));
            inner.delivered += 1;
        }
    }

    /// The broker refused it, and nothing was published.
    pub(super) fn refused(&self, channel: usize, id: u64) {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.entries.remove(&(channel, id))
            && inner.refused_at.len() < MAX_TIMES
        {
            inner.refused_at.push(entry.start);
        }
    }

    /// Nobody knows whether it was published.
    pub(super) fn unknown(&self, channel: usize, id: u64) {
        if let Some(entry) = self.inner.lock().entries.get_mut(&(channel, id)) {
            entry.state = State::Unknown;
            entry.end = Some(clock::now());
        }
    }

    /// A subscriber got it; false when it had it already.
    pub(super) fn delivered(&self, channel: usize, id: u64, subscriber: usize) -> bool {
        let mut inner = self.inner.lock();
        let bit = 1 << subscriber;
        match inner.entries.get_mut(&(channel, id)) {
            Some(entry) if entry.seen & bit == 0 => {
                entry.seen |= bit;
                if entry.seen == self.everybody && entry.state != State::Asked {
                    let counts = entry.state == State::Published;
                    inner.entries.remove(&(channel, id));
                    inner.delivered += u64::from(counts);
                }
                true
            }
            _ => {
                inner.doubled += 1;
                if inner.doubled_at.len() < MAX_TIMES {
                    inner.doubled_at.push(clock::now());
                }
                false
            }
        }
    }

    /// Whether everything published longer ago than this has been delivered.
    pub(super) fn is_settled(&self, age: Duration) -> bool {
        let inner = self.inner.lock();
        let before = clock::now().checked_sub(age);
        let is_late = |entry: &Entry| entry.state != State::Unknown && Some(entry.start) < before;
        !inner.entries.values().any(is_late)
    }

    /// All counts; `missing` counts what was published longer ago than `age`.
    pub(super) fn counts(&self, age: Duration) -> Counts {
        let inner = self.inner.lock();
        let before = clock::now().checked_sub(age);
        let is_missing = |entry: &&Entry| entry.state == State::Published && entry.end <= before;
        Counts {
            published: inner.published,
            delivered: inner.delivered,
            missing: inner.entries.values().filter(is_missing).count() as u64,
            doubled: inner.doubled,
        }
    }

    /// Publications outside of unplanned trouble that were lost, refused, or delivered twice.
    pub(super) fn outside_unplanned(&self, board: &Board) -> (u64, u64, u64) {
        let inner = self.inner.lock();
        let is_ours = |start, end| board.when(start, end) != When::Unplanned;
        let lost = inner.entries.values().filter(|entry| {
            entry.state != State::Unknown && is_ours(entry.start, entry.end.unwrap_or_else(clock::now))
        });
        let at = |list: &[Instant]| list.iter().filter(|at| is_ours(**at, **at)).count() as u64;
        (lost.count() as u64, at(&inner.refused_at), at(&inner.doubled_at))
    }
}

#[cfg(test)]
mod tests {
    use super::{Board, Counts, Ledger};
    use std::time::Duration;

    #[test]
    fn each_publication_counts_once() {
        let ledger = Ledger::new(2);
        for id in 1..=4 {
            assert!(ledger.ask(0, id));
        }
        // Delivered before the broker's answer is read.
        assert!(ledger.delivered(0, 1, 0) && ledger.delivered(0, 1, 1));
        ledger.published(0, 1);
        ledger.published(0, 2);
        assert!(ledger.delivered(0, 2, 0));
        ledger.refused(0, 3);
        ledger.unknown(0, 4);
        let counts = Counts { published: 2, delivered: 1, missing: 1, doubled: 0 };
        assert_eq!(ledger.counts(Duration::ZERO), counts);
        assert!(!ledger.delivered(0, 2, 0) && !ledger.delivered(0, 1, 1));
        assert_eq!(ledger.counts(Duration::ZERO).doubled, 2);
        assert_eq!(ledger.outside_unplanned(&Board::default()), (1, 1, 2));
    }
}
