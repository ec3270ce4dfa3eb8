//! The protocols that clients speak: one module each, all over the same hub.

pub(crate) mod centrifugo;
pub(crate) mod machine;
pub(crate) mod pusher;
pub(crate) mod raw;
pub(crate) mod sse;

use crate::hub::shard::Ended;
use crate::publication::{Channel, Kind, Publication};
use crate::ws;
use crate::ws::close::CloseCode;
use crate::ws::deflate::Agreed;
use bytes::Bytes;
use std::sync::OnceLock;

/// A protocol that a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Centrifugo's JSON protocol.
    Centrifugo,
    /// Pusher's protocol 7.
    Pusher,
    /// A WebSocket without a protocol: one message a frame.
    Raw,
    /// Server-sent events over HTTP.
    Sse,
}

/// A publication as one protocol has it.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    /// Whole frames, transport header included.
    pub(crate) frame: Bytes,
    /// The client that does not get it, as it sent it.
    pub(crate) except: Option<Box<str>>,
    /// The frame compressed, made when somebody first wants it; nothing where that would not be shorter.
    deflated: OnceLock<Option<Bytes>>,
}

impl Encoded {
    pub(crate) fn new(frame: Bytes, except: Option<Box<str>>) -> Self {
        Self { frame, except, deflated: OnceLock::new() }
    }

    /// The frame for a WebSocket with what it agreed to.
    pub(crate) fn frame_for(&self, agreed: Option<Agreed>) -> &Bytes {
        if !agreed.is_some_and(|agreed| agreed.covers(self.frame.len())) {
            return &self.frame;
        }
        self.deflated.get_or_init(|| ws::deflate::compressed(&self.frame)).as_ref().unwrap_or(&self.frame)
    }
}

/// How a session is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// The server API wants the client gone for good.
    Disconnected,
    /// The client's token has ended, and no fresh one came.
    Expired,
    /// A heartbeat was not answered.
    NoPong,
    /// The server stops; the client is to come back.
    Shutdown,
    /// The client reads too slowly.
    Slow,
    /// The client never said who it is.
    Stale,
}

impl Protocol {
    /// How many there are: each publication has a place for the frame of each.
    pub(crate) const COUNT: usize = 4;

    /// Encodes a publication.
    pub(crate) fn encode(self, publication: &Publication) -> Encoded {
        let whole = |frame| Encoded::new(frame, None);
        let (member, joined) = match publication.kind() {
            Kind::Data => return self.encode_data(publication),
            Kind::Join(member) => (member, true),
            Kind::Leave(member) => (member, false),
        };
        match self {
            Self::Centrifugo => whole(centrifugo::encode::presence(publication.channel(), member, joined)),
            Self::Pusher => pusher::encode::presence(publication.channel(), member, joined),
            // These have no word for it, and an empty frame is not sent.
            Self::Raw | Self::Sse => whole(Bytes::new()),
        }
    }

    fn encode_data(self, publication: &Publication) -> Encoded {
        let whole = |frame| Encoded::new(frame, None);
        match self {
            Self::Centrifugo => whole(centrifugo::encode::publication(publication)),
            Self::Pusher => pusher::encode::publication(publication),
            Self::Raw => whole(raw::publication(publication)),
            Self::Sse => whole(sse::publication(publication)),
        }
    }

    /// The frame that tells a client of a subscription that the server ended, or of a gap in one that goes on.
    pub(crate) fn encode_end(self, channel: &Channel, why: Ended) -> Option<Bytes> {
        match self {
            Self::Centrifugo => Some(centrifugo::encode::unsubscribed(channel, why)),
            Self::Pusher => pusher::encode::gap(channel, why),
            Self::Raw => None,
            Self::Sse => Some(sse::gap()),
        }
    }

    /// Whether clients can subscribe anew by themselves when a subscription ends. The others stay subscribed,
    /// and are told of the gap.
    pub(crate) const fn resubscribes(self) -> bool {
        matches!(self, Self::Centrifugo)
    }

    /// Whether a gap ends the whole session, as nothing in the protocol could tell of it.
    pub(crate) const fn ends_at_gap(self) -> bool {
        matches!(self, Self::Raw)
    }

    /// The heartbeat.
    pub(crate) fn ping(self) -> Bytes {
        match self {
            Self::Centrifugo => Bytes::from_static(b"\x81\x02{}"),
            Self::Pusher => pusher::encode::ping(),
            Self::Raw => Bytes::from_static(b"\x89\x00"),
            Self::Sse => Bytes::from_static(b":\n\n"),
        }
    }

    /// Whether a heartbeat is to be answered.
    pub(crate) const fn wants_pong(self) -> bool {
        !matches!(self, Self::Sse)
    }

    /// The last frame of a session.
    pub(crate) fn farewell(self, why: Farewell) -> Bytes {
        match self {
            Self::Sse => sse::farewell(why),
            _ => ws::encode::close(Some(self.close_code(why))),
        }
    }

    /// The last frame of a session that ends with a code of its own.
    pub(crate) fn close(self, code: CloseCode) -> Bytes {
        match self {
            // An event stream has no codes: it ends, and says to people why.
            Self::Sse => sse::end(code.reason),
            _ => ws::encode::close(Some(code)),
        }
    }

    /// The close code. Which ones bring a client back, and how soon, each protocol says itself; Pusher's
    /// 4200 to 4299 would bring it back at once and for ever, so they are never used.
    const fn close_code(self, why: Farewell) -> CloseCode {
        match (self, why) {
            (Self::Pusher, Farewell::Disconnected) => CloseCode::new(4009, "disconnected by the server"),
            (Self::Pusher, Farewell::Expired) => CloseCode::new(4009, "expired"),
            (Self::Pusher, Farewell::NoPong) => CloseCode::new(4100, "no pong"),
            (Self::Pusher, Farewell::Shutdown) => CloseCode::new(4100, "shutdown"),
            (Self::Pusher, Farewell::Slow) => CloseCode::new(4100, "slow"),
            (Self::Pusher, Farewell::Stale) => CloseCode::new(4100, "stale"),
            (Self::Centrifugo, Farewell::Disconnected) => CloseCode::new(3503, "force disconnect"),
            (Self::Centrifugo, Farewell::Shutdown) => CloseCode::new(3001, "shutdown"),
            (_, Farewell::Disconnected) => CloseCode::new(1008, "disconnected by the server"),
            (_, Farewell::Expired) => CloseCode::new(3005, "connection expired"),
            (_, Farewell::NoPong) => CloseCode::new(3012, "no pong"),
            (_, Farewell::Shutdown) => CloseCode::new(1001, "shutdown"),
            (_, Farewell::Slow) => CloseCode::new(3008, "slow"),
            (_, Farewell::Stale) => CloseCode::new(3502, "stale"),
        }
    }
}
