//! The only clock of the crate.

use std::time::Instant;

/// The time now, which a paused test runtime moves.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    let now = tokio::time::Instant::now();
    now.into_std()
}

/// Seconds since 1970, by the wall clock; 0 before that.
pub(crate) fn unix_seconds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
