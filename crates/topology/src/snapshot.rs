//! `Topology`: what is known of a deployment at one moment; immutable, replaced as a whole.
//!
//! It knows nothing of how it was learned. Resolvers build one with a [`Draft`]; readers ask it for endpoints.

mod moves;
mod show;

use std::{ops::RangeInclusive, sync::Arc};

use evenkeel_protocol::{Endpoint, Slot};

use crate::slot_map::SlotMap;

/// What kind of deployment it is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Mode {
    /// A Redis Cluster.
    Cluster,
    /// A primary and replicas under Sentinels.
    Sentinel,
    /// One server.
    #[default]
    Single,
}

/// What a node is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Replica,
    /// Not known, or it claims a role that nobody gave it: it gets no traffic.
    Unknown,
}

/// How a node is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Health {
    /// Seen as down by its peers, or unreachable for us.
    Failed,
    /// Reading its data set, or not yet in step with its primary.
    Loading,
    /// In order.
    Online,
    /// Not known.
    Unknown,
}

/// One server.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Node {
    /// Its name in the cluster or its run id, when known.
    pub id: Option<Arc<str>>,
    /// Where it listens.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub endpoint: Endpoint,
    /// What it is.
    pub role: Role,
    /// Its availability zone, when known.
    pub zone: Option<Arc<str>>,
    /// How it is.
    pub health: Health,
    /// Bytes of its replication stream, when known.
    pub offset: Option<u64>,
    /// Bytes by which a replica is behind its primary, when both are known.
    pub lag: Option<u64>,
}

impl Node {
    /// A healthy node with nothing else known.
    pub fn new(endpoint: Endpoint, role: Role) -> Self {
        Self { id: None, endpoint, role, zone: None, health: Health::Online, offset: None, lag: None }
    }
}

/// A sentinel as we know it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SentinelNode {
    /// Where it listens.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub endpoint: Endpoint,
    /// An event link to it stands. While one does not, a failover that this sentinel leads may be seen late.
    pub watched: bool,
    /// The configuration epoch that it answered last.
    pub epoch: Option<u64>,
}

impl SentinelNode {
    /// A sentinel of which nothing is known yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, watched: false, epoch: None }
    }
}

#[cfg(feature = "serde")]
fn as_text<S: serde::Serializer>(endpoint: &Endpoint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(endpoint)
}

/// A primary with its replicas, as numbers of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) primary: Option<u16>,
    pub(crate) replicas: Vec<u16>,
}

/// A deployment at one moment.
///
/// ```
/// use evenkeel_topology::{Draft, Mode, Node, Role};
/// use evenkeel_protocol::Slot;
///
/// let mut draft = Draft::new(Mode::Cluster);
/// let left = draft.node(Node::new("10.0.0.1:7000".parse().unwrap(), Role::Primary));
/// let right = draft.node(Node::new("10.0.0.2:7000".parse().unwrap(), Role::Primary));
/// let shards = [draft.shard(Some(left), []), draft.shard(Some(right), [])];
/// draft.assign(0..=8191, shards[0]);
/// draft.assign(8192..=16383, shards[1]);
/// let topology = draft.build(1);
/// assert_eq!(topology.primary_of(Some(Slot::of(b"foo"))).unwrap().to_string(), "10.0.0.2:7000");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    mode: Mode,
    generation: u64,
    epoch: u64,
    nodes: Vec<Node>,
    shards: Vec<Shard>,
    /// `None` outside a cluster: everything belongs to the first shard.
    slots: Option<SlotMap>,
    sentinels: Vec<SentinelNode>,
}

impl Topology {
    /// What kind of deployment it is.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Grows by at least one with each snapshot that a resolver publishes; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The highest configuration epoch known: Sentinel's or the cluster's.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All data nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node at `endpoint`.
    pub fn node(&self, endpoint: &Endpoint) -> Option<&Node> {
        self.nodes.iter().find(|node| node.endpoint == *endpoint)
    }

    /// The sentinels, those that answered with the newest configuration first.
    pub fn sentinels(&self) -> &[SentinelNode] {
        &self.sentinels
    }

    /// True when an event link to every known sentinel stands; without sentinels there is nothing to miss.
    pub fn sees_every_failover(&self) -> bool {
        self.sentinels.iter().all(|sentinel| sentinel.watched)
    }

    /// The slot map; `None` outside a cluster.
    pub fn slots(&self) -> Option<&SlotMap> {
        self.slots.as_ref()
    }

    /// The primary that serves `slot`, or the only primary there is when `slot` is `None`.
    ///
    /// In a cluster `None` gives the first primary: for commands that any of them can answer.
    pub fn primary_of(&self, slot: Option<Slot>) -> Option<&Endpoint> {
        let shard = self.shard_of(slot)?;
        self.endpoint(shard.primary?)
    }

    /// The replicas of the shard that serves `slot`, whatever their health.
    pub fn replicas_of(&self, slot: Option<Slot>) -> impl Iterator<Item = &Node> {
        let shard = self.shard_of(slot);
        shard.into_iter().flat_map(|shard| &shard.replicas).filter_map(|&node| self.node_at(node))
    }

    /// All primaries, in order of their first slot.
    pub fn primaries(&self) -> impl Iterator<Item = &Node> {
        self.shards.iter().filter_map(|shard| self.node_at(shard.primary?))
    }

    /// The primary whose replica, or itself, listens at `endpoint`.
    pub fn primary_of_node(&self, endpoint: &Endpoint) -> Option<&Endpoint> {
        self.endpoint(self.shard_of_node(endpoint)?.1.primary?)
    }

    /// The replicas beside `endpoint` in its shard, or those that follow it.
    pub fn peers_of_node(&self, endpoint: &Endpoint) -> impl Iterator<Item = &Node> {
        let shard = self.shard_of_node(endpoint).map(|(_, shard)| shard);
        let replicas = shard.into_iter().flat_map(|shard| &shard.replicas);
        replicas.filter_map(|&node| self.node_at(node)).filter(move |node| node.endpoint != *endpoint)
    }

    /// The runs of slots that each primary serves, in order of slots.
    pub fn slot_ranges(&self) -> Vec<(RangeInclusive<u16>, &Endpoint)> {
        let Some(slots) = &self.slots else { return Vec::new() };
        let ranges = slots.ranges().into_iter();
        ranges.filter_map(|(range, shard)| Some((range, self.primary_of_shard(shard)?))).collect()
    }

    /// True in a cluster in which every slot has a primary, and elsewhere when there is a primary.
    pub fn is_complete(&self) -> bool {
        let has_primary = |shard: &Shard| shard.primary.is_some();
        match &self.slots {
            Some(slots) => {
                slots.owned() == usize::from(Slot::COUNT)
                    && slots
                        .ranges()
                        .iter()
                        .all(|(_, shard)| self.shards.get(usize::from(*shard)).is_some_and(has_primary))
            }
            None => self.shards.first().is_some_and(has_primary),
        }
    }

    pub(crate) fn shard_of(&self, slot: Option<Slot>) -> Option<&Shard> {
        match (&self.slots, slot) {
            (Some(slots), Some(slot)) => self.shards.get(usize::from(slots.shard(slot)?)),
            (Some(_), None) => self.shards.iter().find(|shard| shard.primary.is_some()),
            (None, _) => self.shards.first(),
        }
    }

    pub(crate) fn node_at(&self, index: u16) -> Option<&Node> {
        self.nodes.get(usize::from(index))
    }

    pub(crate) fn endpoint(&self, index: u16) -> Option<&Endpoint> {
        self.node_at(index).map(|node| &node.endpoint)
    }

    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    pub(crate) fn primary_of_shard(&self, shard: u16) -> Option<&Endpoint> {
        self.endpoint(self.shards.get(usize::from(shard))?.primary?)
    }

    fn index_of(&self, endpoint: &Endpoint) -> Option<u16> {
        self.nodes.iter().position(|node| node.endpoint == *endpoint).map(|index| index as u16)
    }

    pub(crate) fn shard_of_node(&self, endpoint: &Endpoint) -> Option<(u16, &Shard)> {
        let node = self.index_of(endpoint)?;
        let found = self.shards.iter().position(|s| s.primary == Some(node) || s.replicas.contains(&node))?;
        Some((found as u16, self.shards.get(found)?))
    }

    /// The same content; generation, and offsets that always move, are left out of the comparison.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        let still = |node: &Node| Node { offset: None, lag: None, ..node.clone() };
        self.mode == other.mode
            && self.epoch == other.epoch
            && self.nodes.iter().map(still).eq(other.nodes.iter().map(still))
            && self.shards == other.shards
            && self.slots == other.slots
            && self.sentinels == other.sentinels
    }

    fn push_node(&mut self, node: Node) -> u16 {
        let Some(index) = self.index_of(&node.endpoint) else {
            self.nodes.push(node);
            return (self.nodes.len() - 1) as u16;
        };
        if let Some(known) = self.nodes.get_mut(usize::from(index)) {
            known.role = node.role;
        }
        index
    }

    fn assign(&mut self, range: RangeInclusive<u16>, shard: u16) {
        if let Some(slots) = &mut self.slots {
            slots.assign(range, Some(shard));
        }
    }
}

/// A topology in the making.
#[derive(Clone, Debug)]
pub struct Draft(Topology);

impl Draft {
    /// Begins with nothing.
    pub fn new(mode: Mode) -> Self {
        let slots = (mode == Mode::Cluster).then(SlotMap::default);
        Self(Topology { mode, slots, ..Topology::default() })
    }

    /// Adds a node and gives its number; a second one at the same endpoint is the same node.
    pub fn node(&mut self, node: Node) -> u16 {
        self.0.push_node(node)
    }

    /// Adds a shard of nodes already added and gives its number.
    pub fn shard(&mut self, primary: Option<u16>, replicas: impl IntoIterator<Item = u16>) -> u16 {
        self.0.shards.push(Shard { primary, replicas: replicas.into_iter().collect() });
        (self.0.shards.len() - 1) as u16
    }

    /// Gives slots to a shard.
    pub fn assign(&mut self, slots: RangeInclusive<u16>, shard: u16) {
        self.0.assign(slots, shard);
    }

    /// Adds a sentinel.
    pub fn sentinel(&mut self, sentinel: SentinelNode) {
        self.0.sentinels.push(sentinel);
    }

    /// Sets the configuration epoch. Default: 0.
    pub fn epoch(&mut self, epoch: u64) {
        self.0.epoch = epoch;
    }

    /// Ends with this generation; the lag of replicas is worked out here.
    pub fn build(mut self, generation: u64) -> Topology {
        self.0.generation = generation;
        let ahead: Vec<(u16, u64)> = self
            .0
            .shards
            .iter()
            .flat_map(|shard| {
                let of_primary = shard.primary.and_then(|p| self.0.node_at(p)).and_then(|node| node.offset);
                of_primary
                    .into_iter()
                    .flat_map(|offset| shard.replicas.iter().map(move |&node| (node, offset)))
            })
            .collect();
        for (node, of_primary) in ahead {
            if let Some(node) = self.0.nodes.get_mut(usize::from(node)) {
                node.lag = node.offset.map(|offset| of_primary.saturating_sub(offset));
            }
        }
        self.0
    }
}
