//! A publication: what one publish gives to every subscriber, encoded once per client protocol.

use crate::presence::Member;
use crate::wire::{Encoded, Protocol};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// A channel's name.
pub type Channel = Arc<str>;

/// The name of one life of a channel's history: offsets compare within one epoch only.
pub type Epoch = Arc<str>;

/// A place in a channel's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The life of the history.
    pub epoch: Epoch,
    /// The offset of the last publication seen; 0 before the first.
    pub offset: u64,
}

/// What a publication tells.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// What somebody published.
    Data,
    /// Somebody came to the channel.
    Join(Member),
    /// Somebody left it.
    Leave(Member),
}

/// One publication on one channel.
///
/// Its frames are encoded when a session of that protocol is first met, and shared from then on.
pub struct Publication {
    channel: Channel,
    data: Bytes,
    position: Option<Position>,
    kind: Kind,
    frames: [OnceLock<Encoded>; Protocol::COUNT],
}

impl Publication {
    /// Makes a publication of JSON text without line breaks, as [`json_line`] gives it.
    pub fn new(channel: Channel, data: Bytes, position: Option<Position>) -> Arc<Self> {
        Arc::new(Self { channel, data, position, kind: Kind::Data, frames: Default::default() })
    }

    /// Makes the news that somebody came (`joined`) or left.
    pub fn presence(channel: Channel, member: Member, joined: bool) -> Arc<Self> {
        let kind = if joined { Kind::Join(member) } else { Kind::Leave(member) };
        Arc::new(Self { channel, data: Bytes::new(), position: None, kind, frames: Default::default() })
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The data: JSON on one line.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Its place in the history; `None` on a channel without one.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// The offset; `None` on a channel without history.
    pub fn offset(&self) -> Option<u64> {
        self.position.as_ref().map(|position| position.offset)
    }

    /// The frame for sessions of `protocol`, shared.
    pub(crate) fn encoded(&self, protocol: Protocol) -> &Encoded {
        let [centrifugo, pusher, raw, sse] = &self.frames;
        let slot = match protocol {
            Protocol::Centrifugo => centrifugo,
            Protocol::Pusher => pusher,
            Protocol::Raw => raw,
            Protocol::Sse => sse,
        };
        slot.get_or_init(|| protocol.encode(self))
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("channel", &self.channel)
            .field("bytes", &self.data.len())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Makes JSON on one line of any payload: JSON stays itself, anything else becomes a JSON string.
///
/// Bytes that are no UTF-8 are replaced, as a text frame can carry no others.
pub fn json_line(payload: Bytes) -> Bytes {
    if serde_json::from_slice::<&RawValue>(&payload).is_err() {
        let text = String::from_utf8_lossy(&payload);
        return Bytes::from(serde_json::Value::String(text.into_owned()).to_string());
    }
    // Within valid JSON a raw line break can only stand between tokens, where it means nothing.
    if payload.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return payload.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::json_line;
    use bytes::Bytes;

    #[test]
    fn json_stays_and_the_rest_becomes_a_string() {
        for (payload, line) in [
            (&b"{\"a\": 1}"[..], "{\"a\": 1}"),
            (b"{\r\n \"a\": \"x\\ny\"\n}", "{ \"a\": \"x\\ny\"}"),
            (b"42", "42"),
            (b"hello", "\"hello\""),
            (b"two\nlines", "\"two\\nlines\""),
            (b"", "\"\""),
            (b"{\"a\":", "\"{\\\"a\\\":\""),
            (b"\xFF", "\"\u{FFFD}\""),
        ] {
            assert_eq!(json_line(Bytes::from_static(payload)), line.as_bytes());
        }
    }
}
