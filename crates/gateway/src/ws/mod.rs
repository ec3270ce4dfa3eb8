//! The server side of the WebSocket protocol (RFC 6455): handshake, frames, close codes.
//!
//! It knows neither sockets nor sessions: bytes in, events out, and frames encoded into shared [`bytes::Bytes`].
//! A decoder that waits for a new frame holds no buffer.

pub(crate) mod close;
pub(crate) mod decode;
pub(crate) mod deflate;
pub(crate) mod encode;
pub(crate) mod handshake;
mod mask;

#[cfg(test)]
mod cases;

/// The four bits that say what a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Binary,
    Close,
    Continuation,
    Ping,
    Pong,
    Text,
}

impl Opcode {
    /// Reads the low four bits of a frame's first byte; `None` for a reserved opcode.
    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xA => Some(Self::Pong),
            _ => None,
        }
    }

    pub(crate) const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    pub(crate) const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}
