//! The protocols that clients speak: one module each, all over the same hub.

pub(crate) mod centrifugo;

use crate::hub::shard::Ended;
use crate::publication::{Channel, Publication};
use crate::ws::close::CloseCode;
use bytes::Bytes;

/// A protocol that a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Centrifugo,
}

impl Protocol {
    /// How many there are: each publication has a place for the frame of each.
    pub(crate) const COUNT: usize = 1;

    /// Encodes a publication as whole frames of this protocol, transport header included.
    pub(crate) fn encode(self, publication: &Publication) -> Bytes {
        match self {
            Self::Centrifugo => centrifugo::encode::publication(publication),
        }
    }

    /// The frame that tells a client of a subscription that the server ended.
    pub(crate) fn encode_end(self, channel: &Channel, why: Ended) -> Bytes {
        match self {
            Self::Centrifugo => centrifugo::encode::unsubscribed(channel, why),
        }
    }

    /// The heartbeat.
    pub(crate) fn ping(self) -> Bytes {
        match self {
            Self::Centrifugo => Bytes::from_static(b"\x81\x02{}"),
        }
    }

    pub(crate) const fn slow(self) -> CloseCode {
        match self {
            Self::Centrifugo => CloseCode::new(3008, "slow"),
        }
    }

    pub(crate) const fn no_pong(self) -> CloseCode {
        match self {
            Self::Centrifugo => CloseCode::new(3012, "no pong"),
        }
    }

    pub(crate) const fn stale(self) -> CloseCode {
        match self {
            Self::Centrifugo => CloseCode::new(3502, "stale"),
        }
    }

    /// The server API wants the client gone for good.
    pub(crate) const fn disconnected(self) -> CloseCode {
        match self {
            Self::Centrifugo => CloseCode::new(3503, "force disconnect"),
        }
    }

    pub(crate) const fn shutdown(self) -> CloseCode {
        match self {
            Self::Centrifugo => CloseCode::new(3001, "shutdown"),
        }
    }
}
