//! Trees of frames, built with a stack of our own: input cannot exhaust the thread's.

use bytes::{Bytes, BytesMut};

use super::scalar::{Header, header};
use crate::{
    error::ParseError,
    frame::{Frame, Frames},
    server_error::ServerError,
};

/// An aggregate under construction.
struct Open {
    marker: u8,
    /// Elements still to come; `None` for the streamed form.
    left: Option<u64>,
    list: Vec<Frame>,
}

/// Parses bytes that are known to hold exactly one whole frame.
pub(crate) fn whole(bytes: &Bytes) -> Result<Frame, ParseError> {
    let (frame, rest) = front(bytes, bytes)?;
    if rest.is_empty() { Ok(frame) } else { Err(ParseError::Trailing { extra: rest.len() }) }
}

/// Parses the whole frame at the front of `input`, which is a part of `bytes`; gives what is behind.
pub(crate) fn front<'a>(bytes: &Bytes, input: &'a [u8]) -> Result<(Frame, &'a [u8]), ParseError> {
    let mut input = input;
    let mut open: Vec<Open> = Vec::new();
    let mut attributes = Attributes::default();
    loop {
        let at = bytes.len().saturating_sub(input.len());
        let (rest, found) = header(input).map_err(|_nom| ParseError::Malformed { kind: "element", at })?;
        input = rest;
        let mut done = match found {
            Header::Aggregate(marker, count) => {
                let left = match marker {
                    b'%' | b'|' => count.map(|count| count.saturating_mul(2)),
                    _ => count,
                };
                // The scanner has found as many elements as are announced, each of three bytes or more.
                let room = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(0).min(input.len() / 3);
                let level = Open { marker, left, list: Vec::with_capacity(room) };
                if left != Some(0) {
                    open.push(level);
                    continue;
                }
                close(level, at, &mut attributes, open.len())?
            }
            Header::End => match open.pop() {
                // An attribute describes a value: none may end here.
                Some(level) if level.left.is_none() && !attributes.wait_at(open.len().saturating_add(1)) => {
                    close(level, at, &mut attributes, open.len())?
                }
                _ => return Err(ParseError::Malformed { kind: "end of a stream", at }),
            },
            Header::StreamedBlob => {
                let mut text = BytesMut::new();
                loop {
                    let at = bytes.len().saturating_sub(input.len());
                    match header(input) {
                        Ok((rest, Header::Chunk(chunk))) => {
                            input = rest;
                            if chunk.is_empty() {
                                break;
                            }
                            text.extend_from_slice(chunk);
                        }
                        _ => return Err(ParseError::Malformed { kind: "chunk", at }),
                    }
                }
                Some(Frame::Blob(text.freeze()))
            }
            Header::Chunk(_) => return Err(ParseError::Malformed { kind: "chunk", at }),
            Header::BigNumber(text) => Some(Frame::BigNumber(bytes.slice_ref(text))),
            Header::Blob(text) => Some(Frame::Blob(bytes.slice_ref(text))),
            Header::BlobError(text) | Header::SimpleError(text) => {
                Some(Frame::Error(ServerError::parse(text)))
            }
            Header::Boolean(value) => Some(Frame::Boolean(value)),
            Header::Double(value) => Some(Frame::Double(value)),
            Header::Integer(value) => Some(Frame::Integer(value)),
            Header::Null => Some(Frame::Null),
            Header::Simple(text) => Some(Frame::Simple(bytes.slice_ref(text))),
            Header::Verbatim(format, text) => Some(Frame::Verbatim(format, bytes.slice_ref(text))),
        };
        // Hand the finished frame to the level above, which may finish with it.
        while let Some(frame) = done.take() {
            let frame = match attributes.take_at(open.len()) {
                Some(pairs) => Frame::Attributed(pairs, Box::new(frame)),
                None => frame,
            };
            let Some(level) = open.last_mut() else {
                return Ok((frame, input));
            };
            level.list.push(frame);
            if let Some(left) = level.left.as_mut() {
                *left = left.saturating_sub(1);
                if *left == 0
                    && let Some(level) = open.pop()
                {
                    done = close(level, at, &mut attributes, open.len())?;
                }
            }
        }
    }
}

/// Attributes that wait for their value, with the depth at which they stand.
#[derive(Default)]
struct Attributes(Vec<(usize, Vec<Frame>)>);

impl Attributes {
    fn put(&mut self, depth: usize, pairs: Vec<Frame>) {
        // An empty one behind another adds nothing.
        if !(pairs.is_empty() && self.wait_at(depth)) {
            self.0.push((depth, pairs));
        }
    }

    fn wait_at(&self, depth: usize) -> bool {
        self.0.last().is_some_and(|(known, _)| *known == depth)
    }

    /// The pairs of all attributes of one value, as one: a chain of them would be as deep as the peer likes.
    fn take_at(&mut self, depth: usize) -> Option<Frames> {
        if !self.wait_at(depth) {
            return None;
        }
        let first =
            self.0.iter().rposition(|(known, _)| *known != depth).map_or(0, |other| other.saturating_add(1));
        let mut parts = self.0.drain(first..);
        let one = parts.next().map(|(_, pairs)| pairs).unwrap_or_default();
        let more = parts.as_slice().iter().map(|(_, pairs)| pairs.len()).fold(0usize, usize::saturating_add);
        if more == 0 {
            return Some(Frames::from(one));
        }
        let mut all = Vec::with_capacity(one.len().saturating_add(more));
        all.extend(one);
        all.extend(parts.flat_map(|(_, pairs)| pairs));
        Some(Frames::from(all))
    }
}

/// Turns a finished level into a frame; an attribute waits for its value instead.
fn close(
    level: Open,
    at: usize,
    attributes: &mut Attributes,
    depth: usize,
) -> Result<Option<Frame>, ParseError> {
    let pairs = matches!(level.marker, b'%' | b'|');
    if pairs && !level.list.len().is_multiple_of(2) {
        return Err(ParseError::Malformed { kind: "map", at });
    }
    if level.marker == b'|' {
        attributes.put(depth, level.list);
        return Ok(None);
    }
    let mut list = level.list;
    if level.left.is_none() {
        // It announced no number, and has grown ahead of what came.
        list.shrink_to_fit();
    }
    let list = Frames::from(list);
    Ok(Some(match level.marker {
        b'%' => Frame::Map(list),
        b'~' => Frame::Set(list),
        b'>' => Frame::Push(list),
        _ => Frame::Array(list),
    }))
}
