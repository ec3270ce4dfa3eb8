//! `SENTINEL GET-MASTER-ADDR-BY-NAME`, `MASTER`, `REPLICAS` and `SENTINELS`.

use evenkeel_protocol::{Endpoint, Frame};

use super::{list, natural, not_an_error, port, text};
use crate::error::ReadError;

/// `SENTINEL MASTER name`: how one sentinel sees the primary.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryView {
    /// The epoch of the failover that made it primary.
    pub config_epoch: u64,
    /// The sentinel, or enough of them, see it as down.
    pub is_down: bool,
    /// The sentinel leads a failover of it.
    pub is_failing_over: bool,
    /// That failover is one in which the primary hands over by itself (`COORDINATED`): it acknowledges nothing that is lost.
    pub is_handing_over: bool,
    /// Whom that failover replaces, where the sentinel says: until its end it describes the old primary under the name.
    pub replaces: Option<Endpoint>,
    /// Milliseconds in which a failover must end.
    pub failover_timeout: Option<u64>,
}

/// One replica in `SENTINEL REPLICAS name`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The sentinel sees it as down or has no link to it.
    pub is_down: bool,
    /// Its own link to the primary stands.
    pub is_linked: bool,
    /// Bytes of the replication stream that it has.
    pub offset: Option<u64>,
    /// False when its operator asked sentinels not to show it to clients (`replica-announced no`).
    pub is_announced: bool,
}

/// One other sentinel in `SENTINEL SENTINELS name`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its run id, by which one sentinel under two addresses is told.
    pub id: Option<String>,
}

/// Reads `SENTINEL GET-MASTER-ADDR-BY-NAME`; `None` when the sentinel does not know the name.
///
/// # Errors
/// An error of the server, or another shape.
pub fn sentinel_address(frame: &Frame) -> Result<Option<Endpoint>, ReadError> {
    const COMMAND: &str = "SENTINEL GET-MASTER-ADDR-BY-NAME";
    let frame = not_an_error(frame)?;
    if matches!(frame, Frame::Null) {
        return Ok(None);
    }
    match list(frame, COMMAND)? {
        [host, listens] => {
            let address = text(Some(host)).zip(port(listens));
            address
                .map(|(host, port)| Some(Endpoint::new(host, port)))
                .ok_or(ReadError::Malformed { command: COMMAND })
        }
        _ => Err(ReadError::Malformed { command: COMMAND }),
    }
}

/// Reads `SENTINEL MASTER name`; `None` when the sentinel does not know the name.
///
/// # Errors
/// Another error of the server, or another shape.
pub fn sentinel_primary(frame: &Frame) -> Result<Option<PrimaryView>, ReadError> {
    const COMMAND: &str = "SENTINEL MASTER";
    let frame = match not_an_error(frame) {
        Err(ReadError::Server(error)) if error.detail().starts_with("No such master") => return Ok(None),
        other => other?,
    };
    let config_epoch = natural(frame.get("config-epoch")).ok_or(ReadError::Malformed { command: COMMAND })?;
    let flags = text(frame.get("flags")).unwrap_or_default();
    let is_failing_over = has_flag(flags, &["failover_in_progress"]);
    Ok(Some(PrimaryView {
        config_epoch,
        is_down: has_flag(flags, &["s_down", "o_down"]),
        is_failing_over,
        replaces: address(frame).filter(|_| is_failing_over),
        is_handing_over: has_flag(flags, &["coordinated_failover"]),
        failover_timeout: natural(frame.get("failover-timeout")),
    }))
}

/// Reads `SENTINEL REPLICAS name` (`SLAVES` before 5.0).
///
/// # Errors
/// An error of the server, or another shape. A replica without address is left out.
pub fn sentinel_replicas(frame: &Frame) -> Result<Vec<ReplicaView>, ReadError> {
    let replicas = list(frame, "SENTINEL REPLICAS")?.iter();
    Ok(replicas
        .filter_map(|fields| {
            let flags = text(fields.get("flags")).unwrap_or_default();
            Some(ReplicaView {
                endpoint: address(fields)?,
                is_down: has_flag(flags, &["s_down", "o_down", "disconnected"]),
                is_linked: text(fields.get("master-link-status")).is_none_or(|status| status == "ok"),
                offset: natural(fields.get("slave-repl-offset")),
                is_announced: text(fields.get("replica-announced")) != Some("0"),
            })
        })
        .collect())
}

/// Reads `SENTINEL SENTINELS name`.
///
/// # Errors
/// An error of the server, or another shape. A sentinel without address is left out.
pub fn sentinel_sentinels(frame: &Frame) -> Result<Vec<PeerView>, ReadError> {
    let sentinels = list(frame, "SENTINEL SENTINELS")?.iter();
    Ok(sentinels
        .filter_map(|fields| {
            Some(PeerView { endpoint: address(fields)?, id: text(fields.get("runid")).map(str::to_owned) })
        })
        .collect())
}

fn address(fields: &Frame) -> Option<Endpoint> {
    Some(Endpoint::new(text(fields.get("ip"))?, port(fields.get("port")?)?))
}

fn has_flag(flags: &str, any_of: &[&str]) -> bool {
    flags.split(',').any(|flag| any_of.contains(&flag))
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::Limits;

    use super::*;

    fn frame(wire: &str) -> Frame {
        Frame::parse(&wire.to_owned().into(), &Limits::default()).unwrap()
    }

    /// The pairs as RESP2 sends them, an array, or as RESP3 does, a map.
    fn pairs(marker: char, fields: &[(&str, &str)]) -> String {
        let count = if marker == '%' { fields.len() } else { fields.len() * 2 };
        let strings = fields.iter().flat_map(|(key, value)| [key, value]);
        let body: Vec<String> = strings.map(|text| format!("${}\r\n{text}\r\n", text.len())).collect();
        format!("{marker}{count}\r\n{}", body.concat())
    }

    #[test]
    fn both_protocols_give_the_same_views() {
        for marker in ['*', '%'] {
            let primary = pairs(
                marker,
                &[
                    ("name", "m"),
                    ("ip", "10.0.0.1"),
                    ("port", "6379"),
                    ("flags", "master,o_down,failover_in_progress"),
                    ("config-epoch", "7"),
                ],
            );
            assert_eq!(
                sentinel_primary(&frame(&primary)),
                Ok(Some(PrimaryView {
                    config_epoch: 7,
                    is_down: true,
                    is_failing_over: true,
                    is_handing_over: false,
                    replaces: Some(Endpoint::new("10.0.0.1", 6379)),
                    failover_timeout: None
                }))
            );
            let replica = pairs(
                marker,
                &[
                    ("ip", "10.0.0.2"),
                    ("port", "6380"),
                    ("flags", "slave"),
                    ("master-link-status", "err"),
                    ("slave-repl-offset", "55"),
                ],
            );
            let nameless = pairs(marker, &[("flags", "slave")]);
            assert_eq!(
                sentinel_replicas(&frame(&format!("*2\r\n{replica}{nameless}"))),
                Ok(vec![ReplicaView {
                    endpoint: Endpoint::new("10.0.0.2", 6380),
                    is_down: false,
                    is_linked: false,
                    offset: Some(55),
                    is_announced: true,
                }])
            );
            let sentinel = pairs(marker, &[("ip", "::1"), ("port", "26379"), ("runid", "abc")]);
            assert_eq!(
                sentinel_sentinels(&frame(&format!("*1\r\n{sentinel}"))),
                Ok(vec![PeerView { endpoint: Endpoint::new("::1", 26379), id: Some("abc".into()) }])
            );
        }
    }

    #[test]
    fn an_unknown_name_is_no_error_and_an_error_is() {
        assert_eq!(sentinel_address(&frame("*-1\r\n")), Ok(None));
        assert_eq!(sentinel_address(&frame("_\r\n")), Ok(None));
        assert_eq!(
            sentinel_address(&frame("*2\r\n$5\r\nnode1\r\n$4\r\n6379\r\n")),
            Ok(Some(Endpoint::new("node1", 6379)))
        );
        assert!(sentinel_address(&frame("*2\r\n$5\r\nnode1\r\n$1\r\n0\r\n")).is_err());
        assert_eq!(sentinel_primary(&frame("-ERR No such master with that name\r\n")), Ok(None));
        assert!(matches!(sentinel_primary(&frame("-NOAUTH x\r\n")), Err(ReadError::Server(_))));
        assert!(sentinel_replicas(&frame(":1\r\n")).is_err());
    }
}
