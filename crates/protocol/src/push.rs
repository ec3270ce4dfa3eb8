//! `Push`: what a server says unasked.

use bytes::Bytes;

use crate::{
    frame::Frame,
    maintenance::{MalformedNotice, Notice},
};

/// An out-of-band push, by its meaning.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// `invalidate`: keys of the client-side cache; `None` stands for all of them.
    Invalidation(Option<Vec<Bytes>>),
    /// An announcement of maintenance.
    Maintenance(Notice),
    /// A push named like an announcement that cannot be understood; counted, never acted on.
    MalformedMaintenance(MalformedNotice),
    /// `message` or `smessage`: something was published on a channel.
    Message {
        /// True for a shard channel.
        sharded: bool,
        /// The channel.
        channel: Bytes,
        /// What was published.
        payload: Bytes,
    },
    /// Any other push, by its name.
    Other(Bytes),
    /// `pmessage`: something was published on a channel that a pattern matches.
    PatternMessage {
        /// The pattern.
        pattern: Bytes,
        /// The channel.
        channel: Bytes,
        /// What was published.
        payload: Bytes,
    },
    /// A subscription began or ended.
    Subscription {
        /// Which of the six confirmations.
        kind: SubscriptionKind,
        /// The channel or pattern; `None` when everything ended and there was nothing.
        channel: Option<Bytes>,
        /// How many subscriptions of this family the connection has left.
        count: i64,
    },
}

/// The six confirmations of subscriptions.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubscriptionKind {
    /// `psubscribe`.
    PatternSubscribed,
    /// `punsubscribe`.
    PatternUnsubscribed,
    /// `ssubscribe`.
    ShardSubscribed,
    /// `sunsubscribe`; also sent unasked when a slot moves.
    ShardUnsubscribed,
    /// `subscribe`.
    Subscribed,
    /// `unsubscribe`.
    Unsubscribed,
}

impl Push {
    /// Reads a push, or the array that RESP2 sends in its place.
    ///
    /// `None` when the frame is neither, or is an array that is no pub/sub message.
    pub fn read(frame: &Frame) -> Option<Self> {
        let elements = match frame {
            Frame::Push(list) => list,
            Frame::Array(list) if is_pubsub(list) => list,
            Frame::Attributed(_, value) => return Self::read(value),
            _ => return None,
        };
        if let Some(notice) = Notice::parse(elements) {
            return Some(match notice {
                Ok(notice) => Self::Maintenance(notice),
                Err(malformed) => Self::MalformedMaintenance(malformed),
            });
        }
        let name = blob(elements.first()?)?;
        let known = match (name.as_ref(), elements.get(1..).unwrap_or_default()) {
            (b"message" | b"smessage", [channel, payload]) => {
                blob(channel).zip(blob(payload)).map(|(channel, payload)| Self::Message {
                    sharded: name.as_ref() == b"smessage",
                    channel,
                    payload,
                })
            }
            (b"pmessage", [pattern, channel, payload]) => blob(pattern)
                .zip(blob(channel))
                .zip(blob(payload))
                .map(|((pattern, channel), payload)| Self::PatternMessage { pattern, channel, payload }),
            (b"invalidate", [keys]) => match keys.elements() {
                Some(keys) => Some(Self::Invalidation(Some(keys.iter().filter_map(blob).collect()))),
                None => Some(Self::Invalidation(None)),
            },
            (name, [channel, count]) => SubscriptionKind::of(name)
                .zip(count.as_integer())
                .map(|(kind, count)| Self::Subscription { kind, channel: blob(channel), count }),
            _ => None,
        };
        Some(known.unwrap_or(Self::Other(name)))
    }
}

impl SubscriptionKind {
    fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"psubscribe" => Self::PatternSubscribed,
            b"punsubscribe" => Self::PatternUnsubscribed,
            b"ssubscribe" => Self::ShardSubscribed,
            b"sunsubscribe" => Self::ShardUnsubscribed,
            b"subscribe" => Self::Subscribed,
            b"unsubscribe" => Self::Unsubscribed,
            _ => return None,
        })
    }
}

fn is_pubsub(elements: &[Frame]) -> bool {
    let name = elements.first().and_then(Frame::as_bytes).unwrap_or_default();
    match elements.len() {
        3 => matches!(name, b"message" | b"smessage") || SubscriptionKind::of(name).is_some(),
        4 => name == b"pmessage",
        _ => false,
    }
}

fn blob(frame: &Frame) -> Option<Bytes> {
    match frame {
        Frame::Blob(text) | Frame::Simple(text) | Frame::Verbatim(_, text) => Some(text.clone()),
        _ => None,
    }
}
