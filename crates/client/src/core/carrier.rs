//! `Carrier`: what a connection belongs to, a lane or a subscription link; both move and are relaxed alike.

use std::{sync::Arc, time::Duration};

use evenkeel_pool::{ConnInfo, DialError, Lane, LaneId, Link, LinkId, machine::MoveRequest};
use evenkeel_protocol::Endpoint;

/// Names a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CarrierId {
    Lane(LaneId),
    Link(LinkId),
}

/// A lane or a link.
#[derive(Clone, Debug)]
pub(crate) enum Carrier {
    Lane(Lane),
    Link(Link),
}

impl Carrier {
    /// The endpoint that it was started for.
    pub(crate) fn home(&self) -> Endpoint {
        match self {
            Self::Lane(lane) => lane.home(),
            Self::Link(link) => link.home(),
        }
    }

    /// What is known of its connection; `None` without one.
    pub(crate) fn info(&self) -> Option<Arc<ConnInfo>> {
        match self {
            Self::Lane(lane) => lane.info(),
            Self::Link(link) => link.info(),
        }
    }

    pub(crate) fn last_error(&self) -> Option<Arc<DialError>> {
        match self {
            Self::Lane(lane) => lane.last_error(),
            Self::Link(link) => link.last_error(),
        }
    }

    pub(crate) fn move_to(&self, request: MoveRequest) -> bool {
        match self {
            Self::Lane(lane) => lane.move_to(request),
            Self::Link(link) => link.move_to(request),
        }
    }

    pub(crate) fn relax(&self, key: u64, floor: Duration) {
        match self {
            Self::Lane(lane) => lane.relax(key, floor),
            Self::Link(link) => link.relax(key, floor),
        }
    }

    pub(crate) fn restore(&self, key: u64) {
        match self {
            Self::Lane(lane) => lane.restore(key),
            Self::Link(link) => link.restore(key),
        }
    }
}
