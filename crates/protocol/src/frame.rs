//! `Frame`: one RESP value as an owned tree over shared bytes, for those who want to look.

use std::{fmt, mem, ops::Deref};

use bytes::Bytes;

use crate::{error::ParseError, limits::Limits, parse, scan::Scanner, server_error::ServerError};

/// One RESP value.
///
/// Streamed strings and aggregates are put together. `Debug` shows kinds and sizes, never contents.
///
/// ```
/// use evenkeel_protocol::{Frame, Limits};
/// let frame = Frame::parse(&b"*2\r\n:1\r\n$2\r\nhi\r\n"[..].into(), &Limits::default()).unwrap();
/// assert_eq!(frame.elements().unwrap()[1].as_bytes(), Some(&b"hi"[..]));
/// ```
#[non_exhaustive]
#[derive(Clone, PartialEq)]
pub enum Frame {
    /// An array (`*`).
    Array(Frames),
    /// A value with attributes (`|`) in front: first the pairs, then the value.
    Attributed(Frames, Box<Self>),
    /// A number beyond 64 bits (`(`), as its digits.
    BigNumber(Bytes),
    /// A binary-safe string (`$`).
    Blob(Bytes),
    /// A boolean (`#`).
    Boolean(bool),
    /// A floating point number (`,`).
    Double(f64),
    /// An error (`-` or `!`).
    Error(ServerError),
    /// A 64-bit number (`:`).
    Integer(i64),
    /// A map (`%`): key, value, key, value.
    Map(Frames),
    /// Nothing (`_`, `$-1` or `*-1`).
    Null,
    /// An out-of-band push (`>`).
    Push(Frames),
    /// A set (`~`).
    Set(Frames),
    /// A line of text (`+`).
    Simple(Bytes),
    /// Text with a format of three letters (`=`): `txt`, `mkd`.
    Verbatim([u8; 3], Bytes),
}

impl Frame {
    /// Parses exactly one whole frame; strings share `bytes`.
    ///
    /// # Errors
    /// Bytes that are no frame, not whole, more than one, or over a limit.
    pub fn parse(bytes: &Bytes, limits: &Limits) -> Result<Self, ParseError> {
        let found = Scanner::new(*limits).scan(bytes)?.ok_or(ParseError::Incomplete)?;
        if found.len != bytes.len() {
            return Err(ParseError::Trailing { extra: bytes.len().saturating_sub(found.len) });
        }
        parse::whole(bytes)
    }

    /// The elements of an array, map, set or push.
    pub fn elements(&self) -> Option<&[Self]> {
        match self {
            Self::Array(list) | Self::Map(list) | Self::Push(list) | Self::Set(list) => Some(list),
            Self::Attributed(_, value) => value.elements(),
            _ => None,
        }
    }

    /// The bytes of a string of any kind.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text) | Self::Blob(text) | Self::BigNumber(text) | Self::Verbatim(_, text) => {
                Some(text)
            }
            Self::Attributed(_, value) => value.as_bytes(),
            _ => None,
        }
    }

    /// The text of a string of any kind, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// A number, also when the server sent it as text.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Attributed(_, value) => value.as_integer(),
            other => other.as_str()?.parse().ok(),
        }
    }

    /// The value of `key` in a map, or in an array of pairs as RESP2 sends maps.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.elements()?.chunks_exact(2).find_map(|pair| match pair {
            [name, value] if name.as_bytes() == Some(key.as_bytes()) => Some(value),
            _ => None,
        })
    }

    fn take_children(&mut self) -> Vec<Self> {
        match self {
            Self::Array(list) | Self::Map(list) | Self::Push(list) | Self::Set(list) => {
                mem::take(&mut list.0)
            }
            Self::Attributed(pairs, value) => {
                let mut children = mem::take(&mut pairs.0);
                children.push(mem::replace(value, Self::Null));
                children
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Array(list) => write!(f, "Array({})", list.len()),
            Self::Attributed(..) => f.write_str("Attributed"),
            Self::BigNumber(digits) => write!(f, "BigNumber({} digits)", digits.len()),
            Self::Blob(text) => write!(f, "Blob({} bytes)", text.len()),
            Self::Boolean(_) => f.write_str("Boolean"),
            Self::Double(_) => f.write_str("Double"),
            Self::Error(error) => write!(f, "Error({})", error.code()),
            Self::Integer(_) => f.write_str("Integer"),
            Self::Map(list) => write!(f, "Map({})", list.len() / 2),
            Self::Null => f.write_str("Null"),
            Self::Push(list) => write!(f, "Push({})", list.len()),
            Self::Set(list) => write!(f, "Set({})", list.len()),
            Self::Simple(text) => write!(f, "Simple({} bytes)", text.len()),
            Self::Verbatim(_, text) => write!(f, "Verbatim({} bytes)", text.len()),
        }
    }
}

/// The elements of an aggregate; a slice of frames whose drop does not recurse.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frames(Vec<Frame>);

impl From<Vec<Frame>> for Frames {
    fn from(list: Vec<Frame>) -> Self {
        Self(list)
    }
}

impl Deref for Frames {
    type Target = [Frame];

    fn deref(&self) -> &[Frame] {
        &self.0
    }
}

impl IntoIterator for Frames {
    type Item = Frame;
    type IntoIter = std::vec::IntoIter<Frame>;

    fn into_iter(mut self) -> Self::IntoIter {
        mem::take(&mut self.0).into_iter()
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let mut work: Vec<Vec<Frame>> = Vec::new();
        let mut current = mem::take(&mut self.0);
        loop {
            for mut frame in current.drain(..) {
                let children = frame.take_children();
                if !children.is_empty() {
                    work.push(children);
                }
            }
            match work.pop() {
                Some(next) => current = next,
                None => return,
            }
        }
    }
}
