//! The announcements of a hosted Redis, as RESP3 pushes.

use std::time::Duration;

use bytes::Bytes;

/// An announcement that moves nobody. Shards are named `1`, as a database of one shard names its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A failover is over.
    FailedOver,
    /// A failover begins within this time.
    FailingOver(Duration),
    /// A shard has been migrated.
    Migrated,
    /// The migration of a shard begins within this time.
    Migrating(Duration),
}

impl Notice {
    pub(super) fn frame(self, sequence: u64) -> Bytes {
        let (name, starts_within) = match self {
            Self::FailedOver => ("FAILED_OVER", None),
            Self::FailingOver(within) => ("FAILING_OVER", Some(within)),
            Self::Migrated => ("MIGRATED", None),
            Self::Migrating(within) => ("MIGRATING", Some(within)),
        };
        let shards = "*1\r\n$1\r\n1\r\n";
        let len = name.len();
        Bytes::from(match starts_within {
            Some(within) => {
                format!(">4\r\n${len}\r\n{name}\r\n:{sequence}\r\n:{}\r\n{shards}", within.as_secs())
            }
            None => format!(">3\r\n${len}\r\n{name}\r\n:{sequence}\r\n{shards}"),
        })
    }
}

/// The announcement of a move; without an endpoint the client asks the name that it was configured with.
pub(super) fn moving(sequence: u64, left: Duration, endpoint: Option<&str>) -> Bytes {
    let endpoint =
        endpoint.map_or_else(|| "_\r\n".to_owned(), |text| format!("${}\r\n{text}\r\n", text.len()));
    // Rounded up: a client must not be told less than it has.
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    Bytes::from(format!(">4\r\n$6\r\nMOVING\r\n:{sequence}\r\n:{seconds}\r\n{endpoint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_on_the_wire() {
        assert_eq!(
            moving(0, Duration::from_secs(15), None),
            &b">4\r\n$6\r\nMOVING\r\n:0\r\n:15\r\n_\r\n"[..]
        );
        assert_eq!(
            moving(17, Duration::from_millis(1_500), Some("h:1")),
            &b">4\r\n$6\r\nMOVING\r\n:17\r\n:2\r\n$3\r\nh:1\r\n"[..]
        );
        assert_eq!(Notice::Migrated.frame(2), &b">3\r\n$8\r\nMIGRATED\r\n:2\r\n*1\r\n$1\r\n1\r\n"[..]);
        assert_eq!(
            Notice::FailingOver(Duration::from_secs(5)).frame(3),
            &b">4\r\n$12\r\nFAILING_OVER\r\n:3\r\n:5\r\n*1\r\n$1\r\n1\r\n"[..]
        );
    }
}
