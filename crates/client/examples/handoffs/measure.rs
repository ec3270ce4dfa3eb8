//! Times and memory: latencies in and out of handoffs, the longest wait of a slot, resident memory.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Latencies in steps of at most 1.6 %, up to about a minute.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// Steps within one doubling.
const STEPS: u32 = 64;

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; 27 * STEPS as usize], total: 0 }
    }
}

fn place(micros: u64) -> usize {
    let value = micros.max(1).saturating_mul(u64::from(STEPS));
    let doubling = value.ilog2();
    let step = (value >> (doubling - STEPS.ilog2())) & u64::from(STEPS - 1);
    ((doubling - STEPS.ilog2()) * STEPS) as usize + step as usize
}

fn value(place: usize) -> f64 {
    let (doubling, step) = (place / STEPS as usize, place % STEPS as usize);
    2f64.powi(doubling as i32) * (1.0 + step as f64 / f64::from(STEPS))
}

impl Histogram {
    pub(crate) fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        if let Some(count) = self.counts.get_mut(place(micros).min(last)) {
            *count += 1;
        }
        self.total += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    pub(crate) fn len(&self) -> u64 {
        self.total
    }

    /// The time in milliseconds that this share of all stayed under.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return value(place) / 1000.0;
            }
        }
        0.0
    }
}

/// A silence that is worth a line.
const LONG: Duration = Duration::from_millis(100);

/// When handoffs are under way, and when something succeeded last.
#[derive(Debug)]
pub(crate) struct Watch {
    origin: Instant,
    inside: AtomicBool,
    /// When the last handoff ended, in microseconds since the origin.
    ended: AtomicU64,
    begun: AtomicU64,
    success: AtomicU64,
    /// The longest time without any success while a handoff was under way.
    gap: Mutex<Duration>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            origin: Instant::now(),
            inside: AtomicBool::new(false),
            ended: zero(),
            begun: zero(),
            success: zero(),
            gap: Mutex::new(Duration::ZERO),
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn begin(&self) {
        self.begun.store(self.micros(Instant::now()), Ordering::Relaxed);
        self.inside.store(true, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.ended.store(self.micros(Instant::now()), Ordering::Relaxed);
        self.inside.store(false, Ordering::Release);
    }

    /// Whether a command overlapped a handoff.
    pub(crate) fn overlapped(&self, from: Instant, to: Instant) -> bool {
        let (from, to) = (self.micros(from), self.micros(to));
        let begun = self.begun.load(Ordering::Relaxed);
        begun > 0
            && begun <= to
            && (self.inside.load(Ordering::Acquire) || from <= self.ended.load(Ordering::Relaxed))
    }

    pub(crate) fn success(&self, at: Instant) {
        let now = self.micros(at);
        let before = self.success.swap(now, Ordering::Relaxed);
        let inside = self.inside.load(Ordering::Relaxed);
        if inside && before > 0 && now > before + 1000 {
            let silent = Duration::from_micros(now - before);
            let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
            // A run is long: where in a handoff it happened would be lost.
            if silent > LONG && silent > *gap {
                let into = Duration::from_micros(now.saturating_sub(self.begun.load(Ordering::Relaxed)));
                eprintln!("nothing succeeded for {silent:?}, until {into:?} after an announcement");
            }
            *gap = (*gap).max(silent);
        }
    }

    /// The longest time without any success during handoffs.
    pub(crate) fn gap(&self) -> Duration {
        *self.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resident memory of this process in KiB.
pub(crate) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
