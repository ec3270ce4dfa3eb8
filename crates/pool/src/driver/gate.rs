//! `Gate`: few dials at once to one node, so that a node that comes back is not met by everything at once.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use evenkeel_protocol::Endpoint;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

/// Nodes remembered before those that nobody dials are forgotten.
const REMEMBERED: usize = 64;

/// Where a whole pool is dialled at once, those that nobody waits for let the others go first for so long: some hundred
/// dials of a machine of two cores.
const HEAD_START: Duration = Duration::from_millis(20);

/// Counts the dials under way, node by node; whoever comes too many waits in line.
pub(super) struct Gate {
    max: usize,
    nodes: Mutex<BTreeMap<Endpoint, Arc<Semaphore>>>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("max", &self.max).finish_non_exhaustive()
    }
}

impl Gate {
    pub(super) fn new(max: usize) -> Self {
        Self { max, nodes: Mutex::new(BTreeMap::new()) }
    }

    /// Waits for a place; it is given back when dropped.
    pub(super) async fn enter(&self, endpoint: &Endpoint) -> Option<OwnedSemaphorePermit> {
        let line = {
            let mut nodes = self.nodes.lock();
            if nodes.len() >= REMEMBERED {
                nodes.retain(|_, line| Arc::strong_count(line) > 1);
            }
            Arc::clone(nodes.entry(endpoint.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.max))))
        };
        // The line is never closed.
        line.acquire_owned().await.ok()
    }

    /// As [`enter`](Self::enter), behind those for whom somebody waits, until somebody waits here as well.
    pub(super) async fn enter_wanted(
        &self,
        endpoint: &Endpoint,
        mut wanted: watch::Receiver<bool>,
    ) -> Option<OwnedSemaphorePermit> {
        // Overtaken, wanted, or given up by whoever would say so: its turn has come.
        drop(timeout(HEAD_START, wanted.wait_for(|wanted| *wanted)).await);
        self.enter(endpoint).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::clock;

    #[tokio::test]
    async fn the_fifth_dial_to_a_node_waits_and_other_nodes_do_not() {
        let gate = Gate::new(4);
        let (a, b) = (Endpoint::new("a", 1), Endpoint::new("b", 1));
        let mut inside = Vec::new();
        for _ in 0..4 {
            inside.push(gate.enter(&a).await);
        }
        let mut fifth = Box::pin(gate.enter(&a));
        let waits = std::future::poll_fn(|cx| std::task::Poll::Ready(fifth.as_mut().poll(cx).is_pending()));
        assert!(waits.await);
        assert!(gate.enter(&b).await.is_some());
        inside.pop();
        assert!(fifth.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_waited_for_goes_first() {
        let gate = Gate::new(4);
        let endpoint = Endpoint::new("a", 1);
        let began = clock::now();
        let order = Mutex::new(Vec::new());
        let (idle, asked, busy) =
            (watch::Sender::new(false), watch::Sender::new(false), watch::Sender::new(true));
        let enter = async |name: &'static str, wanted: &watch::Sender<bool>| {
            let place = gate.enter_wanted(&endpoint, wanted.subscribe()).await;
            order.lock().push((name, clock::now() - began));
            place
        };
        let asking = async {
            tokio::time::sleep(HEAD_START / 2).await;
            asked.send_replace(true);
        };
        let (one, two, three, ()) =
            tokio::join!(enter("idle", &idle), enter("asked", &asked), enter("busy", &busy), asking);
        assert!(one.is_some() && two.is_some() && three.is_some());
        let expected = [("busy", Duration::ZERO), ("asked", HEAD_START / 2), ("idle", HEAD_START)];
        assert_eq!(order.into_inner(), expected);
    }

    #[tokio::test]
    async fn nodes_that_nobody_dials_are_forgotten() {
        let gate = Gate::new(1);
        let kept = gate.enter(&Endpoint::new("kept", 1)).await;
        for port in 0..500 {
            drop(gate.enter(&Endpoint::new("h", port)).await);
        }
        assert!(gate.nodes.lock().len() <= REMEMBERED);
        assert!(gate.nodes.lock().contains_key(&Endpoint::new("kept", 1)));
        drop(kept);
    }
}
