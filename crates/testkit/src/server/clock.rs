//! The only clock of the embedded server: tokio's, so that a paused runtime moves expiry and graces as well.

use std::time::Duration;

use tokio::time::Instant;

/// Ties the runtime's clock to wall time, once, when the server starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
    origin_unix: Duration,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads wall time")]
    pub(super) fn start() -> Self {
        let origin_unix =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { origin: now(), origin_unix }
    }

    /// Wall time in microseconds since the epoch.
    pub(super) fn unix_micros(&self, now: Instant) -> u64 {
        let at = self.origin_unix + now.saturating_duration_since(self.origin);
        u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn unix_millis(&self, now: Instant) -> u64 {
        self.unix_micros(now) / 1000
    }

    pub(super) fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.origin)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}
