//! permessage-deflate (RFC 7692), server side, without context takeover either way.
//!
//! Without takeover every message is compressed by itself: a publication is compressed once and shared by all sessions
//! that agreed to it, and no session holds a window while it is idle. What is inflated is bounded as it grows.

use super::Opcode;
use super::encode::put_header_with;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::RefCell;

/// What every compressed message ends with before it is sent, and what is put back before it is inflated.
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// Payloads below this many bytes are not worth it.
const LEAST: usize = 128;
const CHUNK: usize = 8 * 1024;

thread_local! {
    static DEFLATE: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
    static INFLATE: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Why a message cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Broken,
    TooBig,
}

/// What was agreed with a client: neither side remembers one message for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// The window, as a power of two, beyond which the client cannot look back; `None` when it did not say.
    window: Option<u8>,
}

impl Agreed {
    /// The header's value that agrees.
    pub(crate) fn header(self) -> String {
        let window = self.window.map_or_else(String::new, |bits| format!("; server_max_window_bits={bits}"));
        format!("permessage-deflate; server_no_context_takeover; client_no_context_takeover{window}")
    }

    /// Whether a frame of `len` bytes may go out compressed.
    ///
    /// Compressed is one form for everybody, with the full window. A message that fits into a smaller one refers to nothing
    /// outside of it all the same; a longer one goes out as it is, which the protocol allows for every message.
    pub(crate) fn covers(self, len: usize) -> bool {
        self.window.is_none_or(|bits| len <= 1 << bits)
    }
}

/// The first of the offers of `Sec-WebSocket-Extensions` that can be agreed to.
pub(crate) fn agree(offers: &str) -> Option<Agreed> {
    offers.split(',').find_map(acceptable)
}

fn acceptable(offer: &str) -> Option<Agreed> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut agreed = Agreed { window: None };
    let mut seen: Vec<&str> = Vec::new();
    for part in parts {
        let (name, value) = part
            .split_once('=')
            .map_or((part, None), |(name, value)| (name.trim(), Some(value.trim().trim_matches('"'))));
        match name {
            "client_no_context_takeover" | "server_no_context_takeover" if value.is_none() => {}
            // Any window of the client can be read.
            "client_max_window_bits" if value.is_none_or(|bits| window(bits).is_some()) => {}
            "server_max_window_bits" => agreed.window = Some(window(value?)?),
            _ => return None,
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(agreed)
}

/// A window between 8 and 15 bits, written as the standard wants it: without zeros or signs before it.
fn window(bits: &str) -> Option<u8> {
    (8..=15).find(|known: &u8| known.to_string() == bits)
}

/// The compressed form of a whole text frame without compression; `None` when it would not be smaller.
pub(crate) fn compressed(frame: &[u8]) -> Option<Bytes> {
    let payload = match frame {
        [0x81, len @ 0..=125, payload @ ..] if payload.len() == usize::from(*len) => payload,
        [0x81, 126, _, _, payload @ ..] | [0x81, 127, _, _, _, _, _, _, _, _, payload @ ..] => payload,
        _ => return None,
    };
    if payload.len() < LEAST {
        return None;
    }
    let deflated = deflate(payload)?;
    if deflated.len() >= payload.len() {
        return None;
    }
    let mut out = BytesMut::with_capacity(10 + deflated.len());
    put_header_with(&mut out, Opcode::Text, deflated.len(), true);
    out.put_slice(&deflated);
    Some(out.freeze())
}

fn deflate(payload: &[u8]) -> Option<Vec<u8>> {
    DEFLATE.with_borrow_mut(|machine| {
        machine.reset();
        let mut out = Vec::with_capacity(payload.len() / 2 + 64);
        loop {
            let read = usize::try_from(machine.total_in()).ok()?;
            let room = out.capacity() - out.len();
            if room < 64 {
                out.reserve(CHUNK);
            }
            machine.compress_vec(payload.get(read..)?, &mut out, FlushCompress::Sync).ok()?;
            let done = machine.total_in() == payload.len() as u64;
            if done && out.ends_with(&TAIL) && out.len() < out.capacity() {
                out.truncate(out.len() - TAIL.len());
                return Some(out);
            }
        }
    })
}

/// Inflates one whole message to at most `most` bytes.
pub(crate) fn inflate(payload: &[u8], most: usize) -> Result<Vec<u8>, Refused> {
    INFLATE.with_borrow_mut(|machine| {
        machine.reset(false);
        let mut out = Vec::with_capacity(CHUNK.min(most + 1));
        for piece in [payload, &TAIL] {
            let mut rest = piece;
            loop {
                if out.len() == out.capacity() {
                    if out.len() > most {
                        return Err(Refused::TooBig);
                    }
                    out.reserve_exact(CHUNK.max(out.len()).min(most + 1 - out.len()));
                }
                let (read, written) = (machine.total_in(), machine.total_out());
                let status = machine
                    .decompress_vec(rest, &mut out, FlushDecompress::None)
                    .map_err(|_broken| Refused::Broken)?;
                let taken = usize::try_from(machine.total_in() - read).unwrap_or(rest.len());
                rest = rest.get(taken..).unwrap_or_default();
                if out.len() > most {
                    return Err(Refused::TooBig);
                }
                if status == Status::StreamEnd {
                    // A client may end its stream; what it says of the message after that is nothing.
                    return Ok(out);
                }
                if rest.is_empty() && out.len() < out.capacity() {
                    break;
                }
                if taken == 0 && machine.total_out() == written && out.len() < out.capacity() {
                    return Err(Refused::Broken);
                }
            }
        }
        Ok(out)
    })
}

#[cfg(test)]
mod tests {
    use super::{Agreed, LEAST, Refused, agree, compressed, deflate, inflate};
    use crate::ws::encode;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_rfc_7692_inflate() {
        // Section 7.2.3: one block, with and without compression, and two blocks.
        for hello in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        ] {
            assert_eq!(inflate(hello, 5).unwrap(), b"Hello");
            assert_eq!(inflate(hello, 4), Err(Refused::TooBig));
        }
        assert_eq!(inflate(&[0x00], 9).unwrap(), b"", "an empty message");
        assert_eq!(inflate(&[0xff, 0xff, 0xff], 9), Err(Refused::Broken));
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let bomb = deflate(&vec![0; 8 << 20]).unwrap();
        assert!(bomb.len() < 64 * 1024);
        assert_eq!(inflate(&bomb, 65_536), Err(Refused::TooBig));
        assert_eq!(inflate(&bomb, 8 << 20).unwrap().len(), 8 << 20);
    }

    #[test]
    fn frames_are_compressed_when_it_pays() {
        let long = "abc ".repeat(1_000);
        let frame = compressed(&encode::text(long.as_bytes())).unwrap();
        assert_eq!(frame[0], 0xC1);
        assert_eq!(inflate(&frame[2..], 4_000).unwrap(), long.as_bytes());
        assert!(compressed(&encode::text(&[b'x'; LEAST - 1])).is_none());
        assert!(compressed(b"\x89\x00").is_none(), "no text frame");
    }

    #[test]
    fn offers() {
        const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for (offer, agreed) in [
            ("permessage-deflate", Some("")),
            ("permessage-deflate; client_max_window_bits", Some("")),
            ("permessage-deflate; client_max_window_bits=10; server_no_context_takeover", Some("")),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", Some("10")),
            ("permessage-deflate; server_max_window_bits=15", Some("15")),
            ("permessage-deflate; server_max_window_bits=\"8\"", Some("8")),
            ("permessage-deflate; server_max_window_bits=7, permessage-deflate", Some("")),
            ("x-webkit-deflate-frame", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=010", None),
            ("permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", None),
            ("permessage-deflate; client_max_window_bits=7", None),
            ("permessage-deflate; client_max_window_bits=+9", None),
            ("permessage-deflate; unheard_of", None),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", None),
            ("permessage-deflate; client_no_context_takeover=1", None),
            ("", None),
        ] {
            let expected = agreed.map(|bits| match bits {
                "" => PLAIN.to_owned(),
                bits => format!("{PLAIN}; server_max_window_bits={bits}"),
            });
            assert_eq!(agree(offer).map(Agreed::header), expected, "{offer}");
        }
    }

    #[test]
    fn a_small_window_covers_what_fits_into_it() {
        let agreed = agree("permessage-deflate; server_max_window_bits=9").unwrap();
        assert!(agreed.covers(512));
        assert!(!agreed.covers(513));
        assert!(agree("permessage-deflate").unwrap().covers(usize::MAX));
    }

    proptest! {
        #[test]
        fn whatever_is_deflated_inflates_to_itself(data in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            let deflated = deflate(&data).unwrap();
            prop_assert_eq!(inflate(&deflated, data.len()).unwrap(), data);
        }

        #[test]
        fn nothing_breaks_on_noise(noise in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            if let Ok(out) = inflate(&noise, 10_000) {
                prop_assert!(out.len() <= 10_000);
            }
        }
    }
}
