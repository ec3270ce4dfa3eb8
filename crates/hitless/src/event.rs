//! What happened, for logs, metrics, hooks and the user.

use std::{
    fmt,
    time::{Duration, Instant},
};

use evenkeel_protocol::Endpoint;

use crate::{ConnId, HandoffId, LogLevel, MoveError};

/// Something that the engine saw or decided.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The breaker of a target lets calls through again.
    BreakerClosed {
        /// The target.
        target: Endpoint,
    },
    /// A target failed too often; it is not dialled for a while.
    BreakerOpened {
        /// The target.
        target: Endpoint,
    },
    /// A connection has moved.
    ConnMoved {
        /// The handoff.
        handoff: HandoffId,
        /// The old connection.
        conn: ConnId,
        /// The new one.
        successor: ConnId,
        /// Since the announcement.
        took: Duration,
    },
    /// A connection is left to the server's close and to ordinary reconnection.
    ConnAbandoned {
        /// The handoff.
        handoff: HandoffId,
        /// The connection.
        conn: ConnId,
        /// The last reason.
        cause: MoveError,
    },
    /// Every connection of a handoff has moved or was given up.
    HandoffFinished {
        /// The handoff.
        handoff: HandoffId,
        /// The configured endpoint.
        endpoint: Endpoint,
        /// Connections moved.
        moved: u32,
        /// Connections left to ordinary reconnection.
        abandoned: u32,
        /// From the announcement to the first attempt: the jitter.
        waited: Duration,
        /// Since the announcement.
        took: Duration,
    },
    /// A handoff begins.
    HandoffStarted {
        /// The handoff.
        handoff: HandoffId,
        /// Why.
        cause: HandoffCause,
        /// The configured endpoint.
        endpoint: Endpoint,
        /// The announcement's sequence id.
        seq: Option<u64>,
        /// The target, when one was named.
        target: Option<Endpoint>,
        /// Connections known to be concerned.
        connections: u32,
        /// When the old side closes.
        closes_at: Instant,
    },
    /// A push could not be read.
    Malformed {
        /// The connection that it came on.
        conn: ConnId,
        /// The announcement's name.
        name: &'static str,
        /// What was wrong.
        what: &'static str,
    },
    /// An attempt to move a connection failed; others may follow.
    MoveFailed {
        /// The handoff.
        handoff: HandoffId,
        /// The connection.
        conn: ConnId,
        /// Why.
        cause: MoveError,
    },
    /// An announcement was dealt with.
    Noticed {
        /// The connection that it came on.
        conn: ConnId,
        /// The configured endpoint of that connection.
        endpoint: Endpoint,
        /// The announcement's name.
        name: &'static str,
        /// Its sequence id.
        seq: Option<u64>,
        /// What came of it.
        outcome: Outcome,
    },
    /// More connections wait than the queue takes; the rest is left to ordinary reconnection.
    QueueFull {
        /// The handoff.
        handoff: HandoffId,
        /// How many are left out.
        left_out: u32,
    },
    /// A window of relaxed timeouts is over.
    WindowClosed {
        /// Whose connections.
        endpoint: Endpoint,
        /// The kind of maintenance.
        family: Family,
        /// The sequence id that opened it.
        seq: Option<u64>,
        /// True when its cap ended it, because no end was announced.
        expired: bool,
    },
    /// A window of relaxed timeouts begins.
    WindowOpened {
        /// Whose connections.
        endpoint: Endpoint,
        /// The kind of maintenance.
        family: Family,
        /// The sequence id.
        seq: Option<u64>,
        /// When it ends at the latest.
        until: Instant,
    },
}

impl Event {
    /// From which level on it is logged.
    pub fn level(&self) -> LogLevel {
        match self {
            Self::ConnAbandoned { .. } | Self::QueueFull { .. } => LogLevel::Error,
            Self::BreakerOpened { .. }
            | Self::Malformed { .. }
            | Self::MoveFailed { .. }
            | Self::WindowClosed { expired: true, .. } => LogLevel::Warn,
            Self::BreakerClosed { .. }
            | Self::ConnMoved { .. }
            | Self::HandoffFinished { .. }
            | Self::HandoffStarted { .. }
            | Self::WindowClosed { .. }
            | Self::WindowOpened { .. } => LogLevel::Info,
            Self::Noticed { .. } => LogLevel::Debug,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BreakerClosed { target } => write!(f, "{target} is trusted again"),
            Self::BreakerOpened { target } => write!(f, "{target} failed too often and is left alone"),
            Self::ConnMoved { handoff, conn, successor, took } => {
                write!(f, "{handoff}: {conn} moved to {successor} after {took:?}")
            }
            Self::ConnAbandoned { handoff, conn, cause } => {
                write!(f, "{handoff}: {conn} is left to ordinary reconnection: {cause}")
            }
            Self::HandoffFinished { handoff, endpoint, moved, abandoned, took, .. } => {
                write!(
                    f,
                    "{handoff} of {endpoint} finished after {took:?}: {moved} moved, {abandoned} abandoned"
                )
            }
            Self::HandoffStarted { handoff, cause, endpoint, target, connections, .. } => {
                write!(f, "{handoff} of {endpoint} ({cause:?}) starts with {connections} connections")?;
                match target {
                    Some(target) => write!(f, " to {target}"),
                    None => f.write_str(" to wherever its name leads"),
                }
            }
            Self::Malformed { conn, name, what } => write!(f, "malformed {name} on {conn}: {what}"),
            Self::MoveFailed { handoff, conn, cause } => {
                write!(f, "{handoff}: an attempt to move {conn} failed: {cause}")
            }
            Self::Noticed { conn, endpoint, name, seq, outcome } => {
                write!(f, "{name} {} of {endpoint} on {conn}: {outcome:?}", Seq(*seq))
            }
            Self::QueueFull { handoff, left_out } => {
                write!(
                    f,
                    "{handoff}: the queue is full, {left_out} connections are left to ordinary reconnection"
                )
            }
            Self::WindowClosed { endpoint, family, seq, expired } => {
                let how = if *expired { "expired without an end" } else { "closed" };
                write!(f, "{} window {} of {endpoint} {how}", family.word(), Seq(*seq))
            }
            Self::WindowOpened { endpoint, family, seq, .. } => {
                write!(f, "{} window {} of {endpoint} opened", family.word(), Seq(*seq))
            }
        }
    }
}

struct Seq(Option<u64>);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(seq) => write!(f, "{seq}"),
            None => f.write_str("without id"),
        }
    }
}

/// What came of an announcement.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The feature is disabled.
    Disabled,
    /// A hook held it back.
    HeldBack,
    /// The handoff that it started is over; hooks are told this, once, and not the start.
    HandoffEnded {
        /// The handoff.
        handoff: HandoffId,
        /// Connections moved.
        moved: u32,
        /// Connections left to ordinary reconnection.
        abandoned: u32,
    },
    /// It starts a handoff.
    HandoffStarted(HandoffId),
    /// One more connection of a known handoff.
    Joined(HandoffId),
    /// A window opened.
    Relaxed,
    /// Nothing: it was dealt with when it came first.
    Repeated,
    /// Nothing: the server told a new connection what is long over.
    Replayed,
    /// At least one window closed.
    Restored,
    /// Slots have new owners.
    SlotsMoved,
    /// Nothing: its end was announced before it, or a later change overtook it.
    Stale,
    /// Nothing was open that it could end.
    Unmatched,
}

impl Outcome {
    /// True when connections had to be left to the server's close.
    pub fn is_error(self) -> bool {
        matches!(self, Self::HandoffEnded { abandoned: 1.., .. })
    }
}

/// Why connections are moved.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandoffCause {
    /// An operator asked for it.
    Drain,
    /// `MOVING`.
    Moving,
    /// The topology names another home.
    Topology,
    /// The server's address is no longer advertised.
    Vanished,
}

/// The kind of maintenance behind a window.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `FAILING_OVER` until `FAILED_OVER`.
    Failover,
    /// The time after a connection has moved.
    Handoff,
    /// `MIGRATING` until `MIGRATED`.
    Migration,
    /// `MOVING` until the old side has closed.
    Moving,
    /// `SMIGRATING` until `SMIGRATED`.
    Slots,
}

impl Family {
    /// The name under which metrics count it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failover => "FAILING_OVER",
            Self::Handoff => "HANDOFF",
            Self::Migration => "MIGRATING",
            Self::Moving => "MOVING",
            Self::Slots => "SMIGRATING",
        }
    }
}
