//! What resolvers are told.

use bytes::Bytes;
use evenkeel_protocol::{Endpoint, Slot};

use super::action::SentinelQuestion;
use crate::{
    error::{AskFailure, Found},
    read::{ClusterView, PeerView, PrimaryView, ReplicaView, RoleView},
};

/// An observation.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection of the client to a data node was lost, or could not be made.
    ConnectionLost {
        /// The node.
        endpoint: Endpoint,
    },
    /// The subscription to a sentinel's events ended, or could not be made.
    EventLinkDown {
        /// The sentinel.
        sentinel: Endpoint,
    },
    /// The subscription to a sentinel's events stands.
    EventLinkUp {
        /// The sentinel.
        sentinel: Endpoint,
    },
    /// What a server says of its kind.
    KindAnswered {
        /// The server.
        endpoint: Endpoint,
        /// A sentinel, a cluster node, or neither.
        kind: Option<Found>,
        /// Its availability zone, when it says.
        zone: Option<String>,
    },
    /// A server did not say of what kind it is.
    KindFailed {
        /// The server.
        endpoint: Endpoint,
    },
    /// A command was answered with `MOVED`.
    Moved {
        /// The slot.
        slot: Slot,
        /// Its owner, resolved against the node that answered.
        target: Endpoint,
    },
    /// A command was refused by a data node.
    Refused {
        /// The node.
        endpoint: Endpoint,
        /// Why.
        complaint: Complaint,
    },
    /// `ROLE` was answered.
    RoleAnswered {
        /// The node.
        endpoint: Endpoint,
        /// What it says of itself.
        role: RoleView,
    },
    /// `ROLE` was not answered.
    RoleFailed {
        /// The node.
        endpoint: Endpoint,
        /// Why not.
        failure: AskFailure,
    },
    /// A sentinel answered.
    SentinelAnswered {
        /// The sentinel.
        sentinel: Endpoint,
        /// What it says.
        answer: SentinelAnswer,
    },
    /// A sentinel published something.
    SentinelEvent {
        /// The sentinel.
        sentinel: Endpoint,
        /// The channel.
        channel: Bytes,
        /// The message.
        payload: Bytes,
    },
    /// A sentinel did not answer.
    SentinelFailed {
        /// The sentinel.
        sentinel: Endpoint,
        /// What it was asked.
        question: SentinelQuestion,
        /// Why not.
        failure: AskFailure,
    },
    /// Slots are announced to have moved (`SMIGRATED`): runs of slots with their new owner.
    SlotsMoved {
        /// First and last slot of each run, and its owner.
        moves: Vec<(u16, u16, Endpoint)>,
    },
    /// A node gave its view of the cluster.
    ViewAnswered {
        /// The node.
        endpoint: Endpoint,
        /// What it sees.
        view: ClusterView,
    },
    /// A node gave no view of the cluster.
    ViewFailed {
        /// The node.
        endpoint: Endpoint,
        /// Why not.
        failure: AskFailure,
    },
}

/// Why a data node refused a command.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// `CLUSTERDOWN`.
    ClusterDown,
    /// `LOADING`.
    Loading,
    /// `MASTERDOWN`.
    MasterDown,
    /// `READONLY`: it is a replica.
    ReadOnly,
    /// Valkey's `REDIRECT`: it is a replica of this one.
    Redirect(Endpoint),
    /// `UNBLOCKED`: its role has just changed.
    Unblocked,
}

/// A sentinel's answer.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SentinelAnswer {
    /// To [`SentinelQuestion::Members`].
    Members {
        /// Its own run id, where it tells.
        id: Option<String>,
        /// The replicas that it knows.
        replicas: Vec<ReplicaView>,
        /// The other sentinels that it knows.
        sentinels: Vec<PeerView>,
    },
    /// To [`SentinelQuestion::Primary`].
    Primary {
        /// The address that it gives to clients.
        endpoint: Endpoint,
        /// How it sees the primary.
        view: PrimaryView,
    },
    /// To either: it does not know the name.
    UnknownName,
}
