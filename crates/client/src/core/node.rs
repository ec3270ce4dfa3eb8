//! `Node`: the lanes and leases of one place; the place may change beneath it.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use evenkeel_hitless::Family;
use evenkeel_pool::{
    AcquireError, DialError, Lane, LaneConfig, LaneId, LaneObserver, Lease, LeaseConfig, LeasePool,
    driver::dial::Phase,
};
use evenkeel_protocol::{Endpoint, Slot, conn::StepError};

use super::{clock, failure, floor};
use crate::{config::Config, error::Error};

/// Between two tries to make a lease's connection: 10 ms, 20 ms ... 100 ms.
const AGAIN: Duration = Duration::from_millis(10);
const AGAIN_MAX: Duration = Duration::from_millis(100);

/// What every node of a client is made with.
pub(crate) struct Setup {
    pub(crate) lane: LaneConfig,
    pub(crate) lease: LeaseConfig,
    pub(crate) lanes: usize,
    pub(crate) observer: Arc<dyn LaneObserver>,
    next_lane: AtomicU64,
}

impl Setup {
    pub(crate) fn new(
        lane: LaneConfig,
        lease: LeaseConfig,
        lanes: usize,
        observer: Arc<dyn LaneObserver>,
    ) -> Self {
        Self { lane, lease, lanes, observer, next_lane: AtomicU64::new(1) }
    }

    fn next_id(&self) -> LaneId {
        LaneId(self.next_lane.fetch_add(1, Ordering::Relaxed))
    }
}

/// The connections to one place.
#[derive(Debug)]
pub(crate) struct Node {
    home: Endpoint,
    lanes: Vec<Lane>,
    /// The first of them: there is always one.
    first: Lane,
    leases: LeasePool,
}

impl Node {
    /// Starts the lanes; they dial at once.
    pub(crate) fn start(setup: &Setup, endpoint: &Endpoint) -> Self {
        let start = || {
            Lane::start(setup.next_id(), endpoint.clone(), setup.lane.clone(), Arc::clone(&setup.observer))
        };
        let first = start();
        let mut lanes = vec![first.clone()];
        lanes.extend((1..setup.lanes).map(|_| start()));
        let leases = LeasePool::new(
            endpoint.clone(),
            setup.lane.clone(),
            setup.lease.clone(),
            Arc::clone(&setup.observer),
        );
        Self { home: endpoint.clone(), lanes, first, leases }
    }

    /// The endpoint that it was started for.
    pub(crate) fn home(&self) -> &Endpoint {
        &self.home
    }

    /// Ends every connection; what was not written goes elsewhere.
    pub(crate) fn retire(&self) {
        self.leases.close();
        for lane in &self.lanes {
            lane.retire();
        }
    }

    /// The lane for a slot: the same one each time, so that commands of a slot keep their order.
    pub(crate) fn lane(&self, slot: Option<Slot>) -> Option<&Lane> {
        self.lanes.get(self.lane_for(slot) as usize)
    }

    /// Where the lane for a slot stands among the node's lanes.
    pub(crate) fn lane_for(&self, slot: Option<Slot>) -> u32 {
        match self.lanes.len() {
            ..=1 => 0,
            many => slot.map_or(0, |slot| u32::from(slot.number()) % many as u32),
        }
    }

    /// The lane at this place.
    pub(crate) fn lane_at(&self, index: u32) -> &Lane {
        self.lanes.get(index as usize).unwrap_or(&self.first)
    }

    /// Whether choosing a lane needs the slot.
    pub(crate) fn has_one_lane(&self) -> bool {
        self.lanes.len() == 1
    }

    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    pub(crate) fn leases(&self) -> &LeasePool {
        &self.leases
    }

    /// Lends a connection. A server that is away for a moment costs a wait and no error: as commands on a lane wait for their
    /// connection, so does this, for as long as a lease may be waited for. Nothing was executed. `stays` tells whether the
    /// node still serves what the caller wants: nobody waits for one that has lost it.
    pub(crate) async fn lend(&self, config: &Config, stays: impl Fn() -> bool) -> Result<Lease, Error> {
        // Most find one at once, and need no deadline.
        if let Some(lease) = self.leases.try_acquire() {
            return Ok(lease);
        }
        let deadline = clock::now() + config.lease_timeout();
        let mut pause = AGAIN;
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            let error = match self.leases.acquire_within(left).await {
                Ok(lease) => return Ok(lease),
                Err(error) => error,
            };
            if !passes(&error) || deadline <= clock::now() + pause || !stays() {
                return Err(failure::lease(error, self, config));
            }
            tokio::time::sleep(pause).await;
            pause = (pause + AGAIN).min(AGAIN_MAX);
        }
    }

    /// The maintenance that is announced there now.
    pub(crate) fn maintenance(&self) -> Option<Family> {
        self.lanes.iter().find_map(floor::maintenance)
    }

    /// Where its first lane leads.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.lanes.first().map(Lane::endpoint)
    }
}

/// Whether another try may go better: nobody listened there, the way was cut, or the server is still loading its data. What
/// a login or TLS refuses stays refused.
fn passes(error: &AcquireError) -> bool {
    let AcquireError::Dial(error) = error else { return false };
    match &**error {
        // TLS that was cut may go better; a certificate does not.
        DialError::Io { phase: Phase::Tls, cause, .. } => {
            matches!(
                cause.kind(),
                ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe
            )
        }
        DialError::Closed { .. } | DialError::Io { .. } | DialError::TimedOut { .. } => true,
        DialError::Handshake { cause, .. } => {
            matches!(&cause.cause, StepError::Server(error) if error.code() == "LOADING")
        }
        _ => false,
    }
}
