//! The snapshot in force: one writer, any number of readers, no lock.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::snapshot::Topology;

/// Publishes snapshots. Not `Clone`: there is one writer.
#[derive(Debug)]
pub(super) struct TopologyPublisher {
    snapshot: Arc<ArcSwap<Topology>>,
    generation: watch::Sender<u64>,
}

/// Reads the snapshot in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TopologyReader {
    snapshot: Arc<ArcSwap<Topology>>,
    generation: watch::Receiver<u64>,
}

pub(super) fn publisher() -> (TopologyPublisher, TopologyReader) {
    let snapshot = Arc::new(ArcSwap::from_pointee(Topology::default()));
    let (tx, rx) = watch::channel(0);
    let reader = TopologyReader { snapshot: Arc::clone(&snapshot), generation: rx };
    (TopologyPublisher { snapshot, generation: tx }, reader)
}

impl TopologyPublisher {
    pub(super) fn publish(&self, next: Arc<Topology>) {
        let generation = next.generation();
        self.snapshot.store(next);
        self.generation.send_replace(generation);
    }

    pub(super) fn load(&self) -> Arc<Topology> {
        self.snapshot.load_full()
    }
}

impl TopologyReader {
    /// Runs `read` on the snapshot in force: one atomic load. The borrow ends with the closure, so it never crosses an `.await`.
    pub fn with<R>(&self, read: impl FnOnce(&Topology) -> R) -> R {
        read(&self.snapshot.load())
    }

    /// The snapshot in force, to keep.
    pub fn load(&self) -> Arc<Topology> {
        self.snapshot.load_full()
    }

    /// Waits for a snapshot newer than `generation`, which may be there already; 0 waits for the first one. `None` when the
    /// resolver has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn newer_than(&self, generation: u64) -> Option<Arc<Topology>> {
        let mut published = self.generation.clone();
        let is_newer = |published: &u64| *published > generation;
        published.wait_for(is_newer).await.ok()?;
        Some(self.load())
    }
}
