//! What all tasks of one gateway share.

use super::tls::{Outgoing, Tls};
use crate::broker::Published;
use crate::config::{GatewayConfig, PusherConfig};
use crate::doors::Doors;
use crate::driver::hook::Hooks;
use crate::error::BrokerError;
use crate::hub::Hub;
use crate::metrics::{Gauges, Metrics};
use crate::namespace::ChannelOptions;
use crate::origin::AllowedOrigins;
use crate::outbox::Bounds;
use crate::presence::Registry;
use crate::publication::Channel;
use crate::telemetry::{Doing, Telemetry};
use crate::wire::machine::Rules;
use bytes::Bytes;
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
    pub(crate) telemetry: Arc<Telemetry>,
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
        self.metrics.render(self.gauges())
    }

    /// Every figure, always in the same order.
    #[cfg(feature = "otlp")]
    pub(crate) fn readings(&self) -> Vec<crate::metrics::Reading> {
        self.metrics.readings(self.gauges())
    }

    fn gauges(&self) -> Gauges {
        let health = self.hub.broker().health();
        Gauges {
            channels: self.hub.wanted(),
            backlog: self.hub.backlog(),
            waiting: health.waiting,
            probe_age_seconds: health.probe_age.map(|age| age.as_secs_f64()),
            ready: self.is_ready(),
            lost: self.telemetry.lost(),
        }
    }

    /// Publishes, and counts and tells what became of it.
    pub(crate) async fn publish(
        &self,
        channel: &Channel,
        data: Bytes,
        options: &Arc<ChannelOptions>,
    ) -> Result<Published, BrokerError> {
        let span = self.telemetry.begin(Doing::Publish { channel, bytes: data.len() });
        let published = span.around(self.hub.broker().publish(channel, data, options)).await;
        span.published(published.as_ref());
        Metrics::count(if published.is_ok() {
            &self.metrics.published
        } else {
            &self.metrics.publish_failed
        });
        published
    }

    /// Publishes as [`publish`](Self::publish) does, and waits for replicas.
    pub(crate) async fn publish_durably(
        &self,
        channel: &Channel,
        data: Bytes,
        options: &Arc<ChannelOptions>,
        replicas: u32,
    ) -> Result<(Published, u32), BrokerError> {
        let span = self.telemetry.begin(Doing::Publish { channel, bytes: data.len() });
        let wait = (replicas, self.config.outage.answer_within);
        let published = span.around(self.hub.broker().publish_durably(channel, data, options, wait)).await;
        span.published(published.as_ref().map(|(published, _)| published));
        Metrics::count(if published.is_ok() {
            &self.metrics.published
        } else {
            &self.metrics.publish_failed
        });
        published
    }
}
