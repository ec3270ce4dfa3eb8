//! Who is meant: connections and handoffs; nothing here knows how they work.

use std::{fmt, net::SocketAddr};

use evenkeel_protocol::Endpoint;

/// One connection, as its owner numbers it; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn {}", self.0)
    }
}

/// One handoff, numbered by the engine from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandoffId(pub(crate) u64);

impl HandoffId {
    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for HandoffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handoff {}", self.0)
    }
}

/// A connection and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The connection.
    pub conn: ConnId,
    /// The endpoint as it is configured, whatever was dialled in its place; it is never forgotten.
    pub endpoint: Endpoint,
    /// What was dialled: the configured endpoint, or the target of a handoff.
    pub dialled: Endpoint,
    /// The address that answered; `None` for a Unix socket or a tunnel.
    pub peer: Option<SocketAddr>,
}

impl Origin {
    /// A connection to the configured endpoint itself.
    pub fn new(conn: ConnId, endpoint: Endpoint, peer: Option<SocketAddr>) -> Self {
        Self { conn, dialled: endpoint.clone(), endpoint, peer }
    }

    pub(crate) fn site(&self) -> Site {
        match self.peer {
            Some(peer) => Site::Peer(peer),
            None => Site::Dialled(self.dialled.clone()),
        }
    }
}

/// What tells two servers behind one configured name apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Site {
    /// The address that answered.
    Peer(SocketAddr),
    /// What was dialled, where no address is known.
    Dialled(Endpoint),
}

impl Site {
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Peer(peer) => Some(*peer),
            Self::Dialled(_) => None,
        }
    }
}
