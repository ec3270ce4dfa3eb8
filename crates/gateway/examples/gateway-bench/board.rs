//! What the subscribers of a load have heard.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What all subscribers have heard together.
#[derive(Default)]
pub(crate) struct Board {
    /// Publications that came, counted for each subscriber.
    pub(crate) frames: Cell<u64>,
    /// Connections that ended.
    pub(crate) ended: Cell<u64>,
    target: Cell<u64>,
    reached: Notify,
    latencies: RefCell<Vec<u32>>,
    pub(crate) timed: Cell<bool>,
}

impl Board {
    /// Takes one publication; `stamp` is when it was published, in microseconds since `origin`.
    pub(crate) fn heard(&self, payload: &[u8], origin: Instant) {
        self.frames.set(self.frames.get() + 1);
        if self.timed.get() {
            self.time(payload, origin);
        }
    }

    /// Wakes who waits when enough has come.
    pub(crate) fn check(&self) {
        if self.target.get() > 0 && self.frames.get() >= self.target.get() {
            self.target.set(0);
            self.reached.notify_one();
        }
    }

    /// Waits until so many have come in all; false when that takes longer than `most`.
    pub(crate) async fn reach(&self, target: u64, most: Duration) -> bool {
        if self.frames.get() >= target {
            return true;
        }
        self.target.set(target);
        let reached = tokio::time::timeout(most, self.reached.notified()).await.is_ok();
        self.target.set(0);
        reached || self.frames.get() >= target
    }

    /// Takes the time out of a publication's data, its first digits.
    fn time(&self, payload: &[u8], origin: Instant) {
        let Some(at) = payload.windows(2).position(|pair| pair == b"\"0") else { return };
        let digits = payload.get(at + 1..at + 13).unwrap_or_default();
        let stamp = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u128>().ok());
        if let Some(stamp) = stamp {
            let micros = origin.elapsed().as_micros().saturating_sub(stamp);
            self.latencies.borrow_mut().push(u32::try_from(micros).unwrap_or(u32::MAX));
        }
    }

    /// Median and 99th percentile in milliseconds of what was timed since the last call.
    pub(crate) fn latencies(&self) -> (Option<f64>, Option<f64>) {
        let mut all = self.latencies.take();
        all.sort_unstable();
        let quantile = |part: f64| {
            let at = (all.len() as f64 * part) as usize;
            all.get(at.min(all.len().saturating_sub(1))).map(|micros| f64::from(*micros) / 1e3)
        };
        (quantile(0.5), quantile(0.99))
    }
}
