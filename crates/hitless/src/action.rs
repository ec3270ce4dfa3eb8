//! What the engine wants done; the results come back as [`Input`](crate::Input)s.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, maintenance::SlotMove};

use crate::{ConnId, Event, Family, HandoffId};

/// One thing to do.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Resolve this host name past every cache that can be passed, and answer with
    /// [`Input::DnsAnswer`](crate::Input::DnsAnswer).
    AskDns {
        /// The host name.
        name: Arc<str>,
    },
    /// Dial `from` as it is configured again.
    EndRedirect {
        /// The configured endpoint.
        from: Endpoint,
        /// As in [`RedirectDials`](Self::RedirectDials).
        peer: Option<SocketAddr>,
    },
    /// Move one connection; answer with [`Input::Switched`](crate::Input::Switched) or
    /// [`Input::MoveFailed`](crate::Input::MoveFailed), by `deadline` at the latest.
    Move(Move),
    /// Put the new owners of these slots in force; each move is told once.
    MoveSlots {
        /// What moved where.
        moves: Vec<SlotMove>,
    },
    /// Dials of `from` that would lead to `peer` go to `to`; a later one with the same `from` and `peer` replaces it.
    RedirectDials {
        /// The configured endpoint.
        from: Endpoint,
        /// The address that retires; `None` means whatever `from` leads to.
        peer: Option<SocketAddr>,
        /// Where to dial.
        to: Endpoint,
        /// When it ends by itself; [`EndRedirect`](Self::EndRedirect) follows at that time too.
        until: Instant,
    },
    /// Give commands and handshakes of this scope at least `floor`.
    ///
    /// A floor never shortens a timeout: what counts is the longer of the two, and what waits for its reply is
    /// extended too. A later one for the same scope replaces it.
    Relax {
        /// Which connections.
        scope: Scope,
        /// The least time that an answer is given.
        floor: Duration,
        /// Why; to be attached to errors that happen meanwhile.
        cause: Family,
    },
    /// Something that happened, for logs, metrics and the user's event stream.
    Report(Event),
    /// The configured timeouts are in force again for what is written from here on.
    ///
    /// What was written under the floor keeps it. A connection that is told as closed is not restored.
    Restore {
        /// Which connections.
        scope: Scope,
    },
    /// Read the topology once, soon; never asked for twice at a time.
    VerifyTopology,
}

/// One connection to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The handoff that it is part of.
    pub handoff: HandoffId,
    /// The connection.
    pub conn: ConnId,
    /// Where it goes.
    pub to: Destination,
    /// How old and new overlap.
    pub style: MoveStyle,
    /// When it must have been answered.
    pub deadline: Instant,
    /// How long the old connection may still finish what it owes: the server closes it then.
    pub drain_until: Instant,
}

/// Where a moved connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What to dial, and under TLS the name to verify (subject to the policy for named targets).
    pub endpoint: Endpoint,
    /// Connect to this address of it rather than to what a lookup says.
    pub address: Option<IpAddr>,
}

/// How the old and the new connection overlap.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveStyle {
    /// Make before break: the new one is dialled, authenticated and prepared while the old one works.
    Beside,
    /// One out, one in: the old one is drained and closed before the new one is dialled, because the target takes
    /// no further client.
    InPlace,
    /// The server closes the old one at a known moment and nobody knows a better place before: from `hush_at` on nothing
    /// is written to it, so that no command is cut; dial when it is closed, at `dial_at` at the latest, again and again
    /// until the deadline; if nothing stands then and the old one still lives, it is used again. What waits on it without writing (a blocked command)
    /// may be ended before `hush_at`.
    Quiet {
        /// When to fall silent.
        hush_at: Instant,
        /// When to dial, if the server has not closed the old one before: some milliseconds behind the announced close,
        /// since its clock, or ours, may be late by so much and a name that turns at the close would lead back.
        dial_at: Instant,
    },
}

/// Which connections a relaxation covers.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// One connection.
    Conn(ConnId),
    /// Every connection of this configured endpoint, those that are still to be dialled included.
    Endpoint(Endpoint),
}
