//! What changed between two snapshots: the events that a person or a hook is told.

use std::ops::RangeInclusive;

use evenkeel_protocol::{Endpoint, Slot};

use crate::{
    slot_map::runs,
    snapshot::{Health, Mode, Topology},
};

/// One difference between two snapshots.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node's health is another.
    HealthChanged {
        /// The node.
        endpoint: Endpoint,
        /// Its health before.
        from: Health,
        /// Its health after.
        to: Health,
    },
    /// A node appeared.
    NodeAdded(Endpoint),
    /// A node is no longer there.
    NodeRemoved(Endpoint),
    /// A shard, or the whole deployment outside a cluster, has another primary.
    PrimaryChanged {
        /// The primary before, if there was one.
        from: Option<Endpoint>,
        /// The primary after, if there is one.
        to: Option<Endpoint>,
    },
    /// A run of slots has another owner: the event `Redis cluster slot moved`, once per run.
    SlotsMoved {
        /// The slots.
        slots: RangeInclusive<u16>,
        /// Their owner before; `None` when nobody served them.
        from: Option<Endpoint>,
        /// Their owner after.
        to: Endpoint,
    },
}

/// The differences from `old` to `new`: nodes first, then primaries, then slots in order.
///
/// A first map (`old` knows no slots) is news of nodes, not of moves.
pub fn diff(old: &Topology, new: &Topology) -> Vec<Change> {
    let mut changes = Vec::new();
    for node in old.nodes() {
        match new.node(&node.endpoint) {
            None => changes.push(Change::NodeRemoved(node.endpoint.clone())),
            Some(now) if now.health != node.health => changes.push(Change::HealthChanged {
                endpoint: node.endpoint.clone(),
                from: node.health,
                to: now.health,
            }),
            Some(_) => {}
        }
    }
    let added = new.nodes().iter().filter(|node| old.node(&node.endpoint).is_none());
    changes.extend(added.map(|node| Change::NodeAdded(node.endpoint.clone())));
    if new.mode() == Mode::Cluster {
        primaries_of_shards(old, new, &mut changes);
        slots(old, new, &mut changes);
    } else {
        let (from, to) = (old.primary_of(None), new.primary_of(None));
        if from != to {
            changes.push(Change::PrimaryChanged { from: from.cloned(), to: to.cloned() });
        }
    }
    changes
}

/// A shard's primary changed when its old primary's shard, found by any node that both maps know, has another one.
fn primaries_of_shards(old: &Topology, new: &Topology, changes: &mut Vec<Change>) {
    for shard in old.shards() {
        let Some(before) = shard.primary.and_then(|primary| old.endpoint(primary)) else { continue };
        if new.primaries().any(|node| node.endpoint == *before) {
            continue;
        }
        let replicas = shard.replicas.iter().filter_map(|&replica| old.endpoint(replica));
        let successor =
            replicas.clone().find(|replica| new.primaries().any(|node| node.endpoint == **replica));
        let after = successor.or_else(|| new.primary_of_node(before));
        if let Some(after) = after {
            changes.push(Change::PrimaryChanged { from: Some(before.clone()), to: Some(after.clone()) });
        }
    }
}

fn slots(old: &Topology, new: &Topology, changes: &mut Vec<Change>) {
    let (Some(before), Some(after)) = (old.slots(), new.slots()) else { return };
    if before.owned() == 0 {
        return;
    }
    // Slots of one pair of shards lie in long runs: addresses are compared once for each run.
    let mut last = None;
    let moved = |slot: Slot| {
        let shards = (before.shard(slot), after.shard(slot));
        let known = last.filter(|(same, _)| *same == shards);
        let (_, moved) = known.unwrap_or_else(|| {
            let from = shards.0.and_then(|shard| old.primary_of_shard(shard));
            let to = shards.1.and_then(|shard| new.primary_of_shard(shard));
            (shards, to.filter(|_| from != to).map(|to| (from, to)))
        });
        last = Some((shards, moved));
        moved
    };
    changes.extend(
        runs(0..=Slot::COUNT - 1, moved).into_iter().map(|(slots, (from, to))| Change::SlotsMoved {
            slots,
            from: from.cloned(),
            to: to.clone(),
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Draft, Node, Role};

    fn at(port: u16) -> Endpoint {
        Endpoint::new("h", port)
    }

    /// Port of the primary, port of its replica, runs of slots.
    type Shard<'a> = (u16, Option<u16>, &'a [(u16, u16)]);

    fn cluster(shards: &[Shard<'_>]) -> Topology {
        let mut draft = Draft::new(Mode::Cluster);
        for (primary, replica, ranges) in shards {
            let primary = draft.node(Node::new(at(*primary), Role::Primary));
            let replica = replica.map(|port| draft.node(Node::new(at(port), Role::Replica)));
            let shard = draft.shard(Some(primary), replica);
            for (first, last) in *ranges {
                draft.assign(*first..=*last, shard);
            }
        }
        draft.build(1)
    }

    #[test]
    fn a_reshard_is_one_event_per_run() {
        let old = cluster(&[(1, None, &[(0, 8191)]), (2, None, &[(8192, 16383)])]);
        let new = cluster(&[
            (1, None, &[(500, 8191)]),
            (2, None, &[(0, 499), (8192, 16000)]),
            (3, None, &[(16001, 16383)]),
        ]);
        assert_eq!(
            diff(&old, &new),
            [
                Change::NodeAdded(at(3)),
                Change::SlotsMoved { slots: 0..=499, from: Some(at(1)), to: at(2) },
                Change::SlotsMoved { slots: 16001..=16383, from: Some(at(2)), to: at(3) },
            ]
        );
        assert_eq!(diff(&new, &new), []);
    }

    #[test]
    fn a_failover_is_a_change_of_primary_and_of_slots() {
        let old = cluster(&[(1, Some(11), &[(0, 8191)]), (2, None, &[(8192, 16383)])]);
        let new = cluster(&[(11, None, &[(0, 8191)]), (2, None, &[(8192, 16383)])]);
        assert_eq!(
            diff(&old, &new),
            [
                Change::NodeRemoved(at(1)),
                Change::PrimaryChanged { from: Some(at(1)), to: Some(at(11)) },
                Change::SlotsMoved { slots: 0..=8191, from: Some(at(1)), to: at(11) },
            ]
        );
    }

    #[test]
    fn a_first_map_is_no_move() {
        let new = cluster(&[(1, None, &[(0, 16383)])]);
        assert_eq!(diff(&Topology::default(), &new), [Change::NodeAdded(at(1))]);
    }
}
