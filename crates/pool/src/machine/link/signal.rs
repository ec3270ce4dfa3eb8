//! What a link machine is told, and what it wants done.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use evenkeel_protocol::{Command, Endpoint, Push, ServerError};

use super::{
    super::{DialId, MoveRequest, Report},
    name::ChannelKind,
    settings::Peer,
};

/// Continuity was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GapInfo {
    /// Messages that were delivered before may come again.
    pub may_repeat: bool,
    /// What was published before this time has been delivered, but for what was on its way.
    pub since: Instant,
}

/// Why a subscription ended.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// It was asked for.
    Asked,
    /// The server ended it: the shard channel's slot has moved. The link does not want it any more.
    ByServer,
}

/// What a link machine is told.
#[non_exhaustive]
#[derive(Clone, PartialEq)]
pub enum LinkInput {
    /// Nothing more is wanted; the driver ends by itself.
    Close,
    /// A dial succeeded, handshake included.
    Dialed(DialId, Peer),
    /// A dial failed; `refused` when nobody listens there.
    DialFailed {
        /// Which.
        dial: DialId,
        /// The port is closed: the server process is gone.
        refused: bool,
    },
    /// Bytes came on this connection.
    Heard(DialId),
    /// This connection has ended.
    Lost(DialId),
    /// Move.
    Move(MoveRequest),
    /// A push came on this connection.
    Push(DialId, Push),
    /// The floor under timeouts has changed; inside one a silent peer is not suspect.
    Relax(Option<Duration>),
    /// A plain reply came on this connection.
    Reply {
        /// Which.
        dial: DialId,
        /// The error, when it is one.
        error: Option<ServerError>,
        /// The number, when it is one.
        number: Option<i64>,
    },
    /// These are wanted.
    Subscribe(ChannelKind, Vec<Bytes>),
    /// These are not wanted any more.
    Unsubscribe(ChannelKind, Vec<Bytes>),
}

/// What a link machine wants done.
#[non_exhaustive]
#[derive(Clone)]
pub enum LinkAction {
    /// A subscription stands.
    Confirmed(ChannelKind, Bytes),
    /// Hand this message to the owner.
    Deliver(Push),
    /// Connect and shake hands; answer with `Dialed` or `DialFailed`.
    Dial {
        /// Its name.
        dial: DialId,
        /// Where.
        endpoint: Endpoint,
        /// This address of it, rather than what a lookup says.
        address: Option<IpAddr>,
    },
    /// Let go of a dial, or close its connection.
    Discard(DialId),
    /// A subscription has ended.
    Ended(ChannelKind, Bytes, EndCause),
    /// Tell the owner that messages may be missing.
    Gap(GapInfo),
    /// The server refused to subscribe these; they are not wanted any more.
    Refused(ChannelKind, Vec<Bytes>, ServerError),
    /// Tell the owner.
    Report(Report),
    /// This connection is the one in use.
    Use(DialId),
    /// Send this on that connection.
    Write(DialId, Command),
}

impl fmt::Debug for LinkInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Close => "Close",
            Self::Dialed(..) => "Dialed",
            Self::DialFailed { .. } => "DialFailed",
            Self::Heard(_) => "Heard",
            Self::Lost(_) => "Lost",
            Self::Move(_) => "Move",
            Self::Push(..) => "Push",
            Self::Relax(_) => "Relax",
            Self::Reply { .. } => "Reply",
            Self::Subscribe(..) => "Subscribe",
            Self::Unsubscribe(..) => "Unsubscribe",
        })
    }
}

impl fmt::Debug for LinkAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmed(kind, _) => write!(f, "Confirmed({kind:?})"),
            Self::Deliver(_) => f.write_str("Deliver"),
            Self::Dial { dial, endpoint, .. } => write!(f, "Dial({}, {endpoint})", dial.0),
            Self::Discard(dial) => write!(f, "Discard({})", dial.0),
            Self::Ended(kind, _, cause) => write!(f, "Ended({kind:?}, {cause:?})"),
            Self::Gap(gap) => write!(f, "{gap:?}"),
            Self::Refused(kind, names, error) => write!(f, "Refused({kind:?}, {}, {error:?})", names.len()),
            Self::Report(report) => write!(f, "{report:?}"),
            Self::Use(dial) => write!(f, "Use({})", dial.0),
            Self::Write(dial, command) => write!(f, "Write({}, {command:?})", dial.0),
        }
    }
}
