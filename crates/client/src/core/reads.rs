//! Where reads go that need not see the newest write: replicas, or whatever node is nearest.
//!
//! Connections to replicas are made when the first read wants one; until one stands, reads go to the primary.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use evenkeel_pool::{Deaf, Outcome};
use evenkeel_protocol::{Command, Endpoint, Refusal, Reply};
use evenkeel_topology::{Health, ReadPolicy as Plan, Topology};
use parking_lot::Mutex;

use super::{
    Core, clock, failure,
    node::{Node, Setup},
    retry,
};
use crate::{
    config::ReadPolicy,
    error::{Error, Executed},
};

/// One read in so many goes to another node than the nearest, so that its latency is known.
const EXPLORE: u64 = 64;

/// Replicas, and how long nodes take to answer.
pub(crate) struct Reads {
    setup: Setup,
    replicas: ArcSwap<BTreeMap<Endpoint, Arc<Node>>>,
    /// Whoever starts or ends one holds this.
    changing: Mutex<()>,
    latencies: Mutex<BTreeMap<Endpoint, Duration>>,
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reads").finish_non_exhaustive()
    }
}

impl Reads {
    /// `setup` says how connections to replicas are made.
    pub(crate) fn new(setup: Setup) -> Self {
        Self { setup, replicas: ArcSwap::default(), changing: Mutex::new(()), latencies: Mutex::default() }
    }

    /// The node at this replica, started if it is not known yet.
    pub(crate) fn node(&self, core: &Core, endpoint: &Endpoint) -> Option<Arc<Node>> {
        if let Some(node) = self.replicas.load().get(endpoint) {
            return Some(Arc::clone(node));
        }
        if core.is_closed() || !core.allows(endpoint) {
            return None;
        }
        let _one_at_a_time = self.changing.lock();
        let mut replicas = BTreeMap::clone(&self.replicas.load());
        if let Some(node) = replicas.get(endpoint) {
            return Some(Arc::clone(node));
        }
        let node = Arc::new(Node::start(&self.setup, endpoint));
        replicas.insert(endpoint.clone(), Arc::clone(&node));
        self.replicas.store(Arc::new(replicas));
        Some(node)
    }

    /// Ends the connections to nodes that are no replicas any more.
    pub(crate) fn adopt(&self, topology: &Topology) {
        let stays = |endpoint: &Endpoint| {
            topology.node(endpoint).is_some() && !topology.primaries().any(|node| node.endpoint == *endpoint)
        };
        if self.replicas.load().keys().all(stays) {
            return;
        }
        let _one_at_a_time = self.changing.lock();
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            BTreeMap::clone(&self.replicas.load()).into_iter().partition(|(endpoint, _)| stays(endpoint));
        self.replicas.store(Arc::new(kept));
        self.latencies.lock().retain(|endpoint, _| topology.node(endpoint).is_some());
        for node in gone.into_values() {
            node.retire();
        }
    }

    /// Ends all of them.
    pub(crate) fn close(&self) {
        for node in self.replicas.load().values() {
            node.retire();
        }
    }

    fn took(&self, endpoint: &Endpoint, time: Duration) {
        let mut latencies = self.latencies.lock();
        let known = latencies.entry(endpoint.clone()).or_insert(time);
        *known = (*known * 7 + time) / 8;
    }
}

/// Whether a command goes to the primary, whatever it is.
pub(super) fn to_primary(core: &Core, asked: Option<ReadPolicy>) -> bool {
    asked.unwrap_or_else(|| core.config().read_policy()) == ReadPolicy::Primary
}

/// The policy by which this command is routed; `None` when it goes to the primary.
pub(super) fn policy(core: &Core, command: &Command, asked: Option<ReadPolicy>) -> Option<Plan> {
    let policy = asked.unwrap_or_else(|| core.config().read_policy());
    if policy == ReadPolicy::Primary || !command.is_read_only() || !core.follows_primary() {
        return None;
    }
    match policy {
        ReadPolicy::PreferReplica => Some(Plan::PreferReplica),
        ReadPolicy::Nearest => Some(Plan::NearestByLatency),
        ReadPolicy::Zone => Some(Plan::NearestByZone(core.config().zone().unwrap_or_default().into())),
        ReadPolicy::Primary => None,
    }
}

/// Sends a read where the policy wants it; where that fails, to the primary.
pub(super) async fn send(
    core: Arc<Core>,
    command: Command,
    timeout: Duration,
    plan: Plan,
) -> Result<Reply, Error> {
    let deadline = clock::now() + timeout;
    if let Some(reply) = on_replica(&core, &command, timeout, &plan).await {
        return reply;
    }
    let left = deadline.saturating_duration_since(clock::now());
    let (begin, primary) = (clock::now(), core.primary_for(&command));
    let reply = retry::unrouted(Arc::clone(&core), command, left).await;
    if let (Plan::NearestByLatency, Ok(_), Some(primary)) = (&plan, &reply, primary) {
        core.reads().took(&primary, clock::now().saturating_duration_since(begin));
    }
    reply
}

/// `None` when the primary is to be asked: it is nearest, or no replica can answer.
async fn on_replica(
    core: &Arc<Core>,
    command: &Command,
    timeout: Duration,
    plan: &Plan,
) -> Option<Result<Reply, Error>> {
    let node = choose(core, command, plan)?;
    let lane = node.lane(command.slot())?.clone();
    let endpoint = node.home().clone();
    let begin: Instant = clock::now();
    let outcome = lane.request(command, timeout).await;
    match outcome {
        Outcome::Reply(reply) => {
            let Some(error) = reply.error() else {
                core.reads().took(&endpoint, clock::now().saturating_duration_since(begin));
                return Some(Ok(reply));
            };
            // It is no replica of this slot any more, or not ready: the primary knows better.
            if Refusal::parse(&error).is_some() {
                return None;
            }
            Some(Err(Error::server(error, command, Some(endpoint))))
        }
        Outcome::Failed(
            failure @ (evenkeel_pool::Failure::TimedOutSent | evenkeel_pool::Failure::TimedOutUnsent),
        ) => Some(Err(failure::command(failure, &lane, timeout, core.config()))),
        // Reading twice harms nobody.
        Outcome::Failed(_) | Outcome::MayResend => None,
        _ => Some(Err(Error::closed(Executed::Maybe))),
    }
}

/// The first node of the plan that can answer at once; `None` when that is the primary.
fn choose(core: &Arc<Core>, command: &Command, plan: &Plan) -> Option<Arc<Node>> {
    let topology = core.reader().load();
    let slot = command.slot().filter(|_| topology.slots().is_some());
    let random = fastrand::u64(..);
    let latencies = core.reads().latencies.lock().clone();
    let explore = *plan == Plan::NearestByLatency && random.is_multiple_of(EXPLORE);
    let latency = |endpoint: &Endpoint| if explore { None } else { latencies.get(endpoint).copied() };
    let order = topology.plan(slot, plan, random, latency);
    let primary = topology.primary_of(slot);
    for endpoint in order.iter() {
        if Some(endpoint) == primary {
            return None;
        }
        // One that has no connection yet gets one, for the reads to come.
        if let Some(node) = core.reads().node(core, endpoint).filter(|node| node.answers()) {
            return Some(node);
        }
    }
    None
}

impl Core {
    /// The primary of a command's slot.
    fn primary_for(&self, command: &Command) -> Option<Endpoint> {
        self.routes().node(command).and_then(|node| node.endpoint())
    }

    /// Makes the connections to replicas that the configuration wants, and waits for the first attempt at each.
    pub(super) async fn first_replicas(&self) {
        if self.config().read_policy() == ReadPolicy::Primary || !self.follows_primary() {
            return;
        }
        let topology = self.reader().load();
        let primaries: Vec<&Endpoint> = topology.primaries().map(|node| &node.endpoint).collect();
        let replicas = topology.nodes().iter().filter(|node| {
            matches!(node.health, Health::Online | Health::Unknown) && !primaries.contains(&&node.endpoint)
        });
        let nodes: Vec<_> = replicas.filter_map(|node| self.reads().node(self, &node.endpoint)).collect();
        let _late = tokio::time::timeout(self.config().connect_timeout(), async {
            for lane in nodes.iter().flat_map(|node| node.lanes()) {
                lane.first_attempt().await;
            }
        })
        .await;
    }
}

/// How connections to replicas are made: those of a cluster say that they are for reading.
pub(crate) fn setup(
    lane: evenkeel_pool::LaneConfig,
    lease: evenkeel_pool::LeaseConfig,
    lanes: usize,
) -> Setup {
    Setup::new(lane, lease, lanes, Arc::new(Deaf))
}
