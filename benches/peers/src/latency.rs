//! A histogram of latencies that all tasks write to without a lock: 64 steps per power of two, so 1.6 % at most off.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const STEPS: usize = 64;
const POWERS: usize = 40;

pub(crate) struct Latencies(Vec<AtomicU32>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self((0..STEPS * POWERS).map(|_| AtomicU32::new(0)).collect())
    }

    pub(crate) fn note(&self, took: Duration) {
        let nanos = took.as_nanos().max(1) as u64;
        let power = nanos.ilog2() as usize;
        let step = if power >= 6 {
            (nanos >> (power - 6)) as usize - STEPS
        } else {
            (nanos << (6 - power)) as usize - STEPS
        };
        if let Some(count) = self.0.get(power * STEPS + step) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The latency in microseconds below which `part` of all are; `None` when none was noted.
    pub(crate) fn quantile(&self, part: f64) -> Option<f64> {
        let total: u64 = self.0.iter().map(|count| u64::from(count.load(Ordering::Relaxed))).sum();
        let wanted = (total as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.0.iter().enumerate() {
            seen += u64::from(count.load(Ordering::Relaxed));
            if seen >= wanted && seen > 0 {
                let (power, step) = (index / STEPS, index % STEPS);
                return Some((STEPS + step) as f64 / STEPS as f64 * 2f64.powi(power as i32) / 1000.0);
            }
        }
        None
    }
}
