//! Availability zones of nodes, each asked once.

use std::{collections::BTreeMap, sync::Arc};

use evenkeel_protocol::Endpoint;

/// Nodes remembered; a larger deployment has its zones in its map.
const MAX_NODES: usize = 4096;

/// Questions to a node that gives no answer.
const MAX_TRIES: u8 = 5;

/// What is known of a node's zone.
///
/// ```text
///   (absent) ──ask──▶ Asked ──answer──▶ Known
///                      ▲ │ no answer
///                  ask │ ▼
///                    Silent
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
enum Zone {
    Asked { tries: u8 },
    Known(Option<Arc<str>>),
    Silent { tries: u8 },
}

#[derive(Debug)]
pub(super) struct Zones {
    is_wanted: bool,
    nodes: BTreeMap<Endpoint, Zone>,
}

impl Zones {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, nodes: BTreeMap::new() }
    }

    /// True when the node is to be asked, and notes that it is.
    pub(super) fn ask(&mut self, endpoint: &Endpoint) -> bool {
        let tries = match self.nodes.get(endpoint) {
            None if self.nodes.len() < MAX_NODES => 0,
            Some(Zone::Silent { tries }) if *tries < MAX_TRIES => *tries,
            _ => return false,
        };
        if self.is_wanted {
            self.nodes.insert(endpoint.clone(), Zone::Asked { tries: tries + 1 });
        }
        self.is_wanted
    }

    pub(super) fn learned(&mut self, endpoint: &Endpoint, zone: Option<String>) {
        if let Some(known) = self.nodes.get_mut(endpoint) {
            *known = Zone::Known(zone.map(Into::into));
        }
    }

    pub(super) fn failed(&mut self, endpoint: &Endpoint) {
        if let Some(Zone::Asked { tries }) = self.nodes.get(endpoint) {
            let tries = *tries;
            self.nodes.insert(endpoint.clone(), Zone::Silent { tries });
        }
    }

    pub(super) fn of(&self, endpoint: &Endpoint) -> Option<Arc<str>> {
        match self.nodes.get(endpoint) {
            Some(Zone::Known(zone)) => zone.clone(),
            Some(Zone::Asked { .. } | Zone::Silent { .. }) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_asked_once_and_a_silent_one_a_few_times() {
        let (node, silent) = (Endpoint::new("h", 1), Endpoint::new("h", 2));
        let mut zones = Zones::new(true);
        assert!(zones.ask(&node) && !zones.ask(&node));
        zones.learned(&node, Some("a".into()));
        assert_eq!((zones.ask(&node), zones.of(&node).as_deref()), (false, Some("a")));
        let asked = (0..100).filter(|_| {
            let is_asked = zones.ask(&silent);
            zones.failed(&silent);
            is_asked
        });
        assert_eq!(asked.count(), 5);
        assert!(!Zones::new(false).ask(&node));
    }
}
