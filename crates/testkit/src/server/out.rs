//! Writes replies in RESP2 or RESP3, each as real servers send it.

use bytes::{BufMut, BytesMut};
use evenkeel_protocol::Frame;

/// The protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proto {
    Resp2,
    Resp3,
}

/// Replies on their way to one connection.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) buf: BytesMut,
    pub(super) proto: Proto,
}

impl Out {
    pub(super) fn new(proto: Proto) -> Self {
        Self { buf: BytesMut::new(), proto }
    }

    fn resp3(&self) -> bool {
        self.proto == Proto::Resp3
    }

    fn line(&mut self, marker: u8, text: &[u8]) {
        self.buf.reserve(text.len() + 3);
        self.buf.put_u8(marker);
        self.buf.put_slice(text);
        self.buf.put_slice(b"\r\n");
    }

    fn head(&mut self, marker: u8, count: usize) {
        self.line(marker, itoa::Buffer::new().format(count).as_bytes());
    }

    pub(super) fn ok(&mut self) {
        self.buf.put_slice(b"+OK\r\n");
    }

    pub(super) fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error; line ends inside it become spaces, as real servers make them.
    pub(super) fn error(&mut self, text: &str) {
        if text.bytes().any(|byte| byte == b'\r' || byte == b'\n') {
            self.line(b'-', text.replace(['\r', '\n'], " ").as_bytes());
        } else {
            self.line(b'-', text.as_bytes());
        }
    }

    pub(super) fn integer(&mut self, value: i64) {
        self.line(b':', itoa::Buffer::new().format(value).as_bytes());
    }

    pub(super) fn count(&mut self, value: usize) {
        self.head(b':', value);
    }

    pub(super) fn bulk(&mut self, text: &[u8]) {
        self.buf.reserve(text.len() + 16);
        self.head(b'$', text.len());
        self.buf.put_slice(text);
        self.buf.put_slice(b"\r\n");
    }

    pub(super) fn bulk_or_null(&mut self, text: Option<&[u8]>) {
        match text {
            Some(text) => self.bulk(text),
            None => self.null(),
        }
    }

    /// Text for people: verbatim in RESP3.
    pub(super) fn verbatim(&mut self, text: &str) {
        if self.resp3() {
            self.head(b'=', text.len() + 4);
            self.buf.put_slice(b"txt:");
            self.buf.put_slice(text.as_bytes());
            self.buf.put_slice(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }

    pub(super) fn null(&mut self) {
        self.buf.put_slice(if self.resp3() { b"_\r\n" } else { b"$-1\r\n" });
    }

    pub(super) fn null_array(&mut self) {
        self.buf.put_slice(if self.resp3() { b"_\r\n" } else { b"*-1\r\n" });
    }

    pub(super) fn array(&mut self, length: usize) {
        self.head(b'*', length);
    }

    pub(super) fn map(&mut self, pairs: usize) {
        if self.resp3() {
            self.head(b'%', pairs);
        } else {
            self.head(b'*', pairs * 2);
        }
    }

    pub(super) fn set(&mut self, length: usize) {
        self.head(if self.resp3() { b'~' } else { b'*' }, length);
    }

    pub(super) fn push(&mut self, length: usize) {
        self.head(if self.resp3() { b'>' } else { b'*' }, length);
    }

    pub(super) fn double(&mut self, value: f64) {
        let text = double_text(value);
        if self.resp3() {
            self.line(b',', text.as_bytes());
        } else {
            self.bulk(text.as_bytes());
        }
    }

    pub(super) fn boolean(&mut self, value: bool) {
        if self.resp3() {
            self.buf.put_slice(if value { b"#t\r\n" } else { b"#f\r\n" });
        } else {
            self.integer(i64::from(value));
        }
    }

    /// A value that a script made, in the form of this connection's protocol.
    pub(super) fn frame(&mut self, frame: &Frame) {
        match frame {
            Frame::Array(list) => self.aggregate(list.len(), Self::array, list),
            Frame::Set(list) => self.aggregate(list.len(), Self::set, list),
            Frame::Push(list) => self.aggregate(list.len(), Self::push, list),
            Frame::Map(list) => self.aggregate(list.len() / 2, Self::map, list),
            Frame::Attributed(_, value) => self.frame(value),
            Frame::BigNumber(text) if self.resp3() => self.line(b'(', text),
            Frame::Blob(text) | Frame::BigNumber(text) => self.bulk(text),
            Frame::Verbatim(_, text) => self.verbatim(&String::from_utf8_lossy(text)),
            Frame::Error(error) => self.error(&error.to_string()),
            Frame::Simple(text) => self.line(b'+', text),
            Frame::Integer(value) => self.integer(*value),
            Frame::Double(value) => self.double(*value),
            Frame::Boolean(value) => self.boolean(*value),
            // `Null`, and whatever kind the protocol crate may add.
            _ => self.null(),
        }
    }

    fn aggregate(&mut self, length: usize, open: fn(&mut Self, usize), list: &[Frame]) {
        open(self, length);
        for frame in list {
            self.frame(frame);
        }
    }
}

/// A double as servers write it: the shortest digits that read back the same, with an exponent beyond 17 digits.
pub(super) fn double_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-5..17).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_own_forms() {
        let write = |proto| {
            let mut out = Out::new(proto);
            out.null();
            out.null_array();
            out.map(1);
            out.set(2);
            out.double(1.5);
            out.verbatim("a");
            out.boolean(true);
            String::from_utf8(out.buf.to_vec()).unwrap()
        };
        assert_eq!(write(Proto::Resp2), "$-1\r\n*-1\r\n*2\r\n*2\r\n$3\r\n1.5\r\n$1\r\na\r\n:1\r\n");
        assert_eq!(write(Proto::Resp3), "_\r\n_\r\n%1\r\n~2\r\n,1.5\r\n=5\r\ntxt:a\r\n#t\r\n");
    }

    #[test]
    fn doubles_read_as_servers_write_them() {
        for (value, text) in [
            (3.0, "3"),
            (-0.5, "-0.5"),
            (1e16, "10000000000000000"),
            (1e20, "1e+20"),
            (1.5e-7, "1.5e-07"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(double_text(value), text);
        }
    }
}
