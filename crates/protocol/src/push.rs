//! `Push`: what a server says unasked.

use bytes::Bytes;

use crate::{
    error::ParseError,
    frame::Frame,
    maintenance::{MalformedNotice, Notice},
    reply::{Kind, Reply},
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
    /// Reads a push, or the array that RESP2 sends in its place, from its bytes.
    ///
    /// `None` when it is neither. A push that is delimited and holds something that is no value is told by its name all the
    /// same: as a malformed announcement, or as another push.
    ///
    /// # Errors
    /// The frame is broken and is named like a message or a confirmation: subscribers miss something.
    ///
    /// ```
    /// use evenkeel_protocol::{Push, Reply};
    ///
    /// let broken = Reply::new((&b">3\r\n+MOVING\r\n:x\r\n:15\r\n"[..]).into());
    /// assert!(matches!(Push::of(&broken), Ok(Some(Push::MalformedMaintenance(_)))));
    /// ```
    pub fn of(reply: &Reply) -> Result<Option<Self>, ParseError> {
        let error = match reply.frame() {
            Ok(frame) => return Ok(Self::read(&frame)),
            Err(error) => error,
        };
        let Some(name) = name_in(reply) else { return Err(error) };
        if let Some(name) = Notice::name_of(&name) {
            let malformed = MalformedNotice { name, what: "an element is no value" };
            return Ok(Some(Self::MalformedMaintenance(malformed)));
        }
        let is_pubsub = matches!(name.as_ref(), b"message" | b"smessage" | b"pmessage")
            || SubscriptionKind::of(&name).is_some();
        if is_pubsub { Err(error) } else { Ok(Some(Self::Other(name))) }
    }

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

/// The name of a push of RESP3, whatever stands behind it.
fn name_in(reply: &Reply) -> Option<Bytes> {
    if reply.kind() != Kind::Push {
        return None;
    }
    let mut reader = reply.reader();
    let mut elements = reader.list("a push").ok()?;
    reader.more(&mut elements).ok().filter(|more| *more)?;
    reader.bytes("a name").ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(wire: &'static [u8]) -> Result<Option<Push>, ParseError> {
        Push::of(&Reply::new(wire.into()))
    }

    #[test]
    fn a_broken_push_is_told_by_its_name() {
        let malformed =
            |name| Push::MalformedMaintenance(MalformedNotice { name, what: "an element is no value" });
        assert_eq!(of(b">4\r\n+MIGRATING\r\n:x\r\n_\r\n_\r\n"), Ok(Some(malformed("MIGRATING"))));
        assert_eq!(of(b">2\r\n$6\r\nmoving\r\n:\r\n"), Ok(Some(malformed("MOVING"))));
        assert_eq!(of(b">2\r\n+NEWS\r\n:x\r\n"), Ok(Some(Push::Other("NEWS".into()))));
        assert!(of(b">2\r\n:x\r\n+NEWS\r\n").is_err());
    }

    #[test]
    fn a_broken_message_or_confirmation_is_an_error() {
        let broken: [&[u8]; 4] = [
            b">3\r\n$7\r\nmessage\r\n+c\r\n:x\r\n",
            b">3\r\n$8\r\nsmessage\r\n+c\r\n:x\r\n",
            b">4\r\n$8\r\npmessage\r\n+p\r\n+c\r\n#x\r\n",
            b">3\r\n$9\r\nsubscribe\r\n+c\r\n:x\r\n",
        ];
        for wire in broken {
            assert!(of(wire).is_err(), "{wire:?}");
        }
        assert!(of(b"*2\r\n+MOVING\r\n:x\r\n").is_err(), "an array is a reply");
        assert_eq!(of(b"+OK\r\n"), Ok(None));
    }
}
