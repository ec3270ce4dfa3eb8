//! What the engine is told.

use std::{net::IpAddr, sync::Arc, time::Instant};

use evenkeel_protocol::{Endpoint, Notice, maintenance::MalformedNotice};

use crate::{ConnId, Origin};

/// One observation.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection is gone: drained after its move, lost, or closed by its owner.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// An ordinary dial of a configured endpoint failed.
    DialFailed {
        /// The configured endpoint.
        endpoint: Endpoint,
    },
    /// The answer to [`Action::AskDns`](crate::Action::AskDns); no address when the question failed.
    DnsAnswer {
        /// The name asked for.
        name: Arc<str>,
        /// Every address in the answer.
        addresses: Vec<IpAddr>,
    },
    /// An operator asks for every connection of this endpoint to be made anew, through its configured name and where
    /// possible to another address.
    Drain {
        /// The configured endpoint.
        endpoint: Endpoint,
        /// When the old connections will be closed.
        deadline: Instant,
    },
    /// A push with the name of an announcement that could not be read; it is counted and nothing else.
    Malformed {
        /// The connection that it came on.
        origin: Origin,
        /// What was wrong.
        error: MalformedNotice,
    },
    /// A [`Move`](crate::Move) did not work out; unless the cause is [`MoveError::Closed`], the old connection still works.
    MoveFailed {
        /// The old connection.
        conn: ConnId,
        /// Why.
        cause: MoveError,
    },
    /// The server announced something.
    Notice {
        /// The connection that it came on, whether or not it was told as opened.
        origin: Origin,
        /// True until the connection is ready for traffic; servers repeat old announcements then.
        during_handshake: bool,
        /// When it came, if that was before it is told: the time it announces runs from then on.
        received_at: Option<Instant>,
        /// What was announced.
        notice: Notice,
    },
    /// A connection is ready for traffic; successors are told by [`Switched`](Self::Switched) instead.
    Opened {
        /// The connection.
        origin: Origin,
    },
    /// The client is closing: end every window and handoff.
    Shutdown,
    /// Traffic runs on the successor; the old connection finishes what it owes and is told as [`Closed`](Self::Closed).
    Switched {
        /// The old connection.
        conn: ConnId,
        /// The new one, with its own id.
        successor: Origin,
    },
    /// The topology knows a new home for every connection of an endpoint (a planned failover).
    TopologyHandoff {
        /// Where they are.
        from: Endpoint,
        /// Where they go.
        to: Endpoint,
        /// When the old ones are worth nothing any more.
        deadline: Instant,
    },
}

/// Why a connection could not be moved.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum MoveError {
    /// The target does not take our credentials (`NOAUTH`, `WRONGPASS`, `NOPERM`).
    #[error("the target refused our credentials")]
    Auth,
    /// The old connection was lost first.
    #[error("the old connection was lost first")]
    Closed,
    /// It was not finished by its deadline.
    #[error("not finished by its deadline")]
    Deadline,
    /// The redirect policy does not allow this target, or its certificate does not verify.
    #[error("the target is not allowed or does not verify")]
    Forbidden,
    /// The target takes no more clients (`max number of clients reached`).
    #[error("the target takes no more clients")]
    Full,
    /// The handshake failed for another reason.
    #[error("the handshake failed")]
    Handshake,
    /// The target is loading its data (`LOADING`) or is not ready in another passing way.
    #[error("the target is not ready yet")]
    NotReady,
    /// Refused, reset or unreachable.
    #[error("the target cannot be reached")]
    Unreachable,
    /// Its owner cannot move this connection in the style asked for.
    #[error("this connection cannot be moved in that way")]
    Unsupported,
}

impl MoveError {
    /// Every cause, in the order of their names.
    pub const ALL: [Self; 9] = [
        Self::Auth,
        Self::Closed,
        Self::Deadline,
        Self::Forbidden,
        Self::Full,
        Self::Handshake,
        Self::NotReady,
        Self::Unreachable,
        Self::Unsupported,
    ];

    /// A word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Closed => "closed",
            Self::Deadline => "deadline",
            Self::Forbidden => "forbidden",
            Self::Full => "full",
            Self::Handshake => "handshake",
            Self::NotReady => "not_ready",
            Self::Unreachable => "unreachable",
            Self::Unsupported => "unsupported",
        }
    }
}
