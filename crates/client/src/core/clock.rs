//! The only clock of this crate; a paused tokio clock moves it too.

use std::time::Instant;

/// Now.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    tokio::time::Instant::now().into_std()
}
