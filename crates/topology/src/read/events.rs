//! What sentinels publish, by channel: the payload is words, and the first ones say whom it is about.
//!
//! `<kind> <name> <ip> <port>` for a primary, with ` @ <primary's name> <ip> <port>` behind it for others
//! (Redis documentation, "High availability with Redis Sentinel", Pub/Sub messages).

use evenkeel_protocol::Endpoint;

/// A message of a sentinel that bears on a failover.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SentinelEvent {
    /// Something about one instance of one primary's group.
    About {
        /// What.
        what: Notification,
        /// The name under which the sentinels know the primary.
        name: String,
        /// The instance meant; the primary itself for events about it.
        instance: Instance,
        /// The primary's address as this sentinel sees it.
        primary: Endpoint,
    },
    /// `+new-epoch`: every later event of this sentinel belongs to this epoch or a newer one.
    NewEpoch(u64),
    /// `+switch-master`: the primary has another address.
    Switched {
        /// The name under which the sentinels know the primary.
        name: String,
        /// The old address.
        from: Endpoint,
        /// The new address.
        to: Endpoint,
    },
}

/// What happened to an instance.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// `-failover-abort-*`: the failover is given up, with the reason that stands in place of the star.
    Aborted(String),
    /// `+config-update-from`: it took another sentinel's view.
    ConfigUpdated,
    /// `+sdown`: this sentinel sees it as down.
    Down,
    /// `+elected-leader`: this sentinel leads the failover.
    Elected,
    /// `+failover-end` or `+failover-end-for-timeout`.
    Ended,
    /// `+failover-state-*`, with what stands in place of the star.
    State(String),
    /// `+slave` or `+sentinel`: it was found.
    Joined,
    /// `+odown`: enough sentinels see the primary as down.
    ObjectivelyDown,
    /// `-odown`.
    ObjectivelyUp,
    /// `+promoted-slave`: it has become primary.
    Promoted,
    /// `+reboot`: it started anew.
    Rebooted,
    /// `+selected-slave`: it will be promoted.
    Selected,
    /// `+try-failover`: a failover begins.
    Trying,
    /// `-sdown`.
    Up,
}

/// A server that a sentinel watches, or another sentinel.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What it is.
    pub kind: InstanceKind,
    /// Where it listens.
    pub endpoint: Endpoint,
}

/// The three kinds of instances.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceKind {
    /// `master`.
    Primary,
    /// `slave`.
    Replica,
    /// `sentinel`.
    Sentinel,
}

impl SentinelEvent {
    /// Reads a message; `None` for channels and payloads that bear on nothing here.
    pub fn parse(channel: &[u8], payload: &[u8]) -> Option<Self> {
        let channel = std::str::from_utf8(channel).ok()?;
        let payload = std::str::from_utf8(payload).ok()?;
        let words: Vec<&str> = payload.split_ascii_whitespace().collect();
        match channel {
            "+new-epoch" => return Some(Self::NewEpoch(words.first()?.parse().ok()?)),
            "+switch-master" => {
                let [name, from, from_port, to, to_port] = *words.as_slice() else { return None };
                return Some(Self::Switched {
                    name: name.to_owned(),
                    from: endpoint(from, from_port)?,
                    to: endpoint(to, to_port)?,
                });
            }
            _ => {}
        }
        let what = Notification::of(channel)?;
        let [kind, name, host, port, rest @ ..] = words.as_slice() else { return None };
        let kind = match *kind {
            "master" => InstanceKind::Primary,
            "slave" => InstanceKind::Replica,
            "sentinel" => InstanceKind::Sentinel,
            _ => return None,
        };
        let instance = Instance { kind, endpoint: endpoint(host, port)? };
        // A primary's own events may go on with other words, such as `#quorum 2/2`.
        let (name, primary) = match (kind, rest) {
            (InstanceKind::Primary, _) => (*name, instance.endpoint.clone()),
            (_, ["@", name, host, port, ..]) => (*name, endpoint(host, port)?),
            _ => return None,
        };
        Some(Self::About { what, name: name.to_owned(), instance, primary })
    }

    /// The name of the primary's group; `None` for events about the sentinel itself.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::About { name, .. } | Self::Switched { name, .. } => Some(name),
            Self::NewEpoch(_) => None,
        }
    }
}

impl Notification {
    fn of(channel: &str) -> Option<Self> {
        Some(match channel {
            "+config-update-from" => Self::ConfigUpdated,
            "+elected-leader" => Self::Elected,
            "+failover-end" | "+failover-end-for-timeout" => Self::Ended,
            "+odown" => Self::ObjectivelyDown,
            "+promoted-slave" => Self::Promoted,
            "+reboot" => Self::Rebooted,
            "+sdown" => Self::Down,
            "+selected-slave" => Self::Selected,
            "+slave" | "+sentinel" => Self::Joined,
            "+try-failover" => Self::Trying,
            "-odown" => Self::ObjectivelyUp,
            "-sdown" => Self::Up,
            other => match other.strip_prefix("+failover-state-") {
                Some(state) => Self::State(state.to_owned()),
                None => Self::Aborted(other.strip_prefix("-failover-abort-")?.to_owned()),
            },
        })
    }
}

fn endpoint(host: &str, port: &str) -> Option<Endpoint> {
    let port = port.parse().ok().filter(|&port| port > 0)?;
    (!host.is_empty()).then(|| Endpoint::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(channel: &str, payload: &str) -> Option<(Notification, InstanceKind, u16, u16)> {
        match SentinelEvent::parse(channel.as_bytes(), payload.as_bytes())? {
            SentinelEvent::About { what, name, instance, primary } => {
                assert_eq!(name, "mymaster");
                Some((what, instance.kind, instance.endpoint.port(), primary.port()))
            }
            _ => None,
        }
    }

    #[test]
    fn payloads_of_real_sentinels_are_read() {
        use InstanceKind::{Primary, Replica, Sentinel};
        let primary = "master mymaster 127.0.0.1 6379";
        let replica = "slave 127.0.0.1:6380 127.0.0.1 6380 @ mymaster 127.0.0.1 6379";
        let sentinel = "sentinel 5f4d 127.0.0.1 26380 @ mymaster 127.0.0.1 6379";
        for (channel, payload, expected) in [
            (
                "+odown",
                "master mymaster 127.0.0.1 6379 #quorum 2/2",
                (Notification::ObjectivelyDown, Primary, 6379, 6379),
            ),
            ("-odown", primary, (Notification::ObjectivelyUp, Primary, 6379, 6379)),
            ("+try-failover", primary, (Notification::Trying, Primary, 6379, 6379)),
            ("+elected-leader", primary, (Notification::Elected, Primary, 6379, 6379)),
            (
                "+failover-state-select-slave",
                primary,
                (Notification::State("select-slave".into()), Primary, 6379, 6379),
            ),
            ("+selected-slave", replica, (Notification::Selected, Replica, 6380, 6379)),
            (
                "+failover-state-wait-promotion",
                replica,
                (Notification::State("wait-promotion".into()), Replica, 6380, 6379),
            ),
            ("+promoted-slave", replica, (Notification::Promoted, Replica, 6380, 6379)),
            ("+failover-end", primary, (Notification::Ended, Primary, 6379, 6379)),
            (
                "-failover-abort-no-good-slave",
                primary,
                (Notification::Aborted("no-good-slave".into()), Primary, 6379, 6379),
            ),
            ("+config-update-from", sentinel, (Notification::ConfigUpdated, Sentinel, 26380, 6379)),
            ("+sdown", replica, (Notification::Down, Replica, 6380, 6379)),
            ("-sdown", replica, (Notification::Up, Replica, 6380, 6379)),
            ("+slave", replica, (Notification::Joined, Replica, 6380, 6379)),
            ("+sentinel", sentinel, (Notification::Joined, Sentinel, 26380, 6379)),
            ("+reboot", primary, (Notification::Rebooted, Primary, 6379, 6379)),
        ] {
            assert_eq!(about(channel, payload), Some(expected), "{channel} {payload}");
        }
        assert_eq!(
            SentinelEvent::parse(b"+switch-master", b"mymaster ::1 6379 node-2 6380"),
            Some(SentinelEvent::Switched {
                name: "mymaster".into(),
                from: Endpoint::new("::1", 6379),
                to: Endpoint::new("node-2", 6380)
            })
        );
        assert_eq!(SentinelEvent::parse(b"+new-epoch", b"12"), Some(SentinelEvent::NewEpoch(12)));
    }

    #[test]
    fn anything_else_is_nothing() {
        for (channel, payload) in [
            ("+monitor", "master mymaster 127.0.0.1 6379 quorum 2"),
            ("+switch-master", "mymaster 127.0.0.1 6379 127.0.0.1"),
            ("+switch-master", "mymaster 127.0.0.1 6379 127.0.0.1 0"),
            ("+try-failover", "master mymaster 127.0.0.1"),
            ("+selected-slave", "slave x 127.0.0.1 6380"),
            ("+selected-slave", "slave x 127.0.0.1 99999 @ mymaster 127.0.0.1 6379"),
            ("+sdown", "banana x 127.0.0.1 6380"),
            ("+new-epoch", "x"),
            ("+new-epoch", ""),
        ] {
            assert_eq!(
                SentinelEvent::parse(channel.as_bytes(), payload.as_bytes()),
                None,
                "{channel} {payload}"
            );
        }
        assert_eq!(SentinelEvent::parse(b"+odown", b"\xff"), None);
    }
}
