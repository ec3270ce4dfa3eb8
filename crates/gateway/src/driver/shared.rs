//! What all tasks of one gateway share.

use super::tls::{Outgoing, Tls};
use crate::config::{GatewayConfig, PusherConfig};
use crate::doors::Doors;
use crate::driver::hook::Hooks;
use crate::hub::Hub;
use crate::metrics::{Gauges, Metrics};
use crate::origin::AllowedOrigins;
use crate::outbox::Bounds;
use crate::presence::Registry;
use crate::wire::machine::Rules;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

/// How far a gateway is from its end.
///
/// ```text
/// running --stop()--> leaving --listener closed--> draining --all gone or deadline--> stopped
///        +------------------------------drop-------------------------------------------^
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Sessions are closed.
    Draining,
    /// The port is given up; sessions go on.
    Leaving,
    Running,
    Stopped,
}

impl Phase {
    const fn order(self) -> u8 {
        match self {
            Self::Running => 0,
            Self::Leaving => 1,
            Self::Draining => 2,
            Self::Stopped => 3,
        }
    }
}

/// Waits until the gateway is at `least` so far; the end of the gateway counts.
pub(crate) async fn reached(phase: &mut watch::Receiver<Phase>, least: Phase) {
    // An error says that the gateway is gone.
    drop(phase.wait_for(|now| now.order() >= least.order()).await);
}

/// What all tasks of one gateway share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) rules: Arc<Rules>,
    pub(crate) origins: AllowedOrigins,
    pub(crate) pusher: Option<Arc<PusherConfig>>,
    pub(crate) hub: Hub,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) shards: usize,
    pub(crate) next_shard: AtomicUsize,
    /// Who is here, on channels that keep presence.
    pub(crate) members: Registry,
    pub(crate) doors: Doors,
    /// Encrypts every connection, where it is set.
    pub(crate) tls: Option<Tls>,
    pub(crate) hooks: Hooks,
    /// Encrypts the fetching of tokens' keys, where they come by `https`.
    pub(crate) fetching: Option<Arc<Outgoing>>,
}

impl Shared {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { bytes: self.config.limits.outbox_bytes, messages: self.config.limits.outbox_messages }
    }

    /// The shard of a new session.
    pub(crate) fn pick_shard(&self) -> usize {
        self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.max(1)
    }

    /// Whether publications can be delivered: running, and the last probe of the broker is young.
    pub(crate) fn is_ready(&self) -> bool {
        let fresh =
            self.hub.broker().health().probe_age.is_some_and(|age| age <= self.config.outage.probe_timeout);
        fresh && *self.phase.borrow() == Phase::Running
    }

    pub(crate) fn render_metrics(&self) -> String {
        let health = self.hub.broker().health();
        self.metrics.render(Gauges {
            channels: self.hub.wanted(),
            backlog: self.hub.backlog(),
            waiting: health.waiting,
            probe_age_seconds: health.probe_age.map(|age| age.as_secs_f64()),
            ready: self.is_ready(),
        })
    }
}
