//! The only place of the demo that reads the clock.

use std::time::Instant;

/// Returns the time: the demo measures what really happens.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}
