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
/// The header that agrees: neither side remembers one message for the next.
pub(crate) const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

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

/// Whether one of the offers of `Sec-WebSocket-Extensions` can be agreed to with [`AGREED`].
pub(crate) fn acceptable(offers: &str) -> bool {
    offers.split(',').any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        if parts.next() != Some("permessage-deflate") {
            return false;
        }
        let mut seen: Vec<&str> = Vec::new();
        parts.all(|part| {
            let (name, value) = part
                .split_once('=')
                .map_or((part, None), |(name, value)| (name.trim(), Some(value.trim().trim_matches('"'))));
            let bits = value.and_then(|bits| bits.parse::<u8>().ok());
            let fits = match name {
                "client_no_context_takeover" | "server_no_context_takeover" => value.is_none(),
                // Any window of the client can be read; ours is always the full one.
                "client_max_window_bits" => {
                    value.is_none() || bits.is_some_and(|bits| (8..=15).contains(&bits))
                }
                "server_max_window_bits" => bits == Some(15),
                _ => false,
            };
            let twice = seen.contains(&name);
            seen.push(name);
            fits && !twice
        })
    })
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
    use super::{LEAST, Refused, acceptable, compressed, deflate, inflate};
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
        for (offer, good) in [
            ("permessage-deflate", true),
            ("permessage-deflate; client_max_window_bits", true),
            ("permessage-deflate; client_max_window_bits=10; server_no_context_takeover", true),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", true),
            ("permessage-deflate; server_max_window_bits=15", true),
            ("x-webkit-deflate-frame", false),
            ("permessage-deflate; server_max_window_bits=10", false),
            ("permessage-deflate; client_max_window_bits=7", false),
            ("permessage-deflate; unheard_of", false),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", false),
            ("permessage-deflate; client_no_context_takeover=1", false),
            ("", false),
        ] {
            assert_eq!(acceptable(offer), good, "{offer}");
        }
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
