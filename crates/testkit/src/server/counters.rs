//! Counters of addresses and connections, for tests to look at.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::maintenance::{ActiveMove, EndpointType};

/// What happened at one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressCounters {
    /// Connections accepted, the front door's included when it led here.
    pub accepted: u64,
    /// Connections open.
    pub open: u64,
    /// Connections that the server closed: at the end of a grace, killed, or too slow to read.
    pub closed_by_server: u64,
    /// Commands executed or refused; queued ones count when they are queued.
    pub commands: u64,
    /// Those of them that came while a move of this address was announced.
    pub commands_after_announcement: u64,
}

/// One connection as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its id, as CLIENT ID gives it.
    pub id: u64,
    /// The index of the address that it belongs to.
    pub address: usize,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// What it dialled: the address, or the front door.
    pub local: SocketAddr,
    /// 2 or 3.
    pub protocol: u8,
    /// What CLIENT SETNAME set.
    pub name: String,
    /// What CLIENT SETINFO LIB-NAME set.
    pub library: String,
    /// The selected database.
    pub database: usize,
    /// What it asked to be told of moves; nothing when it did not opt in.
    pub maintenance: Option<EndpointType>,
    /// Channels, patterns and shard channels that it listens to.
    pub subscriptions: usize,
    /// Whether it waits in a blocking command.
    pub blocked: bool,
    /// Commands that it sent.
    pub commands: u64,
    /// Those of them that came after it had been told that its address moves.
    pub commands_after_announcement: u64,
}

/// An address with all that the engine keeps for it.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) socket: SocketAddr,
    pub(super) hostname: Option<String>,
    pub(super) listening: bool,
    pub(super) counters: AddressCounters,
    pub(super) moves: Vec<ActiveMove>,
    /// Replies stay inside until then.
    pub(super) held_until: Option<Instant>,
}

impl Address {
    pub(super) fn new(socket: SocketAddr, hostname: Option<String>) -> Self {
        Self {
            socket,
            hostname,
            listening: true,
            counters: AddressCounters::default(),
            moves: Vec::new(),
            held_until: None,
        }
    }

    pub(super) fn is_moving(&self, now: Instant) -> bool {
        self.moves.iter().any(|announced| announced.until > now)
    }
}
