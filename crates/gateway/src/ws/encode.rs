//! Server frames: never masked, never fragmented.

use super::Opcode;
use super::close::CloseCode;
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of the longest server frame header.
const MAX_HEADER: usize = 10;

/// Appends the header of a whole frame with `len` payload bytes.
pub(crate) fn put_header(out: &mut BytesMut, opcode: Opcode, len: usize) {
    put_header_with(out, opcode, len, false);
}

/// Appends the header of a whole frame whose payload may be compressed.
pub(super) fn put_header_with(out: &mut BytesMut, opcode: Opcode, len: usize, compressed: bool) {
    out.put_u8(0x80 | if compressed { 0x40 } else { 0 } | opcode.bits());
    match len {
        0..=125 => out.put_u8(len as u8),
        126..=0xFFFF => {
            out.put_u8(126);
            out.put_u16(len as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
}

/// Encodes one whole frame.
pub(crate) fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(MAX_HEADER + payload.len());
    put_header(&mut out, opcode, payload.len());
    out.put_slice(payload);
    out.freeze()
}

/// Encodes a text frame.
pub(crate) fn text(payload: &[u8]) -> Bytes {
    frame(Opcode::Text, payload)
}

/// Encodes a close frame; an unset `close` gives one without a body.
pub(crate) fn close(close: Option<CloseCode>) -> Bytes {
    let Some(close) = close else { return frame(Opcode::Close, &[]) };
    close_with(close.code, close.reason)
}

/// Encodes a close frame with a reason of at most 123 bytes.
pub(crate) fn close_with(code: u16, reason: &str) -> Bytes {
    let mut body = Vec::with_capacity(2 + reason.len());
    body.extend_from_slice(&code.to_be_bytes());
    body.extend_from_slice(reason.as_bytes());
    frame(Opcode::Close, &body)
}

#[cfg(test)]
mod tests {
    use super::{CloseCode, Opcode, close, frame};

    #[test]
    fn each_length_takes_its_shortest_form() {
        for (len, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 255, 255]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let encoded = frame(Opcode::Binary, &vec![7; len]);
            assert_eq!(&encoded[..header.len()], header);
            assert_eq!(encoded.len(), header.len() + len);
        }
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        assert_eq!(&close(Some(CloseCode::new(3008, "slow")))[..], b"\x88\x06\x0b\xc0slow");
        assert_eq!(&close(None)[..], b"\x88\x00");
    }
}
