//! `CLUSTER SHARDS` and `CLUSTER SLOTS`, with the rules for endpoints that have no name.

use std::ops::RangeInclusive;

use evenkeel_protocol::{Endpoint, Frame, Slot};

use super::{list, natural, text};
use crate::{
    error::ReadError,
    snapshot::{Health, Role},
};

/// A cluster as one of its nodes sees it.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Its shards.
    pub shards: Vec<ShardView>,
    /// The newest epoch that the answering node has heard of; asked apart, with `CLUSTER INFO`.
    pub epoch: Option<u64>,
}

impl ClusterView {
    /// Whether it shows this node as the primary of slots.
    pub(crate) fn has_primary(&self, endpoint: &Endpoint) -> bool {
        let is_it = |node: &NodeView| node.role == Role::Primary && node.endpoint.as_ref() == Some(endpoint);
        self.shards.iter().any(|shard| !shard.slots.is_empty() && shard.nodes.iter().any(is_it))
    }
}

/// A shard in a view.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardView {
    /// The slots that it owns.
    pub slots: Vec<RangeInclusive<u16>>,
    /// Its nodes; a primary may be missing, or there twice while a failover goes on.
    pub nodes: Vec<NodeView>,
}

/// A node in a view.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name in the cluster.
    pub id: String,
    /// Where to dial it; `None` when the view does not say.
    pub endpoint: Option<Endpoint>,
    /// What it is.
    pub role: Role,
    /// How it is.
    pub health: Health,
    /// Bytes of its replication stream, when the view says.
    pub offset: Option<u64>,
    /// Its availability zone, when the view says.
    pub zone: Option<String>,
}

/// Reads `CLUSTER SHARDS` (7.0 and newer) as `asked` answered it.
///
/// Fields are found by name, so that more of them do no harm.
///
/// # Errors
/// An error of the server, or another shape.
pub fn cluster_shards(frame: &Frame, asked: &Endpoint, tls: bool) -> Result<ClusterView, ReadError> {
    const COMMAND: &str = "CLUSTER SHARDS";
    let wrong = || ReadError::Malformed { command: COMMAND };
    let mut view = ClusterView::default();
    for shard in list(frame, COMMAND)? {
        let bounds = shard.get("slots").and_then(Frame::elements).ok_or_else(wrong)?;
        let nodes = shard.get("nodes").and_then(Frame::elements).ok_or_else(wrong)?;
        view.shards.push(ShardView {
            slots: bounds.chunks(2).map(range).collect::<Option<_>>().ok_or_else(wrong)?,
            nodes: nodes
                .iter()
                .map(|node| shards_node(node, asked, tls))
                .collect::<Option<_>>()
                .ok_or_else(wrong)?,
        });
    }
    Ok(view)
}

fn shards_node(node: &Frame, asked: &Endpoint, tls: bool) -> Option<NodeView> {
    let listens =
        |name| natural(node.get(name)).and_then(|port| u16::try_from(port).ok()).filter(|&port| port > 0);
    // Plain text is never sent to a TLS port: it might carry a password. The other way round the handshake fails first.
    let port = if tls { listens("tls-port").or_else(|| listens("port")) } else { listens("port") };
    let host = host(node.get("endpoint"), text(node.get("ip")), asked);
    let role = match text(node.get("role"))? {
        "master" | "primary" => Role::Primary,
        "replica" | "slave" => Role::Replica,
        _ => Role::Unknown,
    };
    let offset = natural(node.get("replication-offset"));
    let health = match text(node.get("health")) {
        Some("online") => Health::Online,
        Some("fail" | "failed") => Health::Failed,
        // So is called, too, a replica of which no offset is known yet, which may be in order for long.
        Some("loading") if offset == Some(0) => Health::Unknown,
        Some("loading") => Health::Loading,
        _ => Health::Unknown,
    };
    Some(NodeView {
        id: text(node.get("id"))?.to_owned(),
        endpoint: host.zip(port).map(|(host, port)| Endpoint::new(&host, port)),
        role,
        health,
        offset,
        zone: text(node.get("availability-zone")).map(str::to_owned),
    })
}

/// Reads `CLUSTER SLOTS` as `asked` answered it.
///
/// # Errors
/// An error of the server, or another shape.
pub fn cluster_slots(frame: &Frame, asked: &Endpoint) -> Result<ClusterView, ReadError> {
    const COMMAND: &str = "CLUSTER SLOTS";
    let wrong = || ReadError::Malformed { command: COMMAND };
    let mut view = ClusterView::default();
    for entry in list(frame, COMMAND)? {
        let Some([first, last, nodes @ ..]) = entry.elements() else { return Err(wrong()) };
        let slots = range(&[first.clone(), last.clone()]).ok_or_else(wrong)?;
        let nodes: Vec<NodeView> = nodes
            .iter()
            .enumerate()
            .map(|(place, node)| slots_node(node, place == 0, asked))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let primary = nodes.first().ok_or_else(wrong)?;
        // One shard comes once for each run of its slots.
        match view
            .shards
            .iter_mut()
            .find(|shard| shard.nodes.first().is_some_and(|node| node.id == primary.id))
        {
            Some(shard) => shard.slots.push(slots),
            None => view.shards.push(ShardView { slots: vec![slots], nodes }),
        }
    }
    Ok(view)
}

fn slots_node(node: &Frame, is_primary: bool, asked: &Endpoint) -> Option<NodeView> {
    let [endpoint, port, rest @ ..] = node.elements()? else { return None };
    let port = super::port(port);
    let metadata = rest.get(1);
    let host = host(Some(endpoint), metadata.and_then(|data| text(data.get("ip"))), asked);
    let id = match rest.first().and_then(Frame::as_str) {
        Some(id) => id.to_owned(),
        // Before 4.0 nodes had no name here: the address must do.
        None => format!("{}:{}", host.as_deref().unwrap_or_default(), port.unwrap_or(0)),
    };
    Some(NodeView {
        id,
        endpoint: host.zip(port).map(|(host, port)| Endpoint::new(&host, port)),
        role: if is_primary { Role::Primary } else { Role::Replica },
        health: Health::Online,
        offset: None,
        zone: metadata.and_then(|data| text(data.get("availability-zone"))).map(str::to_owned),
    })
}

/// The host to dial: null and the empty string stand for the host that was asked; `?` says that the node's preferred name
/// is not known, and then its address must do.
fn host(endpoint: Option<&Frame>, ip: Option<&str>, asked: &Endpoint) -> Option<String> {
    match endpoint {
        None => ip.map(str::to_owned),
        Some(Frame::Null) => Some(asked.host().to_owned()),
        Some(endpoint) => match endpoint.as_str()? {
            "" => Some(asked.host().to_owned()),
            "?" => ip.filter(|&ip| ip != "?").map(str::to_owned),
            host => Some(host.to_owned()),
        },
    }
}

fn range(bounds: &[Frame]) -> Option<RangeInclusive<u16>> {
    let [first, last] = bounds else { return None };
    let slot =
        |bound: &Frame| bound.as_integer().and_then(|slot| u16::try_from(slot).ok()).and_then(Slot::new);
    let (first, last) = (slot(first)?, slot(last)?);
    (first <= last).then(|| first.number()..=last.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(text: &'static str) -> Frame {
        Frame::Blob(text.into())
    }

    fn map(resp3: bool, pairs: Vec<(&'static str, Frame)>) -> Frame {
        let flat: Vec<Frame> = pairs.into_iter().flat_map(|(key, value)| [blob(key), value]).collect();
        if resp3 { Frame::Map(flat.into()) } else { Frame::Array(flat.into()) }
    }

    fn array(elements: Vec<Frame>) -> Frame {
        Frame::Array(elements.into())
    }

    fn asked() -> Endpoint {
        Endpoint::new("seed.example.com", 7000)
    }

    fn dialled(node: Vec<(&'static str, Frame)>, tls: bool) -> Option<String> {
        let mut fields = vec![("id", blob("n1")), ("role", blob("master")), ("health", blob("online"))];
        fields.extend(node);
        let shard = map(
            true,
            vec![
                ("slots", array(vec![Frame::Integer(0), Frame::Integer(16383)])),
                ("nodes", array(vec![map(true, fields)])),
            ],
        );
        let view = cluster_shards(&array(vec![shard]), &asked(), tls).unwrap();
        view.shards[0].nodes[0].endpoint.as_ref().map(ToString::to_string)
    }

    #[test]
    fn endpoints_follow_the_rules_of_the_specification() {
        let ip = || ("ip", blob("10.0.0.7"));
        let port = || ("port", Frame::Integer(7001));
        let tls_port = || ("tls-port", Frame::Integer(7101));
        let check = |node, tls, expected: Option<&str>| assert_eq!(dialled(node, tls).as_deref(), expected);
        check(
            vec![ip(), port(), ("endpoint", blob("node-1.example.com"))],
            false,
            Some("node-1.example.com:7001"),
        );
        check(vec![ip(), port(), ("endpoint", Frame::Null)], false, Some("seed.example.com:7001"));
        check(vec![ip(), port(), ("endpoint", blob(""))], false, Some("seed.example.com:7001"));
        check(vec![ip(), port(), ("endpoint", blob("?"))], false, Some("10.0.0.7:7001"));
        check(vec![port(), ("endpoint", blob("?"))], false, None);
        check(
            vec![("ip", blob("2001:db8::7")), port(), ("endpoint", blob("2001:db8::7"))],
            false,
            Some("[2001:db8::7]:7001"),
        );
        check(vec![ip(), port(), tls_port(), ("endpoint", blob("10.0.0.7"))], true, Some("10.0.0.7:7101"));
        check(vec![ip(), port(), tls_port(), ("endpoint", blob("10.0.0.7"))], false, Some("10.0.0.7:7001"));
        check(
            vec![ip(), ("port", Frame::Integer(0)), tls_port(), ("endpoint", blob("10.0.0.7"))],
            false,
            None,
        );
        check(vec![ip(), port(), ("endpoint", blob("10.0.0.7"))], true, Some("10.0.0.7:7001"));
        check(vec![ip(), ("port", Frame::Integer(0)), ("endpoint", blob("10.0.0.7"))], false, None);
    }

    #[test]
    fn shards_are_read_in_both_protocols_with_fields_that_only_valkey_has() {
        for resp3 in [false, true] {
            let node = |id: &'static str, role, health, offset| {
                map(
                    resp3,
                    vec![
                        ("id", blob(id)),
                        ("port", Frame::Integer(7001)),
                        ("ip", blob("10.0.0.7")),
                        ("endpoint", blob("10.0.0.7")),
                        ("role", blob(role)),
                        ("replication-offset", Frame::Integer(offset)),
                        ("health", blob(health)),
                        ("availability-zone", blob("eu-1a")),
                    ],
                )
            };
            let slots = [0, 99, 200, 200].map(Frame::Integer).to_vec();
            let shard = map(
                resp3,
                vec![
                    ("slots", array(slots)),
                    (
                        "nodes",
                        array(vec![
                            node("a", "master", "online", 9),
                            node("b", "replica", "loading", 0),
                            node("c", "replica", "fail", 3),
                            node("d", "replica", "loading", 4),
                        ]),
                    ),
                    ("id", blob("shard-1")),
                ],
            );
            let empty = map(resp3, vec![("slots", array(vec![])), ("nodes", array(vec![]))]);
            let view = cluster_shards(&array(vec![shard, empty]), &asked(), false).unwrap();
            assert_eq!(view.shards[0].slots, [0..=99, 200..=200]);
            let seen: Vec<_> =
                view.shards[0].nodes.iter().map(|n| (n.id.as_str(), n.role, n.health, n.offset)).collect();
            assert_eq!(
                seen,
                [
                    ("a", Role::Primary, Health::Online, Some(9)),
                    ("b", Role::Replica, Health::Unknown, Some(0)),
                    ("c", Role::Replica, Health::Failed, Some(3)),
                    ("d", Role::Replica, Health::Loading, Some(4)),
                ]
            );
            assert_eq!(view.shards[0].nodes[0].zone.as_deref(), Some("eu-1a"));
            assert!(view.shards[1].nodes.is_empty());
        }
    }

    #[test]
    fn slots_are_grouped_by_primary() {
        let node = |host: Frame, port, id: &'static str| {
            array(vec![host, Frame::Integer(port), blob(id), array(vec![blob("ip"), blob("10.0.0.9")])])
        };
        let entry = |first, last, nodes: Vec<Frame>| {
            array([Frame::Integer(first), Frame::Integer(last)].into_iter().chain(nodes).collect())
        };
        let view = cluster_slots(
            &array(vec![
                entry(0, 99, vec![node(blob("10.0.0.1"), 7000, "a"), node(Frame::Null, 7001, "b")]),
                entry(100, 199, vec![node(blob("?"), 7002, "c")]),
                entry(200, 299, vec![node(blob("10.0.0.1"), 7000, "a"), node(Frame::Null, 7001, "b")]),
            ]),
            &asked(),
        )
        .unwrap();
        assert_eq!(view.shards.len(), 2);
        assert_eq!(view.shards[0].slots, [0..=99, 200..=299]);
        assert_eq!(view.shards[0].nodes[1].endpoint, Some(Endpoint::new("seed.example.com", 7001)));
        assert_eq!(view.shards[0].nodes[1].role, Role::Replica);
        assert_eq!(view.shards[1].nodes[0].endpoint, Some(Endpoint::new("10.0.0.9", 7002)));
    }

    #[test]
    fn malformed_maps_are_refused() {
        let bad = [
            Frame::Integer(1),
            array(vec![array(vec![Frame::Integer(0)])]),
            array(vec![array(vec![
                Frame::Integer(5),
                Frame::Integer(4),
                array(vec![blob("h"), Frame::Integer(1), blob("a")]),
            ])]),
            array(vec![array(vec![
                Frame::Integer(0),
                Frame::Integer(16384),
                array(vec![blob("h"), Frame::Integer(1), blob("a")]),
            ])]),
            array(vec![array(vec![Frame::Integer(0), Frame::Integer(1)])]),
        ];
        for frame in &bad {
            assert!(cluster_slots(frame, &asked()).is_err(), "{frame:?}");
        }
        let shard = map(true, vec![("slots", array(vec![Frame::Integer(1)])), ("nodes", array(vec![]))]);
        assert!(cluster_shards(&array(vec![shard]), &asked(), false).is_err());
        assert!(cluster_shards(&array(vec![map(true, vec![])]), &asked(), false).is_err());
    }
}
