//! What resolvers say is to be done.

use std::{sync::Arc, time::Instant};

use evenkeel_protocol::Endpoint;

use crate::{error::ResolveError, snapshot::Topology};

/// Something to do. Questions are answered by an [`Input`](super::Input) each; the rest is for the client.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask what kind of server it is and in which availability zone (`HELLO`).
    AskKind {
        /// The server.
        endpoint: Endpoint,
    },
    /// Ask `ROLE`.
    AskRole {
        /// The data node.
        endpoint: Endpoint,
    },
    /// Ask a sentinel.
    AskSentinel {
        /// The sentinel.
        sentinel: Endpoint,
        /// What to ask.
        question: SentinelQuestion,
    },
    /// Ask for the cluster's map and `CLUSTER INFO`.
    AskView {
        /// The node.
        endpoint: Endpoint,
        /// By which command.
        by: ViewCommand,
    },
    /// Send no write until [`Release`](Self::Release). Reads go on.
    HoldWrites {
        /// When the resolver will end the hold at the latest if the old primary is still in order; `None` when there is no
        /// primary that could take a write, and the hold lasts until one is found.
        until: Option<Instant>,
    },
    /// Writes and reads of the primary go elsewhere from here on; a snapshot that says so was published before.
    PrimaryChanged {
        /// The primary before; `None` for the first one.
        from: Option<Endpoint>,
        /// The primary after.
        to: Endpoint,
        /// The configuration epoch, as far as it is known.
        epoch: u64,
        /// The one before is known to be down: what it owes will not come.
        from_is_down: bool,
    },
    /// Replace the snapshot.
    Publish(Arc<Topology>),
    /// Send held writes to this endpoint: it said itself, after the hold began, that it is the primary.
    Release {
        /// The primary, perhaps the same as before.
        primary: Endpoint,
    },
    /// Tell those who look after the system.
    Report(Report),
    /// Nothing usable was found in this round; the next one follows by itself.
    Unresolved(ResolveError),
    /// End the subscription to a sentinel's events.
    UnwatchSentinel {
        /// The sentinel.
        sentinel: Endpoint,
    },
    /// Subscribe to a sentinel's events.
    WatchSentinel {
        /// The sentinel.
        sentinel: Endpoint,
    },
}

/// What a sentinel is asked.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentinelQuestion {
    /// `SENTINEL MYID`, `REPLICAS` and `SENTINELS`.
    Members,
    /// `SENTINEL MASTER`, then `GET-MASTER-ADDR-BY-NAME`. In this order: at a promotion the sentinel changes both at once, and
    /// an old epoch with a new address is harmless, a new epoch with an old address is not.
    Primary,
}

/// The command that gives a cluster's map.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewCommand {
    /// `CLUSTER SHARDS`, from 7.0 on.
    Shards,
    /// `CLUSTER SLOTS`, everywhere.
    Slots,
}

/// Something that those who look after the system may want to know.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A server named an address that the redirect policy forbids; it is not used.
    AddressDenied {
        /// The address.
        endpoint: Endpoint,
    },
    /// A sentinel's events are no longer seen: a failover that it leads may be noticed late.
    EventLinkDown {
        /// The sentinel.
        sentinel: Endpoint,
    },
    /// A sentinel's events are seen.
    EventLinkUp {
        /// The sentinel.
        sentinel: Endpoint,
    },
    /// A failover was given up.
    FailoverAborted {
        /// The sentinel that led it.
        sentinel: Endpoint,
    },
    /// A failover began.
    FailoverStarted {
        /// The sentinel that leads it.
        sentinel: Endpoint,
    },
    /// The server in single mode is a replica: it refuses writes.
    IsReplica {
        /// The server.
        endpoint: Endpoint,
        /// Its primary, when it says.
        primary: Option<Endpoint>,
    },
    /// A sentinel's answer was older than what is known; it was not believed.
    StaleSentinel {
        /// The sentinel.
        sentinel: Endpoint,
    },
    /// A view of the cluster was older than what is known; it was not believed.
    StaleView {
        /// The node that gave it.
        endpoint: Endpoint,
    },
    /// A replica says that it is a primary, and no sentinel made it one; it is not followed.
    UnexpectedPrimary {
        /// The replica.
        endpoint: Endpoint,
    },
}
