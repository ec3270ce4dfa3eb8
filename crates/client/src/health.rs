//! `Health`: what is known of every connection, without asking anybody.

use std::time::Duration;

use evenkeel_protocol::Endpoint;

/// How the deployment looks from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// True when every primary that is known can take commands.
    pub healthy: bool,
    /// The nodes with connections or wanted ones.
    pub endpoints: Vec<EndpointHealth>,
    /// Sentinels whose events are not heard just now, or not yet: while there is one, "nothing lost" through a planned
    /// failover is not promised.
    pub unheard_sentinels: Vec<Endpoint>,
    /// Connections that were closed because their replies did not fit their commands, since the client began.
    pub out_of_step: u64,
    /// Since the last health check ended.
    pub checked_ago: Option<Duration>,
    /// Whether the last health check was answered by every primary.
    pub last_check_passed: Option<bool>,
}

/// How one node looks from here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointHealth {
    /// Its address.
    pub endpoint: Endpoint,
    /// What it is, as far as is known.
    pub role: Role,
    /// What its connections are doing.
    pub state: ConnectionState,
    /// Commands that were sent and not answered.
    pub in_flight: usize,
    /// Bytes of commands queued or in flight.
    pub bytes: usize,
    /// True while announced maintenance relaxes its timeouts.
    pub relaxed: bool,
}

impl EndpointHealth {
    pub(crate) fn new(endpoint: Endpoint, role: Role, state: ConnectionState) -> Self {
        Self { endpoint, role, state, in_flight: 0, bytes: 0, relaxed: false }
    }
}

/// What a node is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Replica,
    /// Nobody has said.
    Unknown,
}

/// What the connections of a node are doing.
///
/// ```text
/// Connecting ──> Ready <──> Suspect
///    ▲           │  ▲          │
///    │           ▼  │          │
///    │         Moving          │
///    └── Down <──┴─────────────┘
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// They are being made.
    Connecting,
    /// They wait before the next dial.
    Down,
    /// They move to another address.
    Moving,
    /// They take commands.
    Ready,
    /// An answer is overdue; they are looked into.
    Suspect,
}
