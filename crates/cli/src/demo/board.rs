//! What the demo knows while it runs: windows of trouble, counts, the newest latencies, the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::clock;

/// Lines of the log that are kept.
const LOG_LINES: usize = 200;
/// Latencies that are kept for the report: beyond it a random one makes room, so that all are equally likely to be in.
const SAMPLES: usize = 200_000;

/// A stretch of time in which trouble was made.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) kind: &'static str,
    pub(super) planned: bool,
    pub(super) start: Instant,
    /// `None` while it lasts.
    pub(super) end: Option<Instant>,
}

impl Window {
    fn overlaps(&self, start: Instant, end: Instant) -> bool {
        self.start <= end && self.end.is_none_or(|over| start <= over)
    }
}

/// When something lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// In no window.
    Calm,
    /// In windows of planned trouble alone.
    Planned,
    /// In a window of unplanned trouble, whatever else.
    Unplanned,
}

#[derive(Debug, Default)]
struct Latencies {
    /// For the report.
    samples: Vec<u32>,
    seen: usize,
    /// Since the page last asked.
    fresh: Vec<u32>,
}

/// Everything that all parts of the demo tell and read.
#[derive(Debug, Default)]
pub(super) struct Board {
    windows: Mutex<Vec<Window>>,
    made: Mutex<BTreeMap<&'static str, u64>>,
    log: Mutex<(u64, VecDeque<(u64, String)>)>,
    latencies: Mutex<Latencies>,
    pub(super) commands: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) handoffs: AtomicU64,
    pub(super) failovers: AtomicU64,
}

impl Board {
    /// Opens a window of trouble; [`close`](Self::close) ends it.
    pub(super) fn open(&self, kind: &'static str, planned: bool) -> usize {
        let mut windows = self.windows.lock();
        windows.push(Window { kind, planned, start: clock::now(), end: None });
        windows.len() - 1
    }

    /// Closes a window; `made` says whether its trouble was really made.
    pub(super) fn close(&self, window: usize, made: bool) {
        let mut windows = self.windows.lock();
        if let Some(window) = windows.get_mut(window) {
            window.end = Some(clock::now());
            if made {
                *self.made.lock().entry(window.kind).or_default() += 1;
            }
        }
    }

    /// All windows so far.
    pub(super) fn windows(&self) -> Vec<Window> {
        self.windows.lock().clone()
    }

    /// How often each kind of trouble was made.
    pub(super) fn made(&self) -> BTreeMap<&'static str, u64> {
        self.made.lock().clone()
    }

    /// In which windows a life falls.
    pub(super) fn when(&self, start: Instant, end: Instant) -> When {
        let windows = self.windows.lock();
        let mut when = When::Calm;
        // The newest windows are the likeliest, and old ones are over.
        for window in windows.iter().rev().filter(|window| window.overlaps(start, end)) {
            if !window.planned {
                return When::Unplanned;
            }
            when = When::Planned;
        }
        when
    }

    /// Counts a command that was answered.
    pub(super) fn answered(&self, took: Duration) {
        self.commands.fetch_add(1, Ordering::Relaxed);
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let mut latencies = self.latencies.lock();
        latencies.seen += 1;
        if latencies.samples.len() < SAMPLES {
            latencies.samples.push(micros);
        } else {
            let at = fastrand::usize(..latencies.seen);
            if let Some(sample) = latencies.samples.get_mut(at) {
                *sample = micros;
            }
        }
        if latencies.fresh.len() < SAMPLES {
            latencies.fresh.push(micros);
        }
    }

    /// Counts a command that failed.
    pub(super) fn failed(&self) {
        self.commands.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The median and the 99th percentile of all latencies, in microseconds.
    pub(super) fn percentiles(&self) -> (u32, u32) {
        percentiles(self.latencies.lock().samples.clone())
    }

    /// The same of those since the last call.
    pub(super) fn fresh_percentiles(&self) -> (u32, u32) {
        let fresh = std::mem::take(&mut self.latencies.lock().fresh);
        percentiles(fresh)
    }

    /// Adds a line to the log.
    pub(super) fn log(&self, line: impl Into<String>) {
        let line = line.into();
        tracing::info!(target: "evenkeel::demo", "{line}");
        let mut log = self.log.lock();
        let number = log.0;
        log.0 += 1;
        log.1.push_back((number, line));
        if log.1.len() > LOG_LINES {
            log.1.pop_front();
        }
    }

    /// The lines of the log from a number on, and the number of the next one.
    pub(super) fn lines(&self, from: u64) -> (u64, Vec<String>) {
        let log = self.log.lock();
        let lines = log.1.iter().filter(|(number, _)| *number >= from).map(|(_, line)| line.clone());
        (log.0, lines.collect())
    }
}

fn percentiles(mut micros: Vec<u32>) -> (u32, u32) {
    micros.sort_unstable();
    let at = |percent: usize| {
        let index = (micros.len() * percent / 100).min(micros.len().saturating_sub(1));
        micros.get(index).copied().unwrap_or(0)
    };
    (at(50), at(99))
}

#[cfg(test)]
mod tests {
    use super::{Board, When, clock, percentiles};

    #[test]
    fn unplanned_trouble_outweighs_planned_trouble() {
        let board = Board::default();
        let calm = clock::now();
        std::iter::repeat_with(clock::now).find(|now| *now > calm).unwrap();
        let planned = board.open("moving", true);
        let (before, inside) = (calm, clock::now());
        assert_eq!(board.when(calm, calm), When::Calm);
        assert_eq!(board.when(before, inside), When::Planned);
        board.close(planned, true);
        let unplanned = board.open("cut", false);
        assert_eq!(board.when(inside, clock::now()), When::Unplanned);
        assert_eq!(board.when(inside, inside), When::Planned);
        board.close(unplanned, false);
        assert_eq!(board.made().into_iter().collect::<Vec<_>>(), [("moving", 1)]);
    }

    #[test]
    fn percentiles_of_few_and_many() {
        assert_eq!(percentiles(Vec::new()), (0, 0));
        assert_eq!(percentiles(vec![7]), (7, 7));
        assert_eq!(percentiles((0..1000).collect()), (500, 990));
    }
}
