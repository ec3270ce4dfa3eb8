//! Properties of the codec: what is written is what is read, however it is cut.

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::{Command, Frame, Limits, Reply, Scanner, encode_frame};
use proptest::prelude::*;

fn leaf() -> impl Strategy<Value = Frame> {
    let line = "[ -~]{0,20}".prop_map(|text| Bytes::from(text.into_bytes()));
    prop_oneof![
        line.prop_map(Frame::Simple),
        any::<i64>().prop_map(Frame::Integer),
        prop::num::f64::NORMAL.prop_map(Frame::Double),
        Just(Frame::Double(f64::INFINITY)),
        any::<bool>().prop_map(Frame::Boolean),
        Just(Frame::Null),
        "-?[1-9][0-9]{20,30}".prop_map(|digits| Frame::BigNumber(digits.into())),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Frame::Blob(bytes.into())),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Frame::Verbatim(*b"txt", bytes.into())),
        "[A-Z]{2,8} [ -+.-~]{0,20}x"
            .prop_map(|text| Frame::Error(evenkeel_protocol::ServerError::parse(text.as_bytes()))),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    leaf().prop_recursive(5, 60, 6, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..6);
        let pairs = prop::collection::vec((inner.clone(), inner), 0..4)
            .prop_map(|pairs| pairs.into_iter().flat_map(|(k, v)| [k, v]).collect::<Vec<_>>());
        let attributes = prop::collection::vec((leaf(), leaf()), 1..3)
            .prop_map(|pairs| pairs.into_iter().flat_map(|(k, v)| [k, v]).collect::<Vec<_>>());
        prop_oneof![
            list.clone().prop_map(|list| Frame::Array(list.into())),
            list.prop_map(|list| Frame::Set(list.into())),
            pairs.prop_map(|list| Frame::Map(list.into())),
            (attributes, leaf()).prop_map(|(pairs, value)| Frame::Attributed(pairs.into(), Box::new(value))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed(frame in frame()) {
        let mut wire = BytesMut::new();
        encode_frame(&frame, &mut wire);
        let wire = wire.freeze();
        prop_assert_eq!(Frame::parse(&wire, &Limits::default()).unwrap(), frame.clone());
        // The reader walks the same bytes to their end.
        let reply = Reply::new(wire);
        let mut reader = reply.reader();
        reader.skip().unwrap();
        prop_assert!(reader.next().is_err());
        // A reply taken as a frame is the same tree, its outermost attributes aside.
        let direct = reply.frame().unwrap();
        prop_assert_eq!(direct, frame);
    }

    #[test]
    fn frames_are_found_however_they_are_cut(frames in prop::collection::vec(frame(), 1..5), cuts in prop::collection::vec(1usize..40, 0..60)) {
        let mut wire = BytesMut::new();
        let mut ends = Vec::new();
        for frame in &frames {
            encode_frame(frame, &mut wire);
            ends.push(wire.len());
        }
        let mut scanner = Scanner::new(Limits::default());
        let mut buf = BytesMut::new();
        let mut rest = &wire[..];
        let mut cuts = cuts.into_iter().cycle();
        let mut found = Vec::new();
        let mut taken = 0;
        while !rest.is_empty() {
            let cut = cuts.next().unwrap_or(rest.len()).min(rest.len());
            buf.extend_from_slice(&rest[..cut]);
            rest = &rest[cut..];
            while let Some(one) = scanner.scan(&buf).unwrap() {
                let bytes = buf.split_to(one.len).freeze();
                taken += bytes.len();
                prop_assert_eq!(taken, ends[found.len()]);
                found.push(Frame::parse(&bytes, &Limits::default()).unwrap());
            }
        }
        prop_assert_eq!(found, frames);
        let mut whole = Scanner::new(Limits::default());
        let mut at = 0;
        while at < wire.len() {
            at += whole.scan(&wire[at..]).unwrap().unwrap().len;
        }
        prop_assert_eq!(scanner.header_bytes(), whole.header_bytes());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop_oneof![
        Just(b'*'), Just(b'$'), Just(b'%'), Just(b'|'), Just(b'>'), Just(b';'), Just(b'.'), Just(b'?'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'-'), any::<u8>()
    ], 0..80)) {
        let bytes = Bytes::from(bytes);
        let limits = Limits::default();
        if let Ok(Some(found)) = Scanner::new(limits).scan(&bytes) {
            let whole = bytes.slice(..found.len);
            let reply = Reply::new(whole.clone());
            let parsed = Frame::parse(&whole, &limits);
            if parsed.is_ok() {
                let mut reader = reply.reader();
                prop_assert!(reader.skip().is_ok());
            }
            let _kind = reply.kind();
            let _text: Result<Option<String>, _> = reply.decode();
        }
    }

    #[test]
    fn a_command_decodes_to_its_arguments(args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12)) {
        let command = args.iter().fold(Command::new("X"), Command::arg);
        let mut wire = BytesMut::new();
        command.encode(&mut wire);
        let sent: Vec<Vec<u8>> = Reply::new(wire.freeze()).decode().unwrap();
        prop_assert_eq!(&sent[0], b"X");
        prop_assert_eq!(&sent[1..], &args[..]);
    }
}

#[test]
fn ten_thousand_bulks_cost_the_same_header_bytes_however_cut() {
    let mut wire = b"*10000\r\n".to_vec();
    for _ in 0..10_000 {
        wire.extend_from_slice(b"$64\r\n");
        wire.extend_from_slice(&[b'x'; 64]);
        wire.extend_from_slice(b"\r\n");
    }
    let looked_at = |piece: usize| {
        let mut scanner = Scanner::new(Limits::default());
        for end in (piece..wire.len()).step_by(piece) {
            assert_eq!(scanner.scan(&wire[..end]).unwrap(), None);
        }
        assert_eq!(scanner.scan(&wire).unwrap().unwrap().len, wire.len());
        scanner.header_bytes()
    };
    let whole = looked_at(wire.len());
    assert_eq!(whole, looked_at(16 * 1024));
    assert_eq!(whole, looked_at(1));
}

#[test]
fn a_million_levels_end_in_an_error_on_a_small_stack() {
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(|| {
        let deep = "*1\r\n".repeat(1_000_000);
        assert!(Scanner::new(Limits::default()).scan(deep.as_bytes()).is_err());
        let limits = Limits::default().max_depth(2_000_000);
        let mut legal = deep.into_bytes();
        legal.extend_from_slice(b":1\r\n");
        let frame = Frame::parse(&legal.into(), &limits).unwrap();
        drop(frame);
    });
    thread.unwrap().join().unwrap();
}
