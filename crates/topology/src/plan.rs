//! Routing plans: slot and read policy to endpoints, best first. It knows nothing of connections.

use std::{sync::Arc, time::Duration};

use evenkeel_protocol::{Endpoint, Slot};

use crate::snapshot::{Health, Node, Role, Topology};

/// Most candidates that a plan holds; further replicas are left out.
const MAX_CANDIDATES: usize = 8;

/// Where reads go. Writes always go to the primary.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReadPolicy {
    /// The node with the shortest measured latency, primary or replica; a node not yet measured comes first, so that it gets measured.
    NearestByLatency,
    /// A node in this availability zone, replicas before the primary; elsewhere when there is none.
    NearestByZone(Arc<str>),
    /// A replica; the primary when none is in order.
    PreferReplica,
    /// The primary. The default: reads see every write acknowledged before.
    #[default]
    Primary,
}

/// Endpoints for one read, best first; the later ones are for when the earlier ones fail. Made without allocating.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    topology: &'a Topology,
    order: [u16; MAX_CANDIDATES],
    len: u8,
}

impl<'a> Plan<'a> {
    /// The best endpoint; `None` when nobody serves the slot.
    pub fn first(&self) -> Option<&'a Endpoint> {
        self.iter().next()
    }

    /// The endpoints, best first.
    pub fn iter(&self) -> impl Iterator<Item = &'a Endpoint> + use<'a> {
        let topology = self.topology;
        self.order.into_iter().take(usize::from(self.len)).filter_map(|node| topology.endpoint(node))
    }
}

impl Topology {
    /// Where to read `slot`.
    ///
    /// `random` spreads load over candidates that are equally good. `latency` gives what was measured, for
    /// [`ReadPolicy::NearestByLatency`]. Replicas that are down, loading or demoted are left out.
    ///
    /// ```
    /// use evenkeel_topology::{Draft, Mode, Node, ReadPolicy, Role};
    ///
    /// let mut draft = Draft::new(Mode::Sentinel);
    /// let primary = draft.node(Node::new("10.0.0.1:6379".parse().unwrap(), Role::Primary));
    /// let replica = draft.node(Node::new("10.0.0.2:6379".parse().unwrap(), Role::Replica));
    /// draft.shard(Some(primary), [replica]);
    /// let topology = draft.build(1);
    /// let plan = topology.plan(None, &ReadPolicy::PreferReplica, 0, |_| None);
    /// let hosts: Vec<_> = plan.iter().map(|endpoint| endpoint.host()).collect();
    /// assert_eq!(hosts, ["10.0.0.2", "10.0.0.1"]);
    /// ```
    pub fn plan(
        &self,
        slot: Option<Slot>,
        policy: &ReadPolicy,
        random: u64,
        latency: impl Fn(&Endpoint) -> Option<Duration>,
    ) -> Plan<'_> {
        let mut plan = Plan { topology: self, order: [0; MAX_CANDIDATES], len: 0 };
        let Some(shard) = self.shard_of(slot) else { return plan };
        let mut candidates = [(Rank::default(), 0_u16); MAX_CANDIDATES];
        let mut count = 0;
        let readable = shard.replicas.iter().copied().filter(|&replica| {
            *policy != ReadPolicy::Primary && self.node_at(replica).is_some_and(is_readable)
        });
        for (place, index) in shard.primary.into_iter().chain(readable).enumerate() {
            let (Some(node), Some(candidate)) = (self.node_at(index), candidates.get_mut(place)) else {
                break;
            };
            let is_primary = Some(index) == shard.primary;
            *candidate = (Rank::of(node, is_primary, policy, &latency), index);
            count = place + 1;
        }
        let candidates = candidates.get_mut(..count).unwrap_or_default();
        // Equals are put in an order of their own for each random value, so that each is first equally often.
        candidates.sort_unstable_by_key(|(rank, index)| (*rank, mix(random ^ u64::from(*index))));
        for (place, (_, index)) in plan.order.iter_mut().zip(candidates) {
            *place = *index;
            plan.len += 1;
        }
        plan
    }
}

fn is_readable(node: &Node) -> bool {
    node.role == Role::Replica && matches!(node.health, Health::Online | Health::Unknown)
}

/// Spreads neighbouring values over the whole range (the finaliser of SplitMix64).
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Lower is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    distance: Duration,
    is_primary: bool,
}

impl Rank {
    fn of(
        node: &Node,
        is_primary: bool,
        policy: &ReadPolicy,
        latency: impl Fn(&Endpoint) -> Option<Duration>,
    ) -> Self {
        let distance = match policy {
            ReadPolicy::NearestByLatency => latency(&node.endpoint).unwrap_or_default(),
            ReadPolicy::NearestByZone(zone) if node.zone.as_ref() != Some(zone) => Duration::MAX,
            ReadPolicy::NearestByZone(_) | ReadPolicy::PreferReplica | ReadPolicy::Primary => Duration::ZERO,
        };
        Self { distance, is_primary: is_primary && *policy != ReadPolicy::NearestByLatency }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Draft, Mode};

    fn at(port: u16) -> Endpoint {
        Endpoint::new("h", port)
    }

    /// Primary 1 in zone a; replicas 2 (zone a), 3 (zone b), 4 (zone b, down), 5 (demoted).
    fn topology() -> Topology {
        let mut draft = Draft::new(Mode::Sentinel);
        let zone = |name: &str| Some(name.into());
        let primary = draft.node(Node { zone: zone("a"), ..Node::new(at(1), Role::Primary) });
        let replicas = [
            draft.node(Node { zone: zone("a"), ..Node::new(at(2), Role::Replica) }),
            draft.node(Node { zone: zone("b"), ..Node::new(at(3), Role::Replica) }),
            draft.node(Node { zone: zone("b"), health: Health::Failed, ..Node::new(at(4), Role::Replica) }),
            draft.node(Node::new(at(5), Role::Unknown)),
        ];
        draft.shard(Some(primary), replicas);
        draft.build(1)
    }

    fn ports(policy: &ReadPolicy, random: u64) -> Vec<u16> {
        let latency = |endpoint: &Endpoint| {
            Some(Duration::from_millis(match endpoint.port() {
                1 => 2,
                2 => 3,
                _ => 1,
            }))
        };
        topology().plan(None, policy, random, latency).iter().map(Endpoint::port).collect()
    }

    #[test]
    fn each_policy_orders_the_nodes_that_are_in_order() {
        assert_eq!(ports(&ReadPolicy::Primary, 7), [1]);
        assert_eq!(ports(&ReadPolicy::PreferReplica, 0).len(), 3);
        assert_eq!(ports(&ReadPolicy::NearestByZone("a".into()), 0), [2, 1, 3]);
        assert_eq!(ports(&ReadPolicy::NearestByZone("b".into()), 0), [3, 2, 1]);
        assert_eq!(ports(&ReadPolicy::NearestByZone("c".into()), 0)[2], 1);
        assert_eq!(ports(&ReadPolicy::NearestByLatency, 0), [3, 1, 2]);
    }

    #[test]
    fn equals_are_taken_in_turn_and_the_primary_stays_last() {
        let orders: Vec<_> = (0..1000).map(|random| ports(&ReadPolicy::PreferReplica, random)).collect();
        let firsts = orders.iter().filter(|order| order[0] == 2).count();
        assert!((400..600).contains(&firsts), "{firsts}");
        assert!(orders.iter().all(|order| order[2] == 1));
    }

    #[test]
    fn a_slot_that_nobody_serves_has_no_plan() {
        let empty = Draft::new(Mode::Cluster).build(1);
        assert_eq!(empty.plan(Slot::new(3), &ReadPolicy::Primary, 0, |_| None).first(), None);
        assert_eq!(empty.primary_of(None), None);
    }
}
