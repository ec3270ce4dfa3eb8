//! `Routes`: which node a command goes to; an immutable snapshot, replaced as a whole.

use std::{collections::BTreeMap, sync::Arc};

use evenkeel_protocol::{Command, Endpoint, Slot};
use evenkeel_topology::Topology;

use super::node::Node;

/// Where commands go.
#[derive(Debug)]
pub(crate) enum Routes {
    /// Everything to one node, whose place may change beneath it (single server, Sentinel).
    One(Arc<Node>),
    /// By slot.
    Cluster(ClusterRoutes),
}

/// The nodes of a cluster, and who owns which slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterRoutes {
    nodes: BTreeMap<Endpoint, Arc<Node>>,
    topology: Arc<Topology>,
}

impl ClusterRoutes {
    pub(crate) fn new(nodes: BTreeMap<Endpoint, Arc<Node>>, topology: Arc<Topology>) -> Self {
        Self { nodes, topology }
    }

    pub(crate) fn nodes(&self) -> &BTreeMap<Endpoint, Arc<Node>> {
        &self.nodes
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(crate) fn owner_endpoint(&self, slot: Slot) -> Option<&Endpoint> {
        self.topology.primary_of(Some(slot))
    }

    pub(crate) fn is_primary(&self, endpoint: &Endpoint) -> bool {
        self.topology.primaries().any(|node| node.endpoint == *endpoint)
    }

    fn owner(&self, slot: Slot) -> Option<&Arc<Node>> {
        self.nodes.get(self.owner_endpoint(slot)?)
    }

    /// Any primary, for commands without a key; one that can take them at once is preferred.
    fn any(&self) -> Option<&Arc<Node>> {
        let primaries = || self.topology.primaries().filter_map(|node| self.nodes.get(&node.endpoint));
        primaries().find(|node| node.is_ready()).or_else(|| primaries().next())
    }

    /// The same routes with one more node.
    pub(crate) fn with(&self, endpoint: Endpoint, node: Arc<Node>) -> Self {
        let mut more = self.clone();
        more.nodes.insert(endpoint, node);
        more
    }
}

impl Routes {
    /// The node for a command; `None` when nobody owns its slot.
    pub(crate) fn node(&self, command: &Command) -> Option<&Arc<Node>> {
        match self {
            Self::One(node) => Some(node),
            Self::Cluster(cluster) => match command.slot() {
                Some(slot) => cluster.owner(slot),
                None => cluster.any(),
            },
        }
    }

    /// The primary that owns a slot, in a cluster.
    pub(crate) fn owner(&self, slot: Slot) -> Option<&Arc<Node>> {
        match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => cluster.owner(slot),
        }
    }

    /// The node that is lent from where no key tells another.
    pub(crate) fn first(&self) -> Option<&Arc<Node>> {
        match self {
            Self::One(node) => Some(node),
            Self::Cluster(cluster) => cluster.nodes.values().next(),
        }
    }

    /// Every node.
    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        match self {
            Self::One(node) => vec![Arc::clone(node)],
            Self::Cluster(cluster) => cluster.nodes.values().cloned().collect(),
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}
