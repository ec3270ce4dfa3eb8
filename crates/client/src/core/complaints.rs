//! What commands and connections tell the topology, and what the topology's word does to routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
};

use bytes::Bytes;
use evenkeel_pool::{LinkId, Readiness, machine::ChannelKind};
use evenkeel_protocol::{Endpoint, Refusal, ServerError, Slot, maintenance::SlotMove};
use evenkeel_topology::{ResolveError, Topology};

use super::{
    Core,
    node::Node,
    route::{ClusterRoutes, Routes},
    subscriptions::family_of,
};

/// What a refusal tells the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// Nothing that anybody should look up.
    Busy,
    ClusterDown,
    Loading,
    MasterDown,
    ReadOnly,
    Redirect(Endpoint),
    Unblocked,
}

impl Complaint {
    fn for_topology(self) -> Option<evenkeel_topology::machine::Complaint> {
        use evenkeel_topology::machine::Complaint as Told;
        Some(match self {
            Self::Busy => return None,
            Self::ClusterDown => Told::ClusterDown,
            Self::Loading => Told::Loading,
            Self::MasterDown => Told::MasterDown,
            Self::ReadOnly => Told::ReadOnly,
            Self::Redirect(target) => Told::Redirect(target),
            Self::Unblocked => Told::Unblocked,
        })
    }
}

impl Core {
    /// A slot has another owner.
    pub(crate) fn moved(&self, slot: Slot, owner: &Endpoint) {
        self.reporter().moved(slot, owner.clone());
    }

    /// A node refused a command.
    pub(crate) fn complain(&self, at: &Endpoint, complaint: Complaint) {
        if let Some(complaint) = complaint.for_topology() {
            self.reporter().refused(at.clone(), complaint);
        }
    }

    /// Nobody owns the slot of a command: somebody is asked.
    pub(crate) fn complain_unowned(&self) {
        if let Some(node) = self.routes().all().first() {
            self.complain(node.home(), Complaint::ClusterDown);
        }
    }

    /// A connection to a data node was lost, or is silent.
    pub(crate) fn connection_lost(&self, endpoint: &Endpoint) {
        self.reporter().connection_lost(endpoint.clone());
    }

    /// Slots were announced to have moved.
    pub(crate) fn slots_moved(&self, moves: &[SlotMove]) {
        let runs = moves.iter().flat_map(|moved| {
            moved.slots.ranges().iter().map(|range| (*range.start(), *range.end(), moved.target.clone()))
        });
        self.reporter().slots_moved(runs.collect());
    }

    /// The topology is to be read once, soon: any refusal that is not one command's own does it.
    pub(crate) fn verify_topology(&self) {
        if self.routes().is_cluster() {
            self.complain_unowned();
        }
    }

    pub(crate) fn unresolved(&self, error: ResolveError) {
        self.unresolved.store(Some(Arc::new(error)));
        self.note_change();
    }

    /// The node at this endpoint, started if it is not known yet.
    pub(crate) fn node_at(&self, endpoint: &Endpoint) -> Option<Arc<Node>> {
        let routes = self.routes();
        let Routes::Cluster(cluster) = &**routes else { return routes.all().into_iter().next() };
        if let Some(node) = cluster.nodes().get(endpoint) {
            return Some(Arc::clone(node));
        }
        let _one_at_a_time = self.adopting.lock();
        let routes = self.routes();
        let Routes::Cluster(cluster) = &**routes else { return None };
        if let Some(node) = cluster.nodes().get(endpoint) {
            return Some(Arc::clone(node));
        }
        let node = Arc::new(Node::start(&self.setup, endpoint));
        let more = cluster.with(endpoint.clone(), Arc::clone(&node));
        self.replace_routes(Routes::Cluster(more));
        Some(node)
    }

    /// Brings the routes of a cluster in line with the snapshot in force.
    pub(crate) fn adopt_topology(&self) {
        let reader = self.reader();
        self.reads().adopt(&reader.load());
        let routes = self.routes();
        let Routes::Cluster(cluster) = &**routes else { return };
        let gone: Vec<Arc<Node>> = {
            let _one_at_a_time = self.adopting.lock();
            let before = self.routes().all();
            let topology = reader.load();
            let owners: BTreeSet<&Endpoint> =
                topology.slot_ranges().into_iter().map(|(_slots, owner)| owner).collect();
            let mut nodes: BTreeMap<Endpoint, Arc<Node>> = BTreeMap::new();
            for known in topology.nodes() {
                let is_primary = topology.primaries().any(|primary| primary.endpoint == known.endpoint);
                let kept = self.routes_node(&known.endpoint, cluster);
                let node = match kept {
                    // What waits at a node that cannot answer and owns nothing any more belongs elsewhere, whatever
                    // the node is called: a dead primary keeps its role when its replica has taken its slots.
                    Some(node) if owners.contains(&known.endpoint) || node.may_answer() => node,
                    _ if is_primary => Arc::new(Node::start(&self.setup, &known.endpoint)),
                    _ => continue,
                };
                nodes.insert(known.endpoint.clone(), node);
            }
            let gone = before
                .into_iter()
                .filter(|node| !nodes.values().any(|kept| Arc::ptr_eq(kept, node)))
                .collect();
            let moving = match &**self.routes() {
                Routes::Cluster(before) => Self::moving(&topology, before),
                Routes::One(_) => Vec::new(),
            };
            // Commands of slots that have another node from here on wait until the one before owes none of them.
            self.fences.moving(moving);
            self.replace_routes(Routes::Cluster(ClusterRoutes::new(nodes, topology)));
            self.fences.moved();
            gone
        };
        // Only now, so that what they give back finds the new routes.
        for node in gone {
            node.retire();
        }
        self.replace_subscriptions();
    }

    /// Runs of slots that have another node in `after`, or none for a while, with the node before.
    fn moving(after: &Topology, before: &ClusterRoutes) -> Vec<(RangeInclusive<u16>, Arc<Node>)> {
        let mut moving: Vec<(RangeInclusive<u16>, Arc<Node>)> = Vec::new();
        for (range, owner) in before.topology().slot_ranges() {
            let Some(node) = before.nodes().get(owner) else { continue };
            let mut run: Option<RangeInclusive<u16>> = None;
            for slot in range {
                if after.primary_of(Slot::new(slot)) != Some(owner) {
                    run = Some(run.map_or(slot..=slot, |run| *run.start()..=slot));
                } else if let Some(run) = run.take() {
                    moving.push((run, Arc::clone(node)));
                }
            }
            moving.extend(run.map(|run| (run, Arc::clone(node))));
        }
        moving
    }

    fn routes_node(&self, endpoint: &Endpoint, cluster: &ClusterRoutes) -> Option<Arc<Node>> {
        // Another task may have started one since the routes were read.
        match &**self.routes() {
            Routes::Cluster(now) => now.nodes().get(endpoint).cloned(),
            Routes::One(_) => cluster.nodes().get(endpoint).cloned(),
        }
    }

    /// The server refused channels on a link.
    pub(crate) fn subscription_refused(
        self: &Arc<Self>,
        link: LinkId,
        kind: ChannelKind,
        channels: &[Bytes],
        error: &ServerError,
    ) {
        match Refusal::parse(error) {
            Some(Refusal::Moved { slot, target }) => {
                if let Some(here) = self.links().find(link).map(|link| link.endpoint()) {
                    self.moved(slot, &target.resolve(&here));
                }
                for channel in channels {
                    self.shard_ended(link, channel);
                }
                return;
            }
            Some(_for_now) => return self.subscriptions_put_off(link, kind, channels),
            None => {}
        }
        for channel in channels {
            self.pubsub().refused(family_of(kind), channel, error);
        }
    }
}

impl Node {
    /// Whether the first lane has a connection.
    pub(crate) fn is_ready(&self) -> bool {
        self.lanes().first().is_some_and(|lane| lane.readiness() == Readiness::Ready)
    }

    /// Whether what waits here may still be answered: a silent server that takes new connections is slow, and one that
    /// has handed its slots over says so soon.
    pub(crate) fn may_answer(&self) -> bool {
        self.lanes().iter().all(|lane| lane.readiness() == Readiness::Ready && !lane.is_mute())
    }

    /// Whether it answers as it should.
    pub(crate) fn answers(&self) -> bool {
        self.lanes().iter().all(|lane| lane.readiness() == Readiness::Ready && !lane.is_suspect())
    }
}

/// The slot and its owner, when an error is a MOVED of a cluster.
pub(crate) fn redirected(core: &Core, node: &Node, error: &ServerError) -> Option<(Slot, Endpoint)> {
    match Refusal::parse(error)? {
        Refusal::Moved { slot, target } if core.routes().is_cluster() => {
            Some((slot, target.resolve(&node.endpoint()?)))
        }
        _ => None,
    }
}
