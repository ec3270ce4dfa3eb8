//! The only clock of the crate.

use std::time::Instant;

/// The time now, which a paused test runtime moves.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    let now = tokio::time::Instant::now();
    now.into_std()
}
