//! `ROLE`: what a server says of itself.

use evenkeel_protocol::{Endpoint, Frame};

use super::{list, natural, port, text};
use crate::error::ReadError;

/// A server's own word on its role.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleView {
    /// It takes writes.
    Primary {
        /// Bytes of its replication stream.
        offset: u64,
        /// Its connected replicas and how far each is.
        replicas: Vec<(Endpoint, u64)>,
    },
    /// It follows another server.
    Replica {
        /// Whom, as configured there; `None` when the address is malformed.
        primary: Option<Endpoint>,
        /// The link to its primary stands and the data set is in step.
        connected: bool,
        /// Bytes of the replication stream that it has.
        offset: u64,
    },
    /// It is a sentinel.
    Sentinel,
}

/// Reads the answer to `ROLE`.
///
/// # Errors
/// An error of the server, or another shape.
pub fn role(frame: &Frame) -> Result<RoleView, ReadError> {
    const COMMAND: &str = "ROLE";
    let wrong = ReadError::Malformed { command: COMMAND };
    let fields = list(frame, COMMAND)?;
    match (fields.first().and_then(Frame::as_str), fields.get(1..).unwrap_or_default()) {
        (Some("master"), [offset, rest @ ..]) => {
            let replicas = rest.first().and_then(Frame::elements).unwrap_or_default();
            Ok(RoleView::Primary {
                offset: natural(Some(offset)).unwrap_or(0),
                replicas: replicas.iter().filter_map(replica).collect(),
            })
        }
        // `slave` as the servers say; `replica` for those that may come to say so.
        (Some("slave" | "replica"), [host, listens, state, rest @ ..]) => Ok(RoleView::Replica {
            primary: text(Some(host)).zip(port(listens)).map(|(host, port)| Endpoint::new(host, port)),
            connected: state.as_str() == Some("connected"),
            // -1 until the first synchronisation.
            offset: natural(rest.first()).unwrap_or(0),
        }),
        (Some("sentinel"), _) => Ok(RoleView::Sentinel),
        _ => Err(wrong),
    }
}

fn replica(frame: &Frame) -> Option<(Endpoint, u64)> {
    let [host, listens, offset] = frame.elements()? else { return None };
    Some((Endpoint::new(text(Some(host))?, port(listens)?), natural(Some(offset)).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::Limits;

    use super::*;

    fn read(wire: &str) -> Result<RoleView, ReadError> {
        let wire = wire.replace(' ', "\r\n") + "\r\n";
        role(&Frame::parse(&wire.into(), &Limits::default()).unwrap())
    }

    #[test]
    fn the_three_roles_are_read() {
        assert_eq!(
            read("*3 $6 master :3129659 *1 *3 $9 127.0.0.1 $4 9001 $7 3129242"),
            Ok(RoleView::Primary {
                offset: 3_129_659,
                replicas: vec![(Endpoint::new("127.0.0.1", 9001), 3_129_242)]
            })
        );
        assert_eq!(
            read("*5 $5 slave $3 ::1 :9000 $9 connected :-1"),
            Ok(RoleView::Replica { primary: Some(Endpoint::new("::1", 9000)), connected: true, offset: 0 })
        );
        assert_eq!(
            read("*5 $5 slave $9 127.0.0.1 :9000 $4 sync :7"),
            Ok(RoleView::Replica {
                primary: Some(Endpoint::new("127.0.0.1", 9000)),
                connected: false,
                offset: 7
            })
        );
        assert_eq!(read("*2 $8 sentinel *1 $8 mymaster"), Ok(RoleView::Sentinel));
        assert_eq!(read("*1 $5 slave"), Err(ReadError::Malformed { command: "ROLE" }));
        assert!(matches!(read("-LOADING"), Err(ReadError::Server(_))));
    }
}
