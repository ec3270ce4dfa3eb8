//! `Delivery`: what a subscriber reads.

use std::fmt;

use bytes::Bytes;
use evenkeel_protocol::ServerError;

/// What a [`Subscription`](crate::Subscription) gives. `Debug` shows sizes, never contents.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Messages may be missing before this place: the connection was lost or moved, and the subscription stands again.
    Gap {
        /// The channel or pattern.
        channel: Bytes,
        /// True when messages around this place may also come twice.
        may_repeat: bool,
    },
    /// The subscriber was too slow, and the oldest that waited were dropped here.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// A message.
    Message {
        /// The channel that it was published on.
        channel: Bytes,
        /// What was published; a slice of what was read from the server, shared by all subscribers.
        payload: Bytes,
        /// The pattern that matched, for a pattern subscription.
        pattern: Option<Bytes>,
    },
    /// The server refused the subscription; there will be nothing from it.
    Refused {
        /// The channel or pattern.
        channel: Bytes,
        /// The server's error.
        error: ServerError,
    },
    /// The server has confirmed the subscription: from here on messages arrive.
    Subscribed {
        /// The channel or pattern.
        channel: Bytes,
    },
    /// The subscription was given up: nothing from it follows.
    Unsubscribed {
        /// The channel or pattern.
        channel: Bytes,
    },
}

impl Delivery {
    /// What it costs to keep: its strings, and about what the queue needs for it.
    pub(super) fn weight(&self) -> usize {
        let strings = match self {
            Self::Message { channel, payload, pattern } => {
                channel.len() + payload.len() + pattern.as_ref().map_or(0, Bytes::len)
            }
            Self::Gap { channel, .. }
            | Self::Refused { channel, .. }
            | Self::Subscribed { channel }
            | Self::Unsubscribed { channel } => channel.len(),
            Self::Lagged { .. } => 0,
        };
        strings + size_of::<Self>()
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { may_repeat, .. } => {
                f.debug_struct("Gap").field("may_repeat", may_repeat).finish_non_exhaustive()
            }
            Self::Lagged { missed } => f.debug_struct("Lagged").field("missed", missed).finish(),
            Self::Message { payload, .. } => write!(f, "Message({} bytes)", payload.len()),
            Self::Refused { error, .. } => write!(f, "Refused({})", error.code()),
            Self::Subscribed { .. } => f.write_str("Subscribed"),
            Self::Unsubscribed { .. } => f.write_str("Unsubscribed"),
        }
    }
}
