//! Views to snapshots, and the changes that views of slower nodes must not undo.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Slot};

use super::ClusterResolver;
use crate::{
    read::{ClusterView, NodeView},
    slot_map::runs,
    snapshot::{Draft, Health, Mode, Node, Role, Topology},
};

/// How long a change stands against views that do not show it: gossip takes the news to every node well within it.
const PATCH_LIFE: Duration = Duration::from_secs(1);
/// Changes remembered; a map in more pieces is rebuilt from its next view.
const MAX_PATCHES: usize = 4096;

#[derive(Clone, Debug)]
struct Patch {
    slots: RangeInclusive<u16>,
    from: Endpoint,
    to: Endpoint,
    at: Instant,
}

/// Recent changes of owners, oldest first.
#[derive(Debug, Default)]
pub(super) struct Patches(Vec<Patch>);

impl Patches {
    pub(super) fn note(&mut self, now: Instant, slots: RangeInclusive<u16>, from: Endpoint, to: Endpoint) {
        self.0.retain(|patch| now.saturating_duration_since(patch.at) < PATCH_LIFE);
        if self.0.len() < MAX_PATCHES {
            self.0.push(Patch { slots, from, to, at: now });
        }
    }

    /// Applies to a view's map the changes that it does not show yet; gives whether there were any.
    pub(super) fn apply(&self, now: Instant, mut topology: Topology) -> (Topology, bool) {
        let mut is_lagging = false;
        let fresh = self.0.iter().filter(|patch| now.saturating_duration_since(patch.at) < PATCH_LIFE);
        for patch in fresh {
            let behind = |slot: Slot| {
                let owner = topology.primary_of(Some(slot))?;
                (*owner == patch.from).then_some(())
            };
            for (slots, ()) in runs(patch.slots.clone(), behind) {
                topology = with_moved_runs(topology, slots, &patch.to);
                is_lagging = true;
            }
        }
        (topology, is_lagging)
    }
}

/// A copy in which `target` serves all of `slots`, whoever had them.
pub(super) fn with_moved_runs(
    mut topology: Topology,
    slots: RangeInclusive<u16>,
    target: &Endpoint,
) -> Topology {
    let owners = runs(slots, |slot| Some(topology.primary_of(Some(slot)).cloned()));
    for (run, owner) in owners {
        // A failover of the shard may have taken the rest along.
        let is_there =
            Slot::new(*run.start()).and_then(|slot| topology.primary_of(Some(slot))) == Some(target);
        if owner.as_ref() != Some(target) && !is_there {
            topology = topology.with_moved_range(run, target);
        }
    }
    topology
}

impl ClusterResolver {
    /// Whether a node is known as the primary of these slots.
    fn served(&self, slots: &[RangeInclusive<u16>], node: &NodeView) -> bool {
        let first = slots.first().and_then(|run| Slot::new(*run.start()));
        let owner = first.and_then(|first| self.published.primary_of(Some(first)));
        owner.is_some() && owner == node.endpoint.as_ref()
    }

    /// The snapshot that a view describes, of the nodes that the policy allows.
    pub(super) fn draft(&mut self, view: &ClusterView) -> Topology {
        let mut draft = Draft::new(Mode::Cluster);
        draft.epoch(self.epoch);
        for shard in &view.shards {
            let nodes: Vec<&NodeView> = shard
                .nodes
                .iter()
                .filter(|node| node.endpoint.as_ref().is_some_and(|e| self.is_allowed(e)))
                .collect();
            // While a failover goes on, the failed primary may still stand beside the new one.
            let is_primary = |node: &&&NodeView| node.role == Role::Primary;
            let is_gone = |node: &NodeView| {
                let is_lost = |e: &Endpoint| self.lost.iter().any(|lost| lost.primary == *e);
                node.health == Health::Failed || node.endpoint.as_ref().is_some_and(is_lost)
            };
            let primary = nodes
                .iter()
                .filter(is_primary)
                .find(|node| node.health != Health::Failed)
                .or_else(|| nodes.iter().find(is_primary))
                // A node may have seen the old primary step down and not yet the new one step up.
                .or_else(|| nodes.iter().find(|node| self.served(&shard.slots, node)))
                // After a failover the dead primary goes on as one without slots, until it comes back as a replica.
                .filter(|node| !shard.slots.is_empty() || !is_gone(node))
                .map(|node| node.id.as_str());
            let mut number = None;
            let mut replicas = Vec::new();
            for node in nodes {
                let Some(endpoint) = node.endpoint.clone() else { continue };
                let is_primary = Some(node.id.as_str()) == primary;
                let role = match node.role {
                    Role::Primary if !is_primary => Role::Unknown,
                    _ if is_primary => Role::Primary,
                    role => role,
                };
                let index = draft.node(Node {
                    id: Some(node.id.as_str().into()),
                    zone: node.zone.as_deref().map(Into::into).or_else(|| self.zones.of(&endpoint)),
                    health: node.health,
                    offset: node.offset,
                    ..Node::new(endpoint, role)
                });
                if is_primary {
                    number = Some(index);
                } else {
                    replicas.push(index);
                }
            }
            let shard_number = draft.shard(number, replicas);
            for slots in &shard.slots {
                draft.assign(slots.clone(), shard_number);
            }
        }
        draft.build(self.published.generation() + 1)
    }
}
