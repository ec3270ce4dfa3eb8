//! The suite's own table of RFC 6455 cases, each fed whole, byte by byte and cut at every place.

use super::close::Violation;
use super::decode::{Decoder, Event};
use std::borrow::Cow;

const LIMIT: u32 = 70_000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Binary(Vec<u8>),
    Close(Option<u16>),
    Failed(Violation),
    Ping(Vec<u8>),
    Pong,
    Text(String),
}

fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xFA, 0x21, 0x3D];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0xFE);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0xFF);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    out
}

fn feed(decoder: &mut Decoder, bytes: &[u8], seen: &mut Vec<Seen>) -> bool {
    let mut bytes = bytes.to_vec();
    let mut input = &mut bytes[..];
    loop {
        let next = match decoder.decode(&mut input) {
            Ok(None) => return true,
            Ok(Some(event)) => match event {
                Event::Binary(data) => Seen::Binary(data.into_owned()),
                Event::Close(code) => Seen::Close(code),
                Event::Ping(data) => Seen::Ping(data.into_owned()),
                Event::Pong => Seen::Pong,
                Event::Text(text) => Seen::Text(text.into_owned()),
            },
            Err(violation) => {
                seen.push(Seen::Failed(violation));
                return false;
            }
        };
        seen.push(next);
    }
}

/// Feeds `bytes` in chunks of every given size and expects the same events each time.
fn check(name: &str, bytes: &[u8], expected: &[Seen]) {
    let sizes = if bytes.len() > 1_000 { vec![bytes.len(), 1, 997] } else { (1..=bytes.len()).collect() };
    for size in sizes {
        let mut decoder = Decoder::new(LIMIT);
        let mut seen = Vec::new();
        for chunk in bytes.chunks(size) {
            if !feed(&mut decoder, chunk, &mut seen) {
                break;
            }
        }
        assert_eq!(seen, expected, "{name}, in chunks of {size}");
    }
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

#[test]
fn lengths_at_every_border() {
    for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 70_000] {
        let payload = vec![b'*'; len];
        check("text", &client(0x81, &payload), &[text(&"*".repeat(len))]);
        check("binary", &client(0x82, &payload), &[Seen::Binary(payload)]);
    }
}

#[test]
fn a_message_beyond_the_limit_is_refused_before_its_payload() {
    let whole = client(0x82, &vec![0; 70_001]);
    check("header only", &whole[..14], &[Seen::Failed(Violation::TooBig)]);
    let mut parts = client(0x02, &vec![0; 40_000]);
    parts.extend(client(0x80, &vec![0; 30_001]));
    check("in fragments", &parts, &[Seen::Failed(Violation::TooBig)]);
    let mut endless = vec![0x82, 0xFF];
    endless.extend(0x7FFF_FFFF_FFFF_FFFF_u64.to_be_bytes());
    endless.extend([0; 4]);
    check("2^63-1 bytes", &endless, &[Seen::Failed(Violation::TooBig)]);
}

#[test]
fn lengths_have_one_form() {
    check("16 bits for 125", &[0x82, 0xFE, 0, 125, 0, 0, 0, 0], &[Seen::Failed(Violation::BadLength)]);
    check(
        "64 bits for 65535",
        &[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0],
        &[Seen::Failed(Violation::BadLength)],
    );
    check(
        "top bit",
        &[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0],
        &[Seen::Failed(Violation::BadLength)],
    );
}

#[test]
fn unmasked_frames_are_refused() {
    check("text", &[0x81, 2, b'h', b'i'], &[Seen::Failed(Violation::Unmasked)]);
    check("ping", &[0x89, 0], &[Seen::Failed(Violation::Unmasked)]);
}

#[test]
fn pings_and_pongs() {
    check("empty ping", &client(0x89, b""), &[Seen::Ping(vec![])]);
    check("binary ping", &client(0x89, &[0, 255, 254]), &[Seen::Ping(vec![0, 255, 254])]);
    check("125 bytes", &client(0x89, &[1; 125]), &[Seen::Ping(vec![1; 125])]);
    check("126 bytes", &client(0x89, &[1; 126]), &[Seen::Failed(Violation::BadControl)]);
    check("unasked pong", &client(0x8A, b"x"), &[Seen::Pong]);
    check("ten pings", &client(0x89, b"a").repeat(10), &vec![Seen::Ping(vec![b'a']); 10]);
    check("fragmented ping", &client(0x09, b""), &[Seen::Failed(Violation::BadControl)]);
    check("fragmented close", &client(0x08, b""), &[Seen::Failed(Violation::BadControl)]);
}

#[test]
fn reserved_bits_and_opcodes() {
    for bit in [0x40, 0x20, 0x10] {
        check("rsv text", &client(0x81 | bit, b"x"), &[Seen::Failed(Violation::Reserved)]);
        check("rsv ping", &client(0x89 | bit, b""), &[Seen::Failed(Violation::Reserved)]);
        check("rsv close", &client(0x88 | bit, b""), &[Seen::Failed(Violation::Reserved)]);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check("opcode", &client(0x80 | opcode, b""), &[Seen::Failed(Violation::Reserved)]);
    }
    let mut after = client(0x81, b"first");
    after.extend(client(0x83, b""));
    check("after a message", &after, &[text("first"), Seen::Failed(Violation::Reserved)]);
}

#[test]
fn fragments() {
    let join = |parts: &[Vec<u8>]| parts.concat();
    check("two", &join(&[client(0x01, b"ab"), client(0x80, b"cd")]), &[text("abcd")]);
    check(
        "a ping between",
        &join(&[client(0x01, b"ab"), client(0x89, b"p"), client(0x80, b"cd")]),
        &[Seen::Ping(vec![b'p']), text("abcd")],
    );
    check("empty fragments", &join(&[client(0x01, b""), client(0x00, b""), client(0x80, b"")]), &[text("")]);
    check(
        "empty start, binary",
        &join(&[client(0x02, b""), client(0x00, &[9]), client(0x80, b"")]),
        &[Seen::Binary(vec![9])],
    );
    check("nothing to go on with", &client(0x80, b"x"), &[Seen::Failed(Violation::Fragmentation)]);
    check("nothing to go on with, open", &client(0x00, b"x"), &[Seen::Failed(Violation::Fragmentation)]);
    check(
        "a new message within one",
        &join(&[client(0x01, b"ab"), client(0x81, b"cd")]),
        &[Seen::Failed(Violation::Fragmentation)],
    );
    check(
        "a continuation after the end",
        &join(&[client(0x01, b"a"), client(0x80, b"b"), client(0x80, b"c")]),
        &[text("ab"), Seen::Failed(Violation::Fragmentation)],
    );
}

#[test]
fn utf8_across_and_within_frames() {
    let word = "κόσμε€😀";
    check("whole", &client(0x81, word.as_bytes()), &[text(word)]);
    for cut in 0..=word.len() {
        let (a, b) = word.as_bytes().split_at(cut);
        check("cut", &[client(0x01, a), client(0x80, b)].concat(), &[text(word)]);
    }
    for bad in [
        &b"\xCE\xBA\xED\xA0\x80edited"[..],
        b"\xF4\x90\x80\x80",
        b"\xC0\x80",
        b"\xFE",
        b"\x80",
        b"\xF8\x88\x80\x80\x80",
        b"\xE0\x80\xAF",
        b"abc\xCE",
    ] {
        check("bad", &client(0x81, bad), &[Seen::Failed(Violation::BadUtf8)]);
        check(
            "bad in fragments",
            &[client(0x01, b"ok"), client(0x80, bad)].concat(),
            &[Seen::Failed(Violation::BadUtf8)],
        );
    }
}

#[test]
fn bad_utf8_fails_before_the_frame_ends() {
    let frame = client(0x81, b"\xCE\xBA\xF4\x90\x80\x80 and much more that never has to come");
    let mut decoder = Decoder::new(LIMIT);
    let mut seen = Vec::new();
    assert!(feed(&mut decoder, &frame[..9], &mut seen));
    assert!(!feed(&mut decoder, &frame[9..10], &mut seen));
    assert_eq!(seen, [Seen::Failed(Violation::BadUtf8)]);
}

#[test]
fn close_frames() {
    check("no body", &client(0x88, b""), &[Seen::Close(None)]);
    check("one byte", &client(0x88, &[3]), &[Seen::Failed(Violation::BadClose)]);
    for code in [1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        check("code", &client(0x88, &code.to_be_bytes()), &[Seen::Close(Some(code))]);
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check("code", &client(0x88, &code.to_be_bytes()), &[Seen::Failed(Violation::BadClose)]);
    }
    let mut reason = 1000_u16.to_be_bytes().to_vec();
    reason.extend([b'*'; 123]);
    check("longest reason", &client(0x88, &reason), &[Seen::Close(Some(1000))]);
    reason.push(b'*');
    check("too long", &client(0x88, &reason), &[Seen::Failed(Violation::BadControl)]);
    check("bad reason", &client(0x88, b"\x03\xE8\xFF"), &[Seen::Failed(Violation::BadUtf8)]);
}

#[test]
fn a_decoder_between_messages_holds_nothing() {
    let mut decoder = Decoder::new(LIMIT);
    let mut seen = Vec::new();
    for byte in [client(0x01, b"a"), client(0x89, b"p"), client(0x80, b"b")].concat() {
        assert!(feed(&mut decoder, &[byte], &mut seen));
    }
    assert_eq!(seen, [Seen::Ping(vec![b'p']), text("ab")]);
    assert!(decoder.is_idle());
    assert_eq!(Cow::Borrowed("ab"), "ab");
}
