//! The snapshot that follows from what is known.

use std::sync::Arc;

use super::{
    Phase, SentinelResolver,
    group::Link,
    nodes::{DataNode, Said},
};
use crate::{
    machine::action::Action,
    snapshot::{Draft, Health, Mode, Node, Role, SentinelNode, Topology},
};

impl SentinelResolver {
    pub(super) fn publish_if_changed(&mut self) {
        if self.current.is_none() {
            return;
        }
        let next = self.snapshot();
        // Offsets move all the time: they come along with other news, and with the slow poll.
        if !next.says_the_same_as(&self.published) {
            self.published = Arc::new(next);
            self.actions.push_back(Action::Publish(Arc::clone(&self.published)));
        }
    }

    fn snapshot(&self) -> Topology {
        let mut draft = Draft::new(Mode::Sentinel);
        draft.epoch(self.epoch());
        let is_current = |node: &&DataNode| self.is_current(&node.endpoint);
        let primary =
            self.nodes.iter().find(is_current).map(|node| draft.node(self.view(node, Role::Primary)));
        let mut listed: Vec<&DataNode> = self
            .nodes
            .iter()
            .filter(|node| !is_current(node) && node.is_listed && node.is_announced)
            .collect();
        listed.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        let mut replicas = Vec::new();
        for node in listed {
            // A second primary is nobody's replica.
            let role = if node.said == Said::Primary { Role::Unknown } else { Role::Replica };
            replicas.push(draft.node(self.view(node, role)));
        }
        draft.shard(primary, replicas);
        for sentinel in self.sentinels.iter() {
            draft.sentinel(SentinelNode {
                watched: sentinel.link == Link::Up,
                epoch: sentinel.says.as_ref().map(|(_, epoch)| *epoch),
                ..SentinelNode::new(sentinel.endpoint.clone())
            });
        }
        draft.build(self.published.generation() + 1)
    }

    /// What the resolver is about, in one word, for health pages and tests.
    pub fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Calm => "calm",
            Phase::Doubting => "doubting",
            Phase::Searching => "searching",
        }
    }

    fn view(&self, node: &DataNode, role: Role) -> Node {
        let health = if node.reachable == Some(false) || (node.is_down && role != Role::Primary) {
            Health::Failed
        } else if !node.is_linked && role != Role::Primary {
            Health::Loading
        } else {
            Health::Online
        };
        let zone = self.zones.of(&node.endpoint);
        Node { health, zone, offset: node.offset, ..Node::new(node.endpoint.clone(), role) }
    }
}
