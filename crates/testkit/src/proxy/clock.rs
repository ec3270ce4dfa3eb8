//! The only clock of the proxy.

use tokio::time::Instant;

#[expect(clippy::disallowed_methods, reason = "a delay starts when its bytes arrive")]
pub(super) fn now() -> Instant {
    Instant::now()
}
