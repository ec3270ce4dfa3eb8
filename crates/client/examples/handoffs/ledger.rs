//! `Ledger`: what was said of every write, to be compared with what the server holds.

use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_client::{Error, Executed};

/// What the client said of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Done,
    NotDone,
    Unknown,
}

impl Said {
    pub(crate) fn of<T>(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(error) if error.executed() == Executed::No => Self::NotDone,
            Err(_) => Self::Unknown,
        }
    }
}

/// What all tasks of a load found.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) commands: AtomicU64,
    /// Reported as failed, whatever the reason.
    pub(crate) failed: AtomicU64,
    /// Of those, reported as unknown.
    pub(crate) unknown: AtomicU64,
    /// Said to be done, and absent.
    pub(crate) vanished: AtomicU64,
    /// There more than once, or although said not to be done.
    pub(crate) doubled: AtomicU64,
    pub(crate) out_of_order: AtomicU64,
    /// Messages published, and of those missing at the subscriber, or come more than once.
    pub(crate) published: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) duplicated: AtomicU64,
    pub(crate) gaps: AtomicU64,
    /// Elements of lists: pushed, never seen again, popped more than once.
    pub(crate) items: AtomicU64,
    pub(crate) items_lost: AtomicU64,
    pub(crate) items_doubled: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

impl Ledger {
    /// Counts one command and what came of it; the first few failures are shown, with what was done.
    pub(crate) fn note<T>(&self, what: &str, result: &Result<T, Error>) {
        add(&self.commands, 1);
        let Err(error) = result else { return };
        if self.failed.fetch_add(1, Ordering::Relaxed) < 5 {
            eprintln!(
                "{what} failed: {error} (executed: {:?}, cause: {:?})",
                error.executed(),
                std::error::Error::source(error)
            );
        }
        if error.executed() != Executed::No {
            add(&self.unknown, 1);
        }
    }

    /// Counts what came out of order; the first few are shown.
    pub(crate) fn disorder(&self, what: std::fmt::Arguments<'_>) {
        if self.out_of_order.fetch_add(1, Ordering::Relaxed) < 5 {
            eprintln!("out of order: {what}");
        }
    }

    /// Compares what stands in a log, in its order, with what was said of `first`, `first + 1`, ...
    pub(crate) fn compare(&self, stands: &[u64], first: u64, said: &[Said]) {
        let mut times = vec![0usize; said.len()];
        let mut last = None;
        for number in stands {
            if last.is_some_and(|last| last > *number) {
                self.disorder(format_args!("the log has {number} behind {}", last.unwrap_or_default()));
            }
            last = Some(*number);
            let place = number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
            match place.and_then(|place| times.get_mut(place)) {
                Some(times) => *times += 1,
                // A write of an earlier time that was given up and ran later.
                None => add(&self.doubled, 1),
            }
        }
        for (times, said) in times.into_iter().zip(said) {
            match said {
                Said::Done if times == 0 => add(&self.vanished, 1),
                Said::NotDone => add(&self.doubled, times),
                Said::Done | Said::Unknown => add(&self.doubled, times.saturating_sub(1)),
            }
        }
    }
}
