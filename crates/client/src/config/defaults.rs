//! The defaults, each with its reason.

use std::{num::NonZeroU16, time::Duration};

/// A command's time in all: the longest that a person waits before giving up, and long enough for a failover.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer is expected within this time once the command is written. It is what announced maintenance relaxes.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A dial: one lost SYN is sent again after 1 s, so 2 s forgives one.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A handshake: as long as a dial, for the same reason.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// A wait for a connection of one's own: half of a command's time, so that the command itself still has the other half.
pub const LEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A close that finishes what is owed: below the 10 s that process managers commonly leave before they kill.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Lanes of an endpoint: one multiplexed connection saturates a server's one thread.
pub const LANES: NonZeroU16 = NonZeroU16::MIN;

/// Leases of an endpoint at most: blocking commands are few, and servers count connections.
pub const MAX_LEASES: usize = 16;

/// Leases kept open while nobody uses them: none, since most programs never block.
pub const MIN_IDLE_LEASES: usize = 0;

/// Bytes queued or in flight on a connection before callers wait: some milliseconds of a 10 Gbit/s link.
pub const CONNECTION_BUDGET: usize = 16 << 20;

/// Bytes that wait for a subscriber before the oldest are dropped: a second of a busy feed.
pub const SUBSCRIBER_BYTES: usize = 8 << 20;

/// Messages that wait for a subscriber before the oldest are dropped: where many are tiny, their number costs more than
/// their bytes.
pub const SUBSCRIBER_MESSAGES: usize = 65_536;

/// Dials at the same time to one node: a reconnecting fleet must not be a SYN flood.
pub const DIALS_PER_NODE: usize = 4;

/// The time between two health checks.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(30);

/// The first wait before dialling again.
pub const BACKOFF_STEP: Duration = Duration::from_millis(50);

/// The longest wait before dialling again: a server that is back is noticed within it.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The port of a Redis server.
pub const PORT: u16 = 6379;

/// The port of a Sentinel.
pub const SENTINEL_PORT: u16 = 26379;
