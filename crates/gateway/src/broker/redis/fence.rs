//! The fence of plain publications: after an outage they wait until the gateways hear again.
//!
//! Nobody keeps a publication on a channel without history, so one that reaches Redis before the subscriptions of
//! the gateways stand again is lost. Every gateway subscribes to one common channel, the last in the order in which
//! subscriptions are made again, and the script that publishes counts its subscribers first. Fewer than usual means an
//! outage that has just ended, or a gateway that is gone; a round trip over the own subscription tells them apart.
//!
//! In a cluster no node knows the subscribers of the others, and there is no fence.

use super::RedisBroker;
use crate::driver::clock;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;

/// The common channel. Subscriptions are made in the order of their names, and no name comes after this one.
pub(super) const CHANNEL: &str = "\u{10FFFF}evenkeel:gateways";
/// How long publications wait for gateways that do not come back.
const MOST: Duration = Duration::from_secs(1);
const ROUND_TRIP: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(3);

/// What is known of the gateways that hear.
#[derive(Debug)]
pub(super) struct Fence {
    own: u64,
    /// Subscribers of the common channel when it was last counted.
    expected: AtomicI64,
    /// When the own subscription last stood again after a gap.
    gap: Mutex<Option<Instant>>,
    /// The number of the latest round trip that came back.
    heard: watch::Sender<u64>,
    asked: Mutex<u64>,
}

impl Fence {
    pub(super) fn new() -> Self {
        Self {
            own: fastrand::u64(..),
            expected: AtomicI64::new(0),
            gap: Mutex::new(None),
            heard: watch::Sender::new(0),
            asked: Mutex::new(0),
        }
    }

    /// How many gateways must hear before something is published.
    pub(super) fn expected(&self) -> i64 {
        self.expected.load(Ordering::Relaxed)
    }

    /// So many heard when something was published.
    pub(super) fn counted(&self, count: i64) {
        self.expected.store(count, Ordering::Relaxed);
    }

    /// The own subscription stands again.
    pub(super) fn gap(&self) {
        *self.gap.lock() = Some(clock::now());
    }

    /// Takes a message of the common channel; false when it is of no round trip.
    pub(super) fn message(&self, payload: &[u8]) -> bool {
        let text = std::str::from_utf8(payload).unwrap_or_default();
        let Some((own, number)) = text.split_once(' ') else { return false };
        let (Ok(own), Ok(number)) = (own.parse::<u64>(), number.parse::<u64>()) else { return false };
        if own == self.own {
            self.heard.send_if_modified(|heard| std::mem::replace(heard, number.max(*heard)) < number);
        }
        true
    }
}

/// Waits a little after a publication that found only `count` gateways, or expects no more of them from now on.
pub(super) async fn wait(broker: &RedisBroker, count: i64, since: Instant) {
    let fence = &broker.fence;
    let heard = round_trip(broker).await;
    let fresh = fence.gap.lock().is_some_and(|gap| clock::now().saturating_duration_since(gap) < MOST);
    let too_long = clock::now().saturating_duration_since(since) >= MOST;
    if too_long || (heard && !fresh) {
        fence.counted(count);
    } else {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the own subscription delivers. What it reported before is known when this returns.
async fn round_trip(broker: &RedisBroker) -> bool {
    let fence = &broker.fence;
    let number = {
        let mut asked = fence.asked.lock();
        *asked += 1;
        *asked
    };
    let mut heard = fence.heard.subscribe();
    let args = vec![
        Bytes::from_static(b"PUBLISH"),
        Bytes::from_static(CHANNEL.as_bytes()),
        Bytes::from(format!("{} {number}", fence.own)),
    ];
    let there_and_back = async {
        broker.link.command(args).await.is_ok() && heard.wait_for(|heard| *heard >= number).await.is_ok()
    };
    timeout(ROUND_TRIP, there_and_back).await.unwrap_or(false)
}
