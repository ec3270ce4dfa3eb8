//! The data nodes: what each said of itself, and what sentinels say of it.

use std::time::Instant;

use evenkeel_protocol::Endpoint;

use crate::{
    error::{AskFailure, Unproven},
    read::RoleView,
};

/// More nodes than a primary has replicas; lists and events from the wire end here.
const MAX_NODES: usize = 256;
/// A promoted replica resets its clients once; a node that resets more often in a row is asked at the usual pace.
const MAX_RESETS: u8 = 3;

/// The last word of a node on its role, within the present doubt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Said {
    #[default]
    Nothing,
    Primary,
    Replica {
        of: Option<Endpoint>,
    },
    Silent(AskFailure),
}

#[derive(Debug)]
pub(super) struct DataNode {
    pub(super) endpoint: Endpoint,
    pub(super) said: Said,
    /// An answer is awaited; it counts unless a doubt began after the question.
    asked: Option<Asked>,
    resets: u8,
    pub(super) reachable: Option<bool>,
    /// A sentinel lists it as a replica.
    pub(super) is_listed: bool,
    /// Clients may read from it.
    pub(super) is_announced: bool,
    pub(super) is_down: bool,
    pub(super) is_linked: bool,
    pub(super) offset: Option<u64>,
    pub(super) told_unexpected: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    counts: bool,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It answers a question from before the doubt, or the connection was reset: ask again at once.
    AskAgain,
    /// Nobody asked, or nobody knows the node.
    Ignored,
    Noted,
}

impl DataNode {
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) fn unproven(&self) -> Option<Unproven> {
        match &self.said {
            Said::Silent(failure) => Some(Unproven::NoAnswer(failure.clone())),
            Said::Replica { .. } => Some(Unproven::SaysReplica),
            Said::Nothing | Said::Primary => None,
        }
    }

    /// Notes that it is asked; false when its answer is still awaited.
    pub(super) fn ask(&mut self) -> bool {
        let is_new = self.asked.is_none();
        self.asked.get_or_insert(Asked { counts: true });
        is_new
    }

    pub(super) fn answered(&mut self, role: RoleView) -> Heard {
        let Some(asked) = self.asked.take() else { return Heard::Ignored };
        self.reachable = Some(true);
        self.resets = 0;
        if !asked.counts {
            return Heard::AskAgain;
        }
        self.said = match role {
            RoleView::Primary { offset, .. } => {
                self.offset = Some(offset);
                Said::Primary
            }
            RoleView::Replica { primary, connected, offset } => {
                self.is_linked = connected;
                self.offset = Some(offset);
                Said::Replica { of: primary }
            }
            RoleView::Sentinel => Said::Silent(AskFailure::Malformed),
        };
        Heard::Noted
    }

    pub(super) fn failed(&mut self, failure: AskFailure) -> Heard {
        let Some(asked) = self.asked.take() else { return Heard::Ignored };
        if failure == AskFailure::Reset && self.resets < MAX_RESETS {
            self.resets += 1;
            return Heard::AskAgain;
        }
        self.reachable = Some(false);
        if !asked.counts {
            return Heard::AskAgain;
        }
        self.said = Said::Silent(failure);
        Heard::Noted
    }

    /// Whatever it said is to be proven anew.
    pub(super) fn forget(&mut self) {
        self.said = Said::Nothing;
        if let Some(asked) = &mut self.asked {
            asked.counts = false;
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct DataNodes(Vec<DataNode>);

impl DataNodes {
    /// The node at `endpoint`, added when it is not known; `None` when there are too many.
    pub(super) fn ensure(&mut self, endpoint: &Endpoint) -> Option<&mut DataNode> {
        let known = self.0.iter().position(|node| node.endpoint == *endpoint);
        if known.is_none() {
            if self.0.len() >= MAX_NODES {
                return None;
            }
            self.0.push(DataNode {
                endpoint: endpoint.clone(),
                said: Said::Nothing,
                asked: None,
                resets: 0,
                reachable: None,
                is_listed: false,
                is_announced: true,
                is_down: false,
                is_linked: true,
                offset: None,
                told_unexpected: false,
            });
        }
        let index = known.unwrap_or(self.0.len() - 1);
        self.0.get_mut(index)
    }

    pub(super) fn find(&mut self, endpoint: &Endpoint) -> Option<&mut DataNode> {
        self.0.iter_mut().find(|node| node.endpoint == *endpoint)
    }

    pub(super) fn said(&self, endpoint: &Endpoint) -> &Said {
        self.0.iter().find(|node| node.endpoint == *endpoint).map_or(&Said::Nothing, |node| &node.said)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &DataNode> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut DataNode> {
        self.0.iter_mut()
    }

    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.0.iter().map(|node| node.endpoint.clone()).collect()
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&DataNode) -> bool) {
        self.0.retain(|node| node.is_asked() || keep(node));
    }
}

/// The primary that writes go to.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) endpoint: Endpoint,
    /// Never higher than the epoch in which it really became primary.
    pub(super) epoch: u64,
    /// When it was adopted.
    pub(super) since: Instant,
    /// Since when it has not said that it is the primary, although asked.
    pub(super) lost_since: Option<Instant>,
}
