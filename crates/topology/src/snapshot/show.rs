//! A snapshot for people and for other programs.

use std::fmt;

use super::Topology;
use crate::slot_map::SlotMap;

/// Lines for people: one for the deployment, one a node, one a sentinel.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, generation {}, epoch {}", self.mode, self.generation, self.epoch)?;
        for (index, node) in self.nodes.iter().enumerate() {
            write!(f, "  {} {:?} {:?}", node.endpoint, node.role, node.health)?;
            if let Some(zone) = &node.zone {
                write!(f, " zone {zone}")?;
            }
            if let Some(lag) = node.lag {
                write!(f, " lag {lag}")?;
            }
            for (range, shard) in self.slots.iter().flat_map(SlotMap::ranges) {
                if self.shards.get(usize::from(shard)).and_then(|s| s.primary) == Some(index as u16) {
                    write!(f, " {}-{}", range.start(), range.end())?;
                }
            }
            writeln!(f)?;
        }
        for sentinel in &self.sentinels {
            let watched = if sentinel.watched { "watched" } else { "not watched" };
            writeln!(f, "  sentinel {} {watched}", sentinel.endpoint)?;
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Topology {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        #[derive(serde::Serialize)]
        struct Range {
            first: u16,
            last: u16,
            primary: String,
        }

        let mut slots = Vec::new();
        for (range, primary) in self.slot_ranges() {
            slots.push(Range { first: *range.start(), last: *range.end(), primary: primary.to_string() });
        }
        let mut out = serializer.serialize_struct("Topology", 6)?;
        out.serialize_field("mode", &self.mode)?;
        out.serialize_field("generation", &self.generation)?;
        out.serialize_field("epoch", &self.epoch)?;
        out.serialize_field("nodes", &self.nodes)?;
        out.serialize_field("slots", &slots)?;
        out.serialize_field("sentinels", &self.sentinels)?;
        out.end()
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use crate::snapshot::{Draft, Mode, Node, Role, SentinelNode};

    #[test]
    fn a_snapshot_serialises_with_addresses_and_ranges_as_people_write_them() {
        let mut draft = Draft::new(Mode::Cluster);
        let node = draft.node(Node::new("[::1]:7000".parse().unwrap(), Role::Primary));
        let shard = draft.shard(Some(node), []);
        draft.assign(0..=99, shard);
        draft.sentinel(SentinelNode::new("s:26379".parse().unwrap()));
        let value = serde_json::to_value(draft.build(3)).unwrap();
        assert_eq!(value["mode"], "cluster");
        assert_eq!(value["generation"], 3);
        assert_eq!(value["nodes"][0]["endpoint"], "[::1]:7000");
        assert_eq!(value["nodes"][0]["role"], "primary");
        assert_eq!(value["slots"][0]["last"], 99);
        assert_eq!(value["slots"][0]["primary"], "[::1]:7000");
        assert_eq!(value["sentinels"][0]["watched"], false);
    }
}
