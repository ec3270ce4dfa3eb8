//! Writes commands and frames as bytes.

use bytes::{BufMut, BytesMut};

use crate::frame::Frame;

/// Appends a command to `out`: an array of binary-safe strings, the name first. It allocates only when `out` has no room.
///
/// [`Command`](crate::Command) does the same and knows more; this is for those who have their arguments at hand.
///
/// ```
/// let mut out = bytes::BytesMut::new();
/// evenkeel_protocol::encode_command(&[b"SET", b"key", b"value"], &mut out);
/// assert_eq!(&out[..], b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n");
/// ```
pub fn encode_command(args: &[&[u8]], out: &mut BytesMut) {
    // A header takes at most a marker, 20 digits and a line end.
    let room = args.iter().map(|arg| arg.len().saturating_add(MAX_HEAD + 2)).sum::<usize>();
    out.reserve(room.saturating_add(MAX_HEAD));
    put_head(out, b'*', args.len());
    for arg in args {
        put_head(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Bytes of the longest header.
const MAX_HEAD: usize = 23;

/// Writes `$3\r\n`, short counts without arithmetic.
#[inline]
pub(crate) fn put_head(out: &mut BytesMut, marker: u8, count: usize) {
    if count < 10 {
        out.extend_from_slice(&[marker, b'0' | count as u8, b'\r', b'\n']);
    } else {
        put_long_head(out, marker, count);
    }
}

fn put_long_head(out: &mut BytesMut, marker: u8, count: usize) {
    if count < 100 {
        out.extend_from_slice(&[marker, b'0' | (count / 10) as u8, b'0' | (count % 10) as u8, b'\r', b'\n']);
    } else {
        out.put_u8(marker);
        out.put_slice(itoa::Buffer::new().format(count).as_bytes());
        out.put_slice(b"\r\n");
    }
}

/// Appends `frame` in RESP3, exactly as [`Frame::parse`] reads it.
///
/// Servers and recorders need it; a client sends [`Command`](crate::Command)s. Nesting costs no stack.
pub fn encode_frame(frame: &Frame, out: &mut BytesMut) {
    let mut work: Vec<&Frame> = vec![frame];
    while let Some(frame) = work.pop() {
        let mut digits = itoa::Buffer::new();
        let mut head = |marker: u8, count: usize| {
            out.put_u8(marker);
            out.put_slice(digits.format(count).as_bytes());
            out.put_slice(b"\r\n");
        };
        match frame {
            Frame::Array(list) => {
                head(b'*', list.len());
                work.extend(list.iter().rev());
            }
            Frame::Set(list) => {
                head(b'~', list.len());
                work.extend(list.iter().rev());
            }
            Frame::Push(list) => {
                head(b'>', list.len());
                work.extend(list.iter().rev());
            }
            Frame::Map(list) => {
                head(b'%', list.len() / 2);
                work.extend(list.iter().rev());
            }
            Frame::Attributed(pairs, value) => {
                head(b'|', pairs.len() / 2);
                work.push(value);
                work.extend(pairs.iter().rev());
            }
            Frame::Verbatim(format, text) => {
                head(b'=', text.len().saturating_add(4));
                out.put_slice(format);
                out.put_u8(b':');
                out.put_slice(text);
                out.put_slice(b"\r\n");
            }
            Frame::Error(error) => {
                let text = error.to_string();
                if is_line(text.as_bytes()) {
                    line(out, b'-', text.as_bytes());
                } else {
                    head(b'!', text.len());
                    out.put_slice(text.as_bytes());
                    out.put_slice(b"\r\n");
                }
            }
            Frame::Simple(text) if is_line(text) => line(out, b'+', text),
            // A status of more lines than one would be read as more replies than one.
            Frame::Blob(text) | Frame::Simple(text) => {
                head(b'$', text.len());
                out.put_slice(text);
                out.put_slice(b"\r\n");
            }
            Frame::BigNumber(text) => line(out, b'(', text),
            Frame::Integer(number) => {
                let mut digits = itoa::Buffer::new();
                line(out, b':', digits.format(*number).as_bytes());
            }
            Frame::Double(number) => line(out, b',', double_text(*number).as_bytes()),
            Frame::Boolean(value) => line(out, b'#', if *value { b"t" } else { b"f" }),
            Frame::Null => line(out, b'_', b""),
        }
    }
}

/// Whether text fits on a line.
fn is_line(text: &[u8]) -> bool {
    memchr::memchr(b'\n', text).is_none()
}

fn line(out: &mut BytesMut, marker: u8, text: &[u8]) {
    out.put_u8(marker);
    out.put_slice(text);
    out.put_slice(b"\r\n");
}

/// The shortest text that reads back as the same number.
fn double_text(number: f64) -> String {
    if number.is_nan() {
        "nan".to_owned()
    } else if number == f64::INFINITY {
        "inf".to_owned()
    } else if number == f64::NEG_INFINITY {
        "-inf".to_owned()
    } else {
        number.to_string()
    }
}
