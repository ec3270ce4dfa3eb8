//! Waiting for a condition, with a deadline.

use std::time::Duration;

use super::error::LaunchError;

/// Time between two looks at a condition: short beside any failover, long beside a loopback round trip.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Calls `probe` every 5 ms until it returns `Some`, and returns what it found.
///
/// # Errors
///
/// [`LaunchError::Deadline`] with `what` once `limit` is over. A probe that hangs is cut off there too.
///
/// # Cancel safety
///
/// Safe when `probe` is: nothing is kept between calls.
pub async fn until<T, F, Fut>(limit: Duration, what: &str, mut probe: F) -> Result<T, LaunchError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let looking = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::time::timeout(limit, looking)
        .await
        .map_err(|_elapsed| LaunchError::Deadline { what: what.to_owned(), waited: limit })
}
