//! The deployment as the client knows it, and what changes in it: [`Client::topology`](crate::Client::topology) and
//! [`Client::topology_changes`](crate::Client::topology_changes).

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use evenkeel_topology::driver::TopologyReader;
pub use evenkeel_topology::{Change, Health, Mode, Node, Role, SentinelNode, SlotMap, Topology};
use futures_core::Stream;

/// A newer snapshot, and what it changes of the one that the listener had before.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct TopologyUpdate {
    /// The snapshot in force.
    pub topology: Arc<Topology>,
    /// Nodes first, then primaries, then runs of slots in order. Empty where only zones, sentinels or the epoch are new.
    pub changes: Vec<Change>,
}

type Newer = Pin<Box<dyn Future<Output = Option<Arc<Topology>>> + Send>>;

/// What changes in a deployment, from [`Client::topology_changes`](crate::Client::topology_changes) on.
///
/// Nothing queues: a listener that is slower than the changes finds them together in its next update.
pub struct TopologyStream {
    reader: TopologyReader,
    seen: Arc<Topology>,
    /// The wait for a newer snapshot, while there is one.
    newer: Option<Newer>,
}

impl fmt::Debug for TopologyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopologyStream").field("generation", &self.seen.generation()).finish_non_exhaustive()
    }
}

impl TopologyStream {
    pub(crate) fn new(reader: TopologyReader) -> Self {
        let seen = reader.load();
        Self { reader, seen, newer: None }
    }

    /// The next update; `None` when the client has gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn recv(&mut self) -> Option<TopologyUpdate> {
        std::future::poll_fn(|cx| self.poll_update(cx)).await
    }

    fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Option<TopologyUpdate>> {
        let (reader, seen) = (&self.reader, self.seen.generation());
        let newer = self.newer.get_or_insert_with(|| {
            let reader = reader.clone();
            Box::pin(async move { reader.newer_than(seen).await })
        });
        let topology = ready!(newer.as_mut().poll(cx));
        self.newer = None;
        Poll::Ready(topology.map(|topology| {
            let before = std::mem::replace(&mut self.seen, Arc::clone(&topology));
            TopologyUpdate { changes: evenkeel_topology::diff(&before, &topology), topology }
        }))
    }
}

impl Stream for TopologyStream {
    type Item = TopologyUpdate;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_update(cx)
    }
}
