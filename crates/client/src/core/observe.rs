//! `Observer`: what happens on connections, passed on to the composing task; what is published goes straight to subscribers.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use evenkeel_pool::{
    ConnInfo, DialError, LaneId, LaneObserver, LinkId, LinkObserver,
    machine::{ChannelKind, EndCause, GapInfo, OutOfStep, Report},
};
use evenkeel_protocol::{Push, Reply, ServerError, SubscriptionKind};
use tokio::sync::mpsc;

use super::{
    carrier::CarrierId,
    clock,
    subscriptions::{Names, kind_of},
};
use crate::pubsub::PubSub;

/// Something that happened on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Observed {
    Report(CarrierId, Report),
    Opened {
        carrier: CarrierId,
        info: Arc<ConnInfo>,
        instead_of: Option<Arc<ConnInfo>>,
    },
    Closed {
        info: Arc<ConnInfo>,
    },
    OutOfStep {
        info: Arc<ConnInfo>,
        cause: OutOfStep,
    },
    Push {
        info: Arc<ConnInfo>,
        push: Push,
        during_handshake: bool,
        /// What is announced counts from here on.
        at: Instant,
    },
    DialFailed {
        carrier: CarrierId,
    },
    /// The server ended a shard channel: its slot has moved.
    ShardEnded {
        link: LinkId,
        channel: Bytes,
    },
    /// The server refused channels on this link.
    Refused {
        link: LinkId,
        kind: ChannelKind,
        channels: Vec<Bytes>,
        error: ServerError,
    },
}

/// Passes on; when the composing task is far behind, what does not fit is counted and let go.
pub(crate) struct Observer {
    tx: mpsc::Sender<Observed>,
    pubsub: Arc<PubSub>,
    names: Names,
    lost: AtomicU64,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Observer {
    pub(crate) fn new(tx: mpsc::Sender<Observed>, pubsub: Arc<PubSub>) -> Self {
        Self { tx, pubsub, names: Names::default(), lost: AtomicU64::new(0) }
    }

    /// Which names each link carries.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    fn tell(&self, observed: Observed) {
        if self.tx.try_send(observed).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn gap_on(&self, link: LinkId, may_repeat: bool) {
        let names = self.names.of(link);
        self.pubsub.gap(may_repeat, |family, name| names.contains(&(kind_of(family), name.clone())));
    }

    fn pushed(&self, info: &Arc<ConnInfo>, push: &Reply, during_handshake: bool) {
        let Ok(Some(push)) = Push::of(push) else { return };
        if matches!(push, Push::Maintenance(_) | Push::MalformedMaintenance(_)) {
            let (info, at) = (Arc::clone(info), clock::now());
            self.tell(Observed::Push { info, push, during_handshake, at });
        }
    }
}

impl LaneObserver for Observer {
    fn report(&self, lane: LaneId, report: Report) {
        self.tell(Observed::Report(CarrierId::Lane(lane), report));
    }

    fn dial_failed(&self, lane: LaneId, _error: &DialError) {
        self.tell(Observed::DialFailed { carrier: CarrierId::Lane(lane) });
    }

    fn push(&self, _lane: LaneId, info: &Arc<ConnInfo>, push: Reply, during_handshake: bool) {
        self.pushed(info, &push, during_handshake);
    }

    fn opened(&self, lane: LaneId, info: &Arc<ConnInfo>, instead_of: Option<&Arc<ConnInfo>>) {
        let carrier = CarrierId::Lane(lane);
        self.tell(Observed::Opened { carrier, info: Arc::clone(info), instead_of: instead_of.cloned() });
    }

    fn closed(&self, _lane: LaneId, info: &Arc<ConnInfo>, _by_peer: bool) {
        self.tell(Observed::Closed { info: Arc::clone(info) });
    }

    fn out_of_step(&self, _lane: LaneId, info: &Arc<ConnInfo>, cause: OutOfStep) {
        self.tell(Observed::OutOfStep { info: Arc::clone(info), cause });
    }
}

impl LinkObserver for Observer {
    fn message(&self, _link: LinkId, message: Push) {
        self.pubsub.push(&message);
    }

    fn confirmed(&self, _link: LinkId, kind: ChannelKind, channel: Bytes) {
        let kind = match kind {
            ChannelKind::Pattern => SubscriptionKind::PatternSubscribed,
            ChannelKind::Shard => SubscriptionKind::ShardSubscribed,
            _ => SubscriptionKind::Subscribed,
        };
        self.pubsub.push(&Push::Subscription { kind, channel: Some(channel), count: 0 });
    }

    fn ended(&self, link: LinkId, kind: ChannelKind, channel: Bytes, cause: EndCause) {
        if cause == EndCause::ByServer {
            self.tell(Observed::ShardEnded { link, channel });
            return;
        }
        let kind = match kind {
            ChannelKind::Pattern => SubscriptionKind::PatternUnsubscribed,
            ChannelKind::Shard => SubscriptionKind::ShardUnsubscribed,
            _ => SubscriptionKind::Unsubscribed,
        };
        self.pubsub.push(&Push::Subscription { kind, channel: Some(channel), count: 0 });
    }

    fn refused(&self, link: LinkId, kind: ChannelKind, channels: Vec<Bytes>, error: ServerError) {
        self.tell(Observed::Refused { link, kind, channels, error });
    }

    /// Told here, as messages are: by way of the composing task it would come behind messages that lie behind the gap.
    fn gap(&self, link: LinkId, gap: GapInfo) {
        self.gap_on(link, gap.may_repeat);
    }

    fn push(&self, _link: LinkId, info: &Arc<ConnInfo>, push: Reply, during_handshake: bool) {
        self.pushed(info, &push, during_handshake);
    }

    fn report(&self, link: LinkId, report: Report) {
        self.tell(Observed::Report(CarrierId::Link(link), report));
    }

    fn dial_failed(&self, link: LinkId, _error: &DialError) {
        self.tell(Observed::DialFailed { carrier: CarrierId::Link(link) });
    }

    fn opened(&self, link: LinkId, info: &Arc<ConnInfo>, instead_of: Option<&Arc<ConnInfo>>) {
        let carrier = CarrierId::Link(link);
        self.tell(Observed::Opened { carrier, info: Arc::clone(info), instead_of: instead_of.cloned() });
    }

    fn closed(&self, _link: LinkId, info: &Arc<ConnInfo>, _by_peer: bool) {
        self.tell(Observed::Closed { info: Arc::clone(info) });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        Delivery,
        pubsub::{Family, Subscription},
    };

    #[tokio::test]
    async fn a_gap_comes_before_what_lies_behind_it_however_busy_the_composing_task_is() {
        const LINK: LinkId = LinkId(1);
        let (tx, _nobody_takes) = mpsc::channel(1);
        let pubsub = Arc::new(PubSub::new(1 << 20, 100));
        let observer = Observer::new(tx, Arc::clone(&pubsub));
        let name = Bytes::from_static(b"news");
        observer.names().add(LINK, (ChannelKind::Channel, name.clone()));
        let mut subscription = Subscription::open(&pubsub, Duration::from_secs(1));
        let confirm = async {
            drop(pubsub.take_changes());
            observer.confirmed(LINK, ChannelKind::Channel, name.clone());
        };
        let asked = subscription.add(vec![(Family::Channel, name.clone())], Duration::from_secs(1));
        tokio::join!(asked, confirm).0.unwrap();
        let message = |payload: &'static str| Push::Message {
            sharded: false,
            channel: name.clone(),
            payload: Bytes::from_static(payload.as_bytes()),
        };
        observer.message(LINK, message("before"));
        observer.gap_on(LINK, false);
        observer.gap_on(LinkId(2), false);
        observer.message(LINK, message("behind"));
        let heard: Vec<String> = std::iter::from_fn(|| subscription.try_recv())
            .filter_map(|delivery| match delivery {
                Delivery::Message { payload, .. } => Some(String::from_utf8_lossy(&payload).into_owned()),
                Delivery::Gap { .. } => Some("gap".to_owned()),
                _ => None,
            })
            .collect();
        assert_eq!(heard, ["before", "gap", "behind"]);
    }
}
