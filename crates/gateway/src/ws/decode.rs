//! Client frames: a decoder that takes bytes as they come and keeps nothing while it waits for a new frame.
//!
//! A frame that lies whole in the input is unmasked in place and handed out by reference; anything else goes
//! through a boxed [`Partial`], which is dropped when its message is complete. Text is checked as it arrives, so
//! a bad byte ends the connection before the rest of its message is read.

#![expect(clippy::mut_mut, reason = "a cursor over bytes that are unmasked in place is a `&mut &mut [u8]`")]

use super::Opcode;
use super::close::{Violation, may_be_received};
use super::deflate;
use super::mask::unmask;
use std::borrow::Cow;
use std::mem;

/// Longest payload of a control frame.
const MAX_CONTROL: u64 = 125;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    Binary(Cow<'a, [u8]>),
    /// A close frame with its code, if it had one.
    Close(Option<u16>),
    Ping(Cow<'a, [u8]>),
    Pong,
    Text(Cow<'a, str>),
}

/// Turns the bytes of one client into [`Event`]s.
#[derive(Debug)]
pub(crate) struct Decoder {
    max_message: u32,
    /// Whether messages may come compressed.
    deflate: bool,
    partial: Option<Box<Partial>>,
}

/// A frame header, read and checked.
#[derive(Clone, Copy, Debug)]
struct Header {
    fin: bool,
    compressed: bool,
    opcode: Opcode,
    mask: [u8; 4],
    len: u64,
}

/// What is held between two reads.
///
/// ```text
/// (nothing) --header cut--> head --complete--> frame --payload complete--> message open? --last fragment--> (nothing)
///                            ^                                                |
///                            +------------------next fragment-----------------+
/// ```
#[derive(Debug, Default)]
struct Partial {
    head: Vec<u8>,
    frame: Option<Open>,
    control: Vec<u8>,
    message: Option<Message>,
}

/// A frame whose payload is still coming.
#[derive(Clone, Copy, Debug)]
struct Open {
    header: Header,
    seen: u64,
}

/// A data message whose last fragment is still to come.
#[derive(Debug)]
struct Message {
    text: bool,
    compressed: bool,
    data: Vec<u8>,
    /// Bytes of `data` known to be valid UTF-8.
    valid: usize,
}

impl Decoder {
    /// Makes a decoder that refuses messages of more than `max_message` bytes.
    pub(crate) const fn new(max_message: u32) -> Self {
        Self { max_message, deflate: false, partial: None }
    }

    /// Lets messages come compressed.
    pub(crate) const fn deflating(mut self, deflate: bool) -> Self {
        self.deflate = deflate;
        self
    }

    /// Takes bytes off the front of `input` up to the end of the next event.
    ///
    /// `None` means that all of `input` was taken and more is needed. After a violation the decoder is of no
    /// further use.
    pub(crate) fn decode<'a, 'i: 'a>(
        &mut self,
        input: &mut &'i mut [u8],
    ) -> Result<Option<Event<'a>>, Violation> {
        while !input.is_empty() {
            if self.partial.is_none() {
                if let Some((header, size)) = parse_header(input)? {
                    self.check(header, None)?;
                    let len = header.len as usize;
                    if header.fin && input.len() - size >= len {
                        let (head, rest) = mem::take(input).split_at_mut(size + len);
                        *input = rest;
                        let payload = &mut head[size..];
                        unmask(payload, header.mask, 0);
                        if header.compressed {
                            let whole = inflated(payload, self.max_message)?;
                            return whole_message(header.opcode == Opcode::Text, whole).map(Some);
                        }
                        return finish_in_place(header.opcode, payload).map(Some);
                    }
                }
                self.partial = Some(Box::default());
            }
            if let Some(event) = self.step(input)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// One move through the slow path: finishes a header, or takes payload.
    fn step<'a>(&mut self, input: &mut &mut [u8]) -> Result<Option<Event<'a>>, Violation> {
        let Some(partial) = self.partial.as_deref_mut() else { return Ok(None) };
        let Some(open) = &mut partial.frame else {
            let Some(byte) = take(input, 1).first().copied() else { return Ok(None) };
            partial.head.push(byte);
            let Some((header, _)) = parse_header(&partial.head)? else { return Ok(None) };
            partial.head.clear();
            partial.frame = Some(Open { header, seen: 0 });
            let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
            self.check(header, message)?;
            return self.end_of_frame();
        };
        let wanted = usize::try_from(open.header.len - open.seen).unwrap_or(usize::MAX);
        let piece = take(input, wanted);
        unmask(piece, open.header.mask, open.seen as usize);
        open.seen += piece.len() as u64;
        if open.header.opcode.is_control() {
            partial.control.extend_from_slice(piece);
        } else {
            let text = open.header.opcode == Opcode::Text;
            let compressed = open.header.compressed;
            let fresh = || Message { text, compressed, data: Vec::new(), valid: 0 };
            partial.message.get_or_insert_with(fresh).append(piece)?;
        }
        self.end_of_frame()
    }

    /// Gives the event of the frame in hand when its payload is complete.
    fn end_of_frame<'a>(&mut self) -> Result<Option<Event<'a>>, Violation> {
        let Some(partial) = self.partial.as_deref_mut() else { return Ok(None) };
        let Some(open) = partial.frame else { return Ok(None) };
        if open.seen < open.header.len {
            return Ok(None);
        }
        partial.frame = None;
        let event = if open.header.opcode.is_control() {
            Some(control(open.header.opcode, Cow::Owned(mem::take(&mut partial.control)))?)
        } else {
            let text = open.header.opcode == Opcode::Text;
            let compressed = open.header.compressed;
            let fresh = || Message { text, compressed, data: Vec::new(), valid: 0 };
            let message = partial.message.get_or_insert_with(fresh);
            message.text |= text;
            let max = self.max_message;
            let message = if open.header.fin { partial.message.take() } else { None };
            message.map(|message| message.finish(max)).transpose()?
        };
        if partial.message.is_none() && partial.head.is_empty() {
            self.partial = None;
        }
        Ok(event)
    }

    fn check(&self, header: Header, message: Option<&Message>) -> Result<(), Violation> {
        let begins = matches!(header.opcode, Opcode::Binary | Opcode::Text);
        if header.compressed && !(self.deflate && begins) {
            return Err(Violation::Reserved);
        }
        match header.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                if !header.fin || header.len > MAX_CONTROL {
                    return Err(Violation::BadControl);
                }
                return Ok(());
            }
            Opcode::Continuation if message.is_none() => return Err(Violation::Fragmentation),
            Opcode::Binary | Opcode::Text if message.is_some() => return Err(Violation::Fragmentation),
            Opcode::Binary | Opcode::Continuation | Opcode::Text => {}
        }
        let before = message.map_or(0, |message| message.data.len() as u64);
        if before.saturating_add(header.len) > u64::from(self.max_message) {
            return Err(Violation::TooBig);
        }
        Ok(())
    }

    /// Whether a frame or message has begun and not ended.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.partial.is_none()
    }
}

impl Message {
    fn append(&mut self, piece: &[u8]) -> Result<(), Violation> {
        self.data.extend_from_slice(piece);
        if !self.text || self.compressed {
            return Ok(());
        }
        match std::str::from_utf8(self.data.get(self.valid..).unwrap_or_default()) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) if error.error_len().is_some() => return Err(Violation::BadUtf8),
            // A character that is cut at the end of what has arrived.
            Err(error) => self.valid += error.valid_up_to(),
        }
        Ok(())
    }

    fn finish<'a>(self, max_message: u32) -> Result<Event<'a>, Violation> {
        let data = if self.compressed { inflated(&self.data, max_message)? } else { self.data };
        whole_message(self.text, data)
    }
}

fn whole_message<'a>(text: bool, data: Vec<u8>) -> Result<Event<'a>, Violation> {
    if !text {
        return Ok(Event::Binary(Cow::Owned(data)));
    }
    match String::from_utf8(data) {
        Ok(text) => Ok(Event::Text(Cow::Owned(text))),
        Err(_cut) => Err(Violation::BadUtf8),
    }
}

fn inflated(payload: &[u8], max_message: u32) -> Result<Vec<u8>, Violation> {
    deflate::inflate(payload, max_message as usize).map_err(|refused| match refused {
        deflate::Refused::Broken => Violation::BadDeflate,
        deflate::Refused::TooBig => Violation::TooBig,
    })
}

fn take<'i>(input: &mut &'i mut [u8], wanted: usize) -> &'i mut [u8] {
    let all = mem::take(input);
    let (piece, rest) = all.split_at_mut(wanted.min(all.len()));
    *input = rest;
    piece
}

/// Reads a header; `None` when `bytes` end within it.
fn parse_header(bytes: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
    let [first, second, rest @ ..] = bytes else { return first_byte(bytes) };
    let (fin, compressed, opcode) = flags(*first)?;
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    let (len, rest) = match (second & 0x7F, rest) {
        (126, [a, b, rest @ ..]) => (shortest(u64::from(u16::from_be_bytes([*a, *b])), 126)?, rest),
        (127, rest) => match rest.split_first_chunk::<8>() {
            Some((len, rest)) => (shortest(u64::from_be_bytes(*len), 0x1_0000)?, rest),
            None => return Ok(None),
        },
        (126, _) => return Ok(None),
        (short, rest) => (u64::from(short), rest),
    };
    let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let header = Header { fin, compressed, opcode, mask: *mask, len };
    Ok(Some((header, bytes.len() - rest.len())))
}

fn first_byte(bytes: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
    if let [first, ..] = bytes {
        flags(*first)?;
    }
    Ok(None)
}

fn flags(byte: u8) -> Result<(bool, bool, Opcode), Violation> {
    if byte & 0x30 != 0 {
        return Err(Violation::Reserved);
    }
    let opcode = Opcode::from_bits(byte & 0x0F).ok_or(Violation::Reserved)?;
    Ok((byte & 0x80 != 0, byte & 0x40 != 0, opcode))
}

fn shortest(len: u64, least: u64) -> Result<u64, Violation> {
    if len < least || len >> 63 != 0 { Err(Violation::BadLength) } else { Ok(len) }
}

fn finish_in_place(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match opcode {
        Opcode::Text => match std::str::from_utf8(payload) {
            Ok(text) => Ok(Event::Text(Cow::Borrowed(text))),
            Err(_at) => Err(Violation::BadUtf8),
        },
        Opcode::Binary => Ok(Event::Binary(Cow::Borrowed(payload))),
        _ => control(opcode, Cow::Borrowed(payload)),
    }
}

fn control(opcode: Opcode, payload: Cow<'_, [u8]>) -> Result<Event<'_>, Violation> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Close => close_body(&payload).map(Event::Close),
        // `check` lets no other opcode come here.
        _ => Ok(Event::Pong),
    }
}

fn close_body(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let [a, b, reason @ ..] = payload else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::BadClose) };
    };
    let code = u16::from_be_bytes([*a, *b]);
    if !may_be_received(code) {
        return Err(Violation::BadClose);
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_at) => Err(Violation::BadUtf8),
    }
}
