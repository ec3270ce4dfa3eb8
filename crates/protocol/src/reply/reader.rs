//! `Reader`: walks a reply event by event, straight over its bytes; it builds nothing.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use bytes::Bytes;

use super::Kind;
use crate::{
    error::{DecodeError, ParseError},
    frame::Frame,
    parse::{self, Header, short_length},
    server_error::ServerError,
};

/// One step through a reply. Attributes are passed over.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// An array, set or push opens, with its number of elements; `None` for the streamed form, which ends with [`Event::End`].
    List(Kind, Option<u64>),
    /// A map opens, with its number of pairs; `None` for the streamed form.
    Map(Option<u64>),
    /// A streamed aggregate ends.
    End,
    /// A string of any kind: status, blob, verbatim, big number.
    Text(Kind, Cow<'a, [u8]>),
    /// An error.
    Error(ServerError),
    /// A 64-bit number.
    Integer(i64),
    /// A floating point number.
    Double(f64),
    /// A boolean.
    Boolean(bool),
    /// Nothing.
    Null,
}

impl Event<'_> {
    /// The protocol's word for it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::List(kind, _) | Self::Text(kind, _) => *kind,
            Self::Map(_) => Kind::Map,
            Self::End => Kind::Unknown,
            Self::Error(_) => Kind::Error,
            Self::Integer(_) => Kind::Integer,
            Self::Double(_) => Kind::Double,
            Self::Boolean(_) => Kind::Boolean,
            Self::Null => Kind::Null,
        }
    }
}

/// How many elements of an aggregate are still to come.
#[derive(Clone, Copy, Debug)]
pub struct Items {
    left: Option<u64>,
}

impl Items {
    /// An aggregate without elements.
    #[cfg(feature = "serde")]
    pub(super) fn none() -> Self {
        Self { left: Some(0) }
    }

    /// How many are left, where the server has said so.
    pub fn known(&self) -> Option<u64> {
        self.left
    }
}

/// Reads a reply from its front. Copy it to look ahead.
///
/// ```
/// use evenkeel_protocol::{Event, Kind, Reply};
/// let reply = Reply::new((&b"*2\r\n:1\r\n:2\r\n"[..]).into());
/// let mut reader = reply.reader();
/// assert_eq!(reader.next().unwrap(), Event::List(Kind::Array, Some(2)));
/// assert_eq!(reader.next().unwrap(), Event::Integer(1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    all: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(all: &'a Bytes) -> Self {
        Self { all, rest: all }
    }

    fn malformed(&self, kind: &'static str) -> DecodeError {
        ParseError::Malformed { kind, at: self.all.len().saturating_sub(self.rest.len()) }.into()
    }

    /// The bytes from the value on, behind its attributes; empty where they are broken.
    pub(super) fn value_front(mut self) -> &'a [u8] {
        self.skip_attributes().map_or(&[], |()| self.rest)
    }

    fn skip_attributes(&mut self) -> Result<(), DecodeError> {
        while self.rest.first() == Some(&b'|') {
            let pairs = self.open_attribute()?;
            self.skip_elements(pairs)?;
        }
        Ok(())
    }

    /// Takes the head of an attribute; gives the number of values in it.
    fn open_attribute(&mut self) -> Result<u64, DecodeError> {
        match parse::header(self.rest) {
            Ok((rest, Header::Aggregate(b'|', Some(count)))) => {
                self.rest = rest;
                Ok(count.saturating_mul(2))
            }
            _ => Err(self.malformed("attribute")),
        }
    }

    /// Takes the next step.
    ///
    /// # Errors
    /// The end of the reply, or bytes that are not RESP.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could not borrow the reply's bytes and be copied to look ahead"
    )]
    pub fn next(&mut self) -> Result<Event<'a>, DecodeError> {
        // The three kinds that fill most replies, without the general parser.
        match self.rest {
            [b'$', ..] => {
                if let Some(text) = self.blob() {
                    return Ok(Event::Text(Kind::Blob, Cow::Borrowed(text)));
                }
            }
            [b':', ..] => {
                if let Some(number) = self.short_integer() {
                    return Ok(Event::Integer(number));
                }
            }
            [b'|', ..] => self.skip_attributes()?,
            _ => {}
        }
        let (rest, header) = parse::header(self.rest).map_err(|_nom| self.malformed("element"))?;
        self.rest = rest;
        Ok(match header {
            Header::Aggregate(b'%', count) => Event::Map(count),
            Header::Aggregate(b'~', count) => Event::List(Kind::Set, count),
            Header::Aggregate(b'>', count) => Event::List(Kind::Push, count),
            Header::Aggregate(_, count) => Event::List(Kind::Array, count),
            Header::BigNumber(text) => Event::Text(Kind::BigNumber, Cow::Borrowed(text)),
            Header::Blob(text) => Event::Text(Kind::Blob, Cow::Borrowed(text)),
            Header::BlobError(text) | Header::SimpleError(text) => Event::Error(ServerError::parse(text)),
            Header::Boolean(value) => Event::Boolean(value),
            Header::Chunk(_) => return Err(self.malformed("chunk")),
            Header::Double(value) => Event::Double(value),
            Header::End => Event::End,
            Header::Integer(value) => Event::Integer(value),
            Header::Null => Event::Null,
            Header::Simple(text) => Event::Text(Kind::Simple, Cow::Borrowed(text)),
            Header::StreamedBlob => {
                let mut whole = Vec::new();
                loop {
                    match parse::header(self.rest) {
                        Ok((rest, Header::Chunk(chunk))) => {
                            self.rest = rest;
                            if chunk.is_empty() {
                                break;
                            }
                            whole.extend_from_slice(chunk);
                        }
                        _ => return Err(self.malformed("chunk")),
                    }
                }
                Event::Text(Kind::Blob, Cow::Owned(whole))
            }
            Header::Verbatim(_, text) => Event::Text(Kind::Verbatim, Cow::Borrowed(text)),
        })
    }

    /// Takes a blob string of announced length, which is what most replies are made of.
    #[inline]
    fn blob(&mut self) -> Option<&'a [u8]> {
        let (text, rest) = parse::blob(self.rest)?;
        self.rest = rest;
        Some(text)
    }

    /// Takes a number of at most 18 digits without a sign.
    fn short_integer(&mut self) -> Option<i64> {
        let [b':', rest @ ..] = self.rest else { return None };
        let (number, rest) = short_length(rest)?;
        self.rest = rest;
        i64::try_from(number).ok()
    }

    /// Looks at the next step without taking it.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn peek(&self) -> Result<Event<'a>, DecodeError> {
        let mut ahead = *self;
        ahead.next()
    }

    /// The kind of what comes next, [`Kind::Unknown`] at the end.
    pub fn peek_kind(&self) -> Kind {
        Kind::of(self.value_front())
    }

    /// Takes one whole value as its bytes, which share the reply's memory.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn take_value(&mut self) -> Result<Bytes, DecodeError> {
        let before = self.rest;
        self.skip()?;
        let taken = before.len().saturating_sub(self.rest.len());
        Ok(self.all.slice_ref(before.get(..taken).unwrap_or_default()))
    }

    /// Takes one whole value as a tree.
    pub(super) fn frame(&mut self) -> Result<Frame, DecodeError> {
        self.skip_attributes()?;
        let (frame, rest) = parse::front(self.all, self.rest)?;
        self.rest = rest;
        Ok(frame)
    }

    /// Takes a null if it comes next.
    #[inline]
    pub fn take_null(&mut self) -> bool {
        matches!(self.rest, [b'_' | b'|', ..] | [b'$' | b'*', b'-', ..]) && self.take_likely_null()
    }

    fn take_likely_null(&mut self) -> bool {
        let mut ahead = *self;
        let null = matches!(ahead.next(), Ok(Event::Null));
        if null {
            *self = ahead;
        }
        null
    }

    /// Passes over one whole value.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        self.skip_elements(1)
    }

    /// Passes over so many values, with a stack of its own: attributes inside attributes cannot exhaust the thread's.
    fn skip_elements(&mut self, count: u64) -> Result<(), DecodeError> {
        let mut open = vec![Some(count)];
        while let Some(left) = open.last_mut() {
            if *left == Some(0) {
                open.pop();
                continue;
            }
            // An attribute is no value of its own.
            if self.rest.first() == Some(&b'|') {
                let pairs = self.open_attribute()?;
                open.push(Some(pairs));
                continue;
            }
            if let Some(left) = left {
                *left = left.saturating_sub(1);
            }
            match self.next()? {
                Event::List(_, count) => open.push(count),
                Event::Map(count) => open.push(count.map(|count| count.saturating_mul(2))),
                Event::End => {
                    open.pop();
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens an array, set, push or map, a map as twice as many elements.
    ///
    /// # Errors
    /// Another kind comes, or the server's error.
    pub fn list(&mut self, expected: &'static str) -> Result<Items, DecodeError> {
        match self.next()? {
            Event::List(_, left) => Ok(Items { left }),
            Event::Map(pairs) => Ok(Items { left: pairs.map(|pairs| pairs.saturating_mul(2)) }),
            other => Err(mismatch(expected, other)),
        }
    }

    /// Opens a map, or an array of keys and values as RESP2 sends it; gives the number of pairs.
    ///
    /// # Errors
    /// Another kind comes, an odd number of elements, or the server's error.
    pub fn pairs(&mut self, expected: &'static str) -> Result<Items, DecodeError> {
        match self.next()? {
            Event::Map(left) => Ok(Items { left }),
            Event::List(_, left) => match left {
                Some(count) if !count.is_multiple_of(2) => {
                    Err(DecodeError::Value { expected, found: Kind::Array })
                }
                left => Ok(Items { left: left.map(|count| count / 2) }),
            },
            other => Err(mismatch(expected, other)),
        }
    }

    /// Whether another element (or pair) comes; counts it.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    #[inline]
    pub fn more(&mut self, items: &mut Items) -> Result<bool, DecodeError> {
        match &mut items.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left = left.saturating_sub(1);
                Ok(true)
            }
            None if self.rest.first() == Some(&b'.') => {
                self.next()?;
                items.left = Some(0);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// A number of elements that may be reserved for: what is announced, but no more than has arrived.
    pub fn room_for(&self, items: &Items) -> usize {
        let announced = items.left.and_then(|left| usize::try_from(left).ok()).unwrap_or(0);
        announced.min(self.rest.len() / 3)
    }

    /// Reads a string of any kind; numbers become their text.
    ///
    /// # Errors
    /// Another kind comes, or the server's error.
    #[inline]
    pub fn text(&mut self, expected: &'static str) -> Result<Cow<'a, [u8]>, DecodeError> {
        match self.blob() {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => self.other_text(expected),
        }
    }

    /// What is no string of announced length.
    fn other_text(&mut self, expected: &'static str) -> Result<Cow<'a, [u8]>, DecodeError> {
        match self.next()? {
            Event::Text(_, text) => Ok(text),
            Event::Integer(number) => Ok(Cow::Owned(number.to_string().into_bytes())),
            Event::Double(number) => Ok(Cow::Owned(number.to_string().into_bytes())),
            other => Err(mismatch(expected, other)),
        }
    }

    /// Reads a string as bytes that share the reply's memory where it is large.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn bytes(&mut self, expected: &'static str) -> Result<Bytes, DecodeError> {
        Ok(match self.text(expected)? {
            Cow::Borrowed(text) if text.len() >= SHARE_FROM => self.all.slice_ref(text),
            Cow::Borrowed(text) => Bytes::copy_from_slice(text),
            Cow::Owned(text) => text.into(),
        })
    }

    /// As [`bytes`](Self::bytes), for one of many: together they are most of the reply, so all share it when it is large.
    pub(super) fn bytes_of_list(&mut self, expected: &'static str) -> Result<Bytes, DecodeError> {
        if self.all.len() < SHARE_FROM {
            return self.bytes(expected);
        }
        Ok(match self.text(expected)? {
            Cow::Borrowed(text) => self.all.slice_ref(text),
            Cow::Owned(text) => text.into(),
        })
    }

    /// Reads a whole number, also one sent as text.
    ///
    /// # Errors
    /// Another kind comes, text that is no number, or the server's error.
    pub fn integer(&mut self, expected: &'static str) -> Result<i64, DecodeError> {
        if let Some(number) = self.short_integer() {
            return Ok(number);
        }
        match self.next()? {
            Event::Integer(number) => Ok(number),
            Event::Boolean(value) => Ok(i64::from(value)),
            Event::Text(found, text) => parse::integer(&text).ok_or(DecodeError::Value { expected, found }),
            other => Err(mismatch(expected, other)),
        }
    }

    /// Reads a number, also one sent as text.
    ///
    /// # Errors
    /// Another kind comes, text that is no number, or the server's error.
    pub fn double(&mut self, expected: &'static str) -> Result<f64, DecodeError> {
        match self.next()? {
            Event::Double(number) => Ok(number),
            #[expect(
                clippy::cast_precision_loss,
                reason = "a caller that asks for a double accepts its precision"
            )]
            Event::Integer(number) => Ok(number as f64),
            Event::Text(found, text) => parse::double(&text).ok_or(DecodeError::Value { expected, found }),
            other => Err(mismatch(expected, other)),
        }
    }
}

/// A slice keeps the whole buffer alive; below this a copy is cheaper than what it would pin.
const SHARE_FROM: usize = 4096;

/// The error for an event that is not what a type needs.
pub(super) fn mismatch(expected: &'static str, event: Event<'_>) -> DecodeError {
    match event {
        Event::Error(error) => DecodeError::Server(error),
        other => DecodeError::Kind { expected, found: other.kind() },
    }
}
