//! Copies of a snapshot in which something moved; nothing is asked for them.

use std::{ops::RangeInclusive, sync::Arc};

use evenkeel_protocol::{Endpoint, Slot};

use super::{Node, Role, Shard, Topology};

impl Topology {
    /// A copy in which `endpoint` serves `slot`: what a `MOVED` tells. Nothing is asked and nothing else changes.
    ///
    /// When `endpoint` is a replica of the shard that had the slot, it has taken over that shard, so all its slots follow.
    #[must_use]
    pub fn with_moved(&self, slot: Slot, endpoint: &Endpoint) -> Self {
        self.with_moved_range(slot.number()..=slot.number(), endpoint)
    }

    /// As [`with_moved`](Self::with_moved), for a run of slots that had one owner.
    #[must_use]
    pub fn with_moved_range(&self, range: RangeInclusive<u16>, endpoint: &Endpoint) -> Self {
        let Some(slots) = &self.slots else { return self.clone() };
        let first = Slot::new(*range.start());
        let was = first.and_then(|slot| slots.shard(slot));
        match self.shard_of_node(endpoint) {
            Some((shard, _)) if Some(shard) == was => self.with_promoted(endpoint),
            Some((shard, has)) if has.primary.and_then(|p| self.endpoint(p)) == Some(endpoint) => {
                let mut next = self.next();
                next.assign(range, shard);
                next
            }
            _ => {
                let mut next = self.without_node(endpoint);
                let node = next.push_node(Node::new(endpoint.clone(), Role::Primary));
                next.shards.push(Shard { primary: Some(node), replicas: Vec::new() });
                let shard = (next.shards.len() - 1) as u16;
                next.assign(range, shard);
                next
            }
        }
    }

    /// A copy in which the replica at `endpoint` is the primary of its shard and the old primary is of unknown role.
    #[must_use]
    pub fn with_promoted(&self, endpoint: &Endpoint) -> Self {
        let mut next = self.next();
        let Some(node) = next.index_of(endpoint) else { return next };
        let Some((shard, _)) = next.shard_of_node(endpoint) else { return next };
        let Some(shard) = next.shards.get_mut(usize::from(shard)) else { return next };
        if shard.primary == Some(node) {
            return next;
        }
        shard.replicas.retain(|&replica| replica != node);
        let demoted = shard.primary.replace(node);
        shard.replicas.extend(demoted);
        for (index, role) in [(Some(node), Role::Primary), (demoted, Role::Unknown)] {
            if let Some(node) = index.and_then(|index| next.nodes.get_mut(usize::from(index))) {
                node.role = role;
            }
        }
        next
    }

    /// A copy with zones for nodes that have none; `None` when nothing is new.
    pub(crate) fn with_zones(&self, zone: impl Fn(&Endpoint) -> Option<Arc<str>>) -> Option<Self> {
        let mut next = self.next();
        let mut is_news = false;
        for node in next.nodes.iter_mut().filter(|node| node.zone.is_none()) {
            node.zone = zone(&node.endpoint);
            is_news |= node.zone.is_some();
        }
        is_news.then_some(next)
    }

    fn next(&self) -> Self {
        Self { generation: self.generation + 1, ..self.clone() }
    }

    fn without_node(&self, endpoint: &Endpoint) -> Self {
        let mut next = self.next();
        if let Some(index) = next.index_of(endpoint) {
            for shard in &mut next.shards {
                shard.replicas.retain(|&replica| replica != index);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Draft, Mode};

    fn at(port: u16) -> Endpoint {
        Endpoint::new("10.0.0.1", port)
    }

    /// Primaries 1 and 2, each with the replica 11 and 12; the slots are halved.
    fn two_shards() -> Topology {
        let mut draft = Draft::new(Mode::Cluster);
        for (primary, replica, slots) in [(1, 11, 0..=8191), (2, 12, 8192..=16383)] {
            let primary = draft.node(Node { offset: Some(100), ..Node::new(at(primary), Role::Primary) });
            let replica = draft.node(Node { offset: Some(90), ..Node::new(at(replica), Role::Replica) });
            let shard = draft.shard(Some(primary), [replica]);
            draft.assign(slots, shard);
        }
        draft.build(1)
    }

    fn owner(topology: &Topology, slot: u16) -> u16 {
        topology.primary_of(Slot::new(slot)).unwrap().port()
    }

    #[test]
    fn moved_changes_one_slot_and_nothing_else() {
        let before = two_shards();
        let after = before.with_moved(Slot::new(100).unwrap(), &at(2));
        assert_eq!((owner(&after, 99), owner(&after, 100), owner(&after, 101)), (1, 2, 1));
        assert_eq!(owner(&before, 100), 1);
        assert_eq!(after.generation(), 2);
        assert!(after.is_complete());
    }

    #[test]
    fn moved_to_the_own_replica_is_a_failover_of_the_shard() {
        let after = two_shards().with_moved(Slot::new(100).unwrap(), &at(11));
        assert_eq!((owner(&after, 0), owner(&after, 8191), owner(&after, 8192)), (11, 11, 2));
        assert_eq!(after.node(&at(1)).unwrap().role, Role::Unknown);
        assert_eq!(after.primary_of_node(&at(1)), Some(&at(11)));
    }

    #[test]
    fn moved_to_a_stranger_or_to_a_replica_of_another_shard_makes_a_shard() {
        let after = two_shards().with_moved(Slot::new(100).unwrap(), &at(9));
        assert_eq!((owner(&after, 100), owner(&after, 101)), (9, 1));
        let after = two_shards().with_moved(Slot::new(100).unwrap(), &at(12));
        assert_eq!((owner(&after, 100), owner(&after, 101), owner(&after, 9000)), (12, 1, 2));
        assert_eq!(after.replicas_of(Slot::new(9000)).count(), 0);
        assert_eq!(after.node(&at(12)).unwrap().role, Role::Primary);
    }

    #[test]
    fn lag_is_what_a_replica_is_behind() {
        let topology = two_shards();
        assert_eq!(topology.node(&at(11)).unwrap().lag, Some(10));
        let text = topology.to_string();
        assert!(text.contains("10.0.0.1:1 Primary Online 0-8191"), "{text}");
        assert!(text.contains("10.0.0.1:12 Replica Online lag 10"), "{text}");
    }
}
