//! What a node says about its cluster: `CLUSTER NODES`, read.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// One line of `CLUSTER NODES`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterNode {
    /// The node's id, 40 hexadecimal digits.
    pub id: String,
    /// The address that clients use.
    pub addr: SocketAddr,
    /// The flags, such as `myself`, `master`, `slave`, `fail?`, `fail`, `handshake`.
    pub flags: Vec<String>,
    /// The id of the primary that it follows, when it is a replica.
    pub follows: Option<String>,
    /// The configuration epoch.
    pub epoch: u64,
    /// Whether the answering node has a link to it.
    pub is_linked: bool,
    /// The slots that it serves.
    pub slots: Vec<RangeInclusive<u16>>,
}

impl ClusterNode {
    /// Returns whether the node is seen as a primary that works.
    pub fn is_primary(&self) -> bool {
        self.has_flag("master") && !self.is_failing()
    }

    /// Returns whether the node is seen as a replica that works.
    pub fn is_replica(&self) -> bool {
        self.has_flag("slave") && !self.is_failing()
    }

    /// Returns whether the node serves this slot.
    pub fn serves(&self, slot: u16) -> bool {
        self.slots.iter().any(|range| range.contains(&slot))
    }

    fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|other| other == flag)
    }

    fn is_failing(&self) -> bool {
        self.has_flag("fail")
            || self.has_flag("fail?")
            || self.has_flag("handshake")
            || self.has_flag("noaddr")
    }
}

/// Reads the answer of `CLUSTER NODES`; `None` when a line cannot be read.
pub(super) fn parse(text: &str) -> Option<Vec<ClusterNode>> {
    text.lines().map(parse_line).collect()
}

/// `<id> <ip:port@bus[,host]> <flags> <primary> <ping> <pong> <epoch> <link> <slot> ...`
fn parse_line(line: &str) -> Option<ClusterNode> {
    let mut fields = line.split(' ');
    let id = fields.next()?.to_owned();
    let addr = fields.next()?.split('@').next()?.parse().ok()?;
    let flags = fields.next()?.split(',').map(str::to_owned).collect();
    let follows = fields.next().filter(|primary| *primary != "-").map(str::to_owned);
    let epoch = fields.nth(2)?.parse().ok()?;
    let is_linked = fields.next()? == "connected";
    // A slot that moves is shown as [slot->-id] or [slot-<-id] beside the ranges.
    let slots = fields.filter(|range| !range.starts_with('[')).map(parse_range).collect::<Option<_>>()?;
    Some(ClusterNode { id, addr, flags, follows, epoch, is_linked, slots })
}

fn parse_range(range: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_moving_slots_is_read() {
        let line = "07c3 127.0.0.1:30004@40004,host myself,master - 0 1426238317239 4 connected 0-5460 5462 [93-<-29a1]";
        let nodes = parse(line).unwrap();
        assert_eq!(nodes[0].addr, "127.0.0.1:30004".parse().unwrap());
        assert_eq!(nodes[0].slots, [0..=5460, 5462..=5462]);
        assert_eq!(nodes[0].epoch, 4);
        assert!(nodes[0].is_primary() && nodes[0].is_linked && nodes[0].follows.is_none());
        assert!(nodes[0].serves(5462) && !nodes[0].serves(5461));
    }

    #[test]
    fn a_failing_node_is_neither_primary_nor_replica() {
        let line = "07c3 127.0.0.1:30004@40004 slave,fail? 29a1 0 1426238317239 4 disconnected";
        let nodes = parse(line).unwrap();
        assert!(!nodes[0].is_primary() && !nodes[0].is_replica());
        assert_eq!(nodes[0].follows.as_deref(), Some("29a1"));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(parse("not a line"), None);
    }
}
