//! `Reply`: the shared bytes of one whole frame, turned into a type by whoever awaits it.
//!
//! The I/O task only delimits. The caller's task reads straight from the bytes: no tree stands between HGETALL and a map.

#[cfg(feature = "serde")]
mod de;
mod from_reply;
mod reader;

use std::fmt;

use bytes::Bytes;

#[cfg(feature = "serde")]
pub use de::Serde;
pub use from_reply::FromReply;
pub use reader::{Event, Items, Reader};

use crate::{
    error::{DecodeError, ParseError},
    frame::Frame,
    limits::Limits,
    parse,
    server_error::ServerError,
};

/// One whole reply, not yet looked into. Cheap to clone; `Debug` shows its kind and size only.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply(Bytes);

impl Reply {
    /// Wraps the bytes of exactly one whole frame, as a [`Scanner`](crate::Scanner) delimits it.
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes as they came.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The kind of the outermost value, attributes aside.
    pub fn kind(&self) -> Kind {
        Kind::of(self.reader().value_front())
    }

    /// The server's error, when the reply is one.
    #[inline]
    pub fn error(&self) -> Option<ServerError> {
        match self.0.first() {
            Some(b'-' | b'!' | b'|') => self.likely_error(),
            _ => None,
        }
    }

    fn likely_error(&self) -> Option<ServerError> {
        match self.reader().next() {
            Ok(Event::Error(error)) => Some(error),
            _ => None,
        }
    }

    /// A reader at the front of the reply.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&self.0)
    }

    /// Turns the reply into a `T`, straight from its bytes.
    ///
    /// # Errors
    /// A reply of another kind, a value that does not fit, or an error of the server.
    pub fn decode<T: FromReply>(&self) -> Result<T, DecodeError> {
        let mut reader = self.reader();
        T::from_reply(&mut reader)
    }

    /// The reply as a tree, for looking at.
    ///
    /// # Errors
    /// Bytes that are not exactly one whole frame.
    pub fn frame(&self) -> Result<Frame, ParseError> {
        // The bytes came from a scanner, whose limits held already.
        parse::whole(&self.0)
    }

    /// As [`frame`](Self::frame), for bytes that no scanner has seen.
    ///
    /// # Errors
    /// Bytes that are not exactly one whole frame, or are over a limit.
    pub fn checked_frame(&self, limits: &Limits) -> Result<Frame, ParseError> {
        Frame::parse(&self.0, limits)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({}, {} bytes)", self.kind(), self.0.len())
    }
}

/// What a reply is, in the protocol's words.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `*`
    Array,
    /// `(`
    BigNumber,
    /// `$`
    Blob,
    /// `#`
    Boolean,
    /// `,`
    Double,
    /// `-` or `!`
    Error,
    /// `:`
    Integer,
    /// `%`
    Map,
    /// `_`, `$-1` or `*-1`
    Null,
    /// `>`
    Push,
    /// `~`
    Set,
    /// `+`
    Simple,
    /// Not RESP.
    Unknown,
    /// `=`
    Verbatim,
}

impl Kind {
    /// The kind of the value at the front of `bytes`.
    fn of(bytes: &[u8]) -> Self {
        match bytes.first().copied().unwrap_or_default() {
            b'*' if bytes.starts_with(b"*-1\r\n") => Self::Null,
            b'$' if bytes.starts_with(b"$-1\r\n") => Self::Null,
            b'*' => Self::Array,
            b'(' => Self::BigNumber,
            b'$' => Self::Blob,
            b'#' => Self::Boolean,
            b',' => Self::Double,
            b'-' | b'!' => Self::Error,
            b':' => Self::Integer,
            b'%' => Self::Map,
            b'_' => Self::Null,
            b'>' => Self::Push,
            b'~' => Self::Set,
            b'+' => Self::Simple,
            b'=' => Self::Verbatim,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Array => "array",
            Self::BigNumber => "big number",
            Self::Blob => "string",
            Self::Boolean => "boolean",
            Self::Double => "double",
            Self::Error => "error",
            Self::Integer => "integer",
            Self::Map => "map",
            Self::Null => "null",
            Self::Push => "push",
            Self::Set => "set",
            Self::Simple => "status",
            Self::Unknown => "unknown data",
            Self::Verbatim => "verbatim string",
        })
    }
}
