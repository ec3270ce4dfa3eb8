//! `Core`: one client's machinery. It composes lanes, the topology and the handoff engine, and carries commands.
//!
//! Callers read one snapshot of routes and go straight to a lane; everything else happens in one composing task, the
//! [`Director`](director::Director).

mod asker;
mod batch;
mod blocking;
mod carrier;
mod clock;
mod complaints;
mod connect;
mod director;
mod encrypt;
mod failure;
mod fence;
mod floor;
mod health;
mod lease;
mod node;
mod observe;
mod opt_in;
mod own_lane;
mod pending;
mod reads;
mod relogin;
mod retry;
mod route;
mod scan;
mod spread;
mod subscriptions;

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use evenkeel_hitless::Maintenance;
use evenkeel_pool::{Lane, LaneId};
use evenkeel_protocol::{Command, Endpoint, Reply};
use evenkeel_topology::{
    ResolveError,
    driver::{Reporter, TopologyReader},
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use self::{
    blocking::Blocked,
    carrier::{Carrier, CarrierId},
    director::Order,
    fence::Fences,
    node::{Node, Setup},
    reads::Reads,
    route::Routes,
    subscriptions::Links,
};
use crate::{
    config::{Config, Deployment, ReadPolicy},
    error::{Error, Executed},
    events::Events,
    pubsub::PubSub,
};

pub(crate) use self::{
    complaints::Complaint,
    lease::{Lease, PendingLeased},
    pending::Pending,
    scan::Scanning,
};

/// What a caller may say about one call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallOptions {
    /// The call's time in all; the configuration's command timeout when `None`.
    pub(crate) timeout: Option<Duration>,
    /// Where the read goes; as configured when `None`.
    pub(crate) read_policy: Option<ReadPolicy>,
}

/// The replies of a pipeline in order, or why there are none.
pub(crate) type PendingAll = Pin<Box<dyn Future<Output = Result<Vec<Result<Reply, Error>>, Error>> + Send>>;

/// The reply to `EXEC` itself; null when a watched key had changed.
pub(crate) type PendingExec = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// One client's machinery.
pub(crate) struct Core {
    config: Config,
    events: Events,
    pubsub: Arc<PubSub>,
    links: Links,
    setup: Setup,
    /// The only node there will ever be, outside a cluster: the way of a command needs no snapshot then.
    only: Option<Arc<Node>>,
    reads: Reads,
    /// Slots whose commands wait for their turn.
    fences: Arc<Fences>,
    routes: ArcSwap<Routes>,
    /// Whoever replaces the routes of a cluster holds this: two never start the same node.
    adopting: Mutex<()>,
    /// The primary, outside a cluster.
    primary: Arc<ArcSwapOption<Endpoint>>,
    /// Counts changes of routes, for those who wait for one.
    changes: watch::Sender<u64>,
    closed: AtomicBool,
    orders: mpsc::Sender<Order>,
    topology: (TopologyReader, Reporter),
    /// Which addresses may be dialled when a server names them.
    policy: evenkeel_topology::RedirectPolicy,
    maintenance: Maintenance,
    blocked: Blocked,
    unresolved: ArcSwapOption<ResolveError>,
    /// When the last health check ended, and how.
    checked: Mutex<Option<(Instant, bool)>>,
    /// Connections that were closed because their replies did not fit.
    out_of_step: AtomicU64,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Starts a task that ends by itself when the client has gone.
fn spawn<F>(future: F)
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    drop(tokio::spawn(future));
}

impl Core {
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn pubsub(&self) -> &Arc<PubSub> {
        &self.pubsub
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    fn blocked(&self) -> &Blocked {
        &self.blocked
    }

    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    pub(crate) fn maintenance(&self) -> &Maintenance {
        &self.maintenance
    }

    pub(crate) fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// The node that serves everything, outside a cluster.
    fn only(&self) -> Option<&Arc<Node>> {
        self.only.as_ref()
    }

    pub(crate) fn reader(&self) -> &TopologyReader {
        &self.topology.0
    }

    fn reporter(&self) -> &Reporter {
        &self.topology.1
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Ends when the client has gone.
    pub(crate) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.changes.subscribe();
        async move { while changes.changed().await.is_ok() {} }
    }

    /// Ends when the routes have changed after the call.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.changes.subscribe();
        async move {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) fn note_change(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn replace_routes(&self, routes: Routes) {
        self.routes.store(Arc::new(routes));
        self.note_change();
    }

    /// Whether the node is still part of the routes.
    pub(crate) fn is_current(&self, node: &Arc<Node>) -> bool {
        self.routes().all().iter().any(|known| Arc::ptr_eq(known, node))
    }

    /// Whether somebody tells this client who the primary is.
    pub(crate) fn follows_primary(&self) -> bool {
        !matches!(self.config.deployment(), Deployment::Single { .. })
    }

    /// The primary, outside a cluster.
    pub(crate) fn current_primary(&self) -> Option<Endpoint> {
        self.primary.load().as_ref().map(|primary| (**primary).clone())
    }

    fn set_primary(&self, primary: &Endpoint) {
        self.primary.store(Some(Arc::new(primary.clone())));
    }

    /// Whether credentials may go to this address.
    pub(crate) fn allows(&self, endpoint: &Endpoint) -> bool {
        self.policy.allows(endpoint) || self.config.seeds().contains(endpoint)
    }

    pub(crate) fn send(self: &Arc<Self>, command: Command, options: CallOptions) -> Pending<'_> {
        Pending::new(self, command, options)
    }

    pub(crate) fn send_all(self: &Arc<Self>, commands: Vec<Command>, options: CallOptions) -> PendingAll {
        let core = Arc::clone(self);
        Box::pin(async move { batch::send_all(&core, commands, options).await })
    }

    pub(crate) fn transaction(self: &Arc<Self>, commands: Vec<Command>, options: CallOptions) -> PendingExec {
        let core = Arc::clone(self);
        Box::pin(async move { batch::transaction(&core, commands, options).await })
    }

    pub(crate) async fn lease(self: &Arc<Self>) -> Result<Lease, Error> {
        let node = self.routes().first().cloned().ok_or_else(|| Error::closed(Executed::No))?;
        let lease = node.lend(&self.config, || self.is_current(&node)).await?;
        Ok(Lease::new(Arc::clone(self), lease))
    }

    /// Every lane, leases aside.
    fn lanes(&self) -> Vec<Lane> {
        self.routes().all().iter().flat_map(|node| node.lanes().to_vec()).collect()
    }

    /// Every lane, lease and link.
    fn carriers(&self) -> Vec<Carrier> {
        let mut carriers = Vec::new();
        for node in self.routes().all() {
            carriers.extend(node.lanes().iter().cloned().map(Carrier::Lane));
            carriers.extend(node.leases().lanes().into_iter().map(Carrier::Lane));
        }
        carriers.extend(self.links.all().into_iter().map(Carrier::Link));
        carriers
    }

    fn carrier(&self, id: CarrierId) -> Option<Carrier> {
        match id {
            CarrierId::Lane(id) => self.lane(id).map(Carrier::Lane),
            CarrierId::Link(id) => self.links.find(id).map(Carrier::Link),
        }
    }

    /// Many connections move at once, each looked up: without a list of all of them.
    fn lane(&self, id: LaneId) -> Option<Lane> {
        let routes = self.routes();
        routes.all().iter().find_map(|node| {
            node.lanes().iter().find(|lane| lane.id() == id).cloned().or_else(|| node.leases().lane(id))
        })
    }

    /// Whether the comings and goings of this carrier are the client's: its node's first lane.
    fn speaks_for(&self, id: CarrierId) -> bool {
        let CarrierId::Lane(id) = id else { return false };
        self.routes().all().iter().any(|node| node.lanes().first().is_some_and(|lane| lane.id() == id))
    }

    /// New leases of an endpoint are dialled elsewhere, or at home again.
    fn redirect_leases(&self, from: &Endpoint, to: Option<&Endpoint>) {
        for node in self.routes().all() {
            if node.home() == from {
                node.leases().redirect(to.unwrap_or(from));
            }
        }
    }

    /// New leases are dialled at the new primary.
    fn redirect_all_leases(&self, to: &Endpoint) {
        for node in self.routes().all() {
            node.leases().retarget(to);
        }
    }

    /// Where the connections of a configured endpoint lead now.
    fn place_of_home(&self, home: &Endpoint) -> Option<Endpoint> {
        self.routes().all().iter().find(|node| node.home() == home).and_then(|node| node.endpoint())
    }

    /// Makes every connection of an endpoint anew before the deadline, make before break.
    pub(crate) async fn drain(&self, endpoint: Endpoint, deadline: Duration) -> bool {
        let deadline = clock::now() + deadline;
        self.orders.send(Order::Drain { endpoint, deadline }).await.is_ok()
    }

    /// Finishes what is owed, and ends.
    pub(crate) async fn close(&self, deadline: Duration) {
        self.closed.store(true, Ordering::Relaxed);
        self.links.close();
        self.pubsub.close();
        self.reads.close();
        let until = tokio::time::Instant::from_std(clock::now() + deadline);
        let mut closing = tokio::task::JoinSet::new();
        for node in self.routes().all() {
            node.leases().close();
            for lane in node.lanes() {
                let lane = lane.clone();
                closing.spawn(async move { lane.close(deadline).await });
            }
        }
        let _late = tokio::time::timeout_at(until + Duration::from_millis(100), async {
            while closing.join_next().await.is_some() {}
        })
        .await;
        self.events.close();
    }
}
