//! Whatever the reply: the crate `redis-protocol` and we find the same end, and the same values in it.

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::{Frame, Limits, Scanner, ServerError, encode_frame};
use proptest::prelude::*;
use redis_protocol::{resp2, resp3};

fn blob() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..120).prop_map(Bytes::from)
}

/// What both protocols have.
fn resp2_leaf() -> impl Strategy<Value = Frame> {
    prop_oneof![
        "[ -~]{0,30}".prop_map(|text| Frame::Simple(text.into())),
        any::<i64>().prop_map(Frame::Integer),
        blob().prop_map(Frame::Blob),
        "[A-Z]{2,8} [a-z ]{0,20}x".prop_map(|text| Frame::Error(ServerError::parse(text.as_bytes()))),
    ]
}

fn resp2_frame() -> impl Strategy<Value = Frame> {
    resp2_leaf().prop_recursive(6, 80, 8, |inner| {
        prop::collection::vec(inner, 0..8).prop_map(|list| Frame::Array(list.into()))
    })
}

fn resp3_frame() -> impl Strategy<Value = Frame> {
    let leaf = prop_oneof![
        4 => resp2_leaf(),
        1 => prop::num::f64::NORMAL.prop_map(Frame::Double),
        1 => any::<bool>().prop_map(Frame::Boolean),
        1 => Just(Frame::Null),
        1 => "-?[1-9][0-9]{20,30}".prop_map(|digits| Frame::BigNumber(digits.into())),
        1 => "[ -~]{0,30}".prop_map(|text| Frame::Verbatim(*b"txt", text.into())),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        // The peer keeps sets and maps in hash tables, where a repeated key is lost.
        let pairs = |values: Vec<Frame>| {
            let numbered = (0i64..).zip(values);
            numbered.flat_map(|(n, value)| [Frame::Integer(n), value]).collect::<Vec<_>>()
        };
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|list| Frame::Array(list.into())),
            (0..6i64)
                .prop_map(|count| { Frame::Set((0..count).map(Frame::Integer).collect::<Vec<_>>().into()) }),
            prop::collection::vec(inner, 0..5).prop_map(move |list| Frame::Map(pairs(list).into())),
        ]
    })
}

fn same2(ours: &Frame, theirs: &resp2::types::BytesFrame) -> bool {
    use resp2::types::BytesFrame as Theirs;
    match (ours, theirs) {
        (Frame::Simple(a), Theirs::SimpleString(b)) | (Frame::Blob(a), Theirs::BulkString(b)) => a == b,
        (Frame::Error(a), Theirs::Error(b)) => *a == ServerError::parse(b.as_bytes()),
        (Frame::Integer(a), Theirs::Integer(b)) => a == b,
        (Frame::Null, Theirs::Null) => true,
        (Frame::Array(a), Theirs::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same2(a, b))
        }
        _ => false,
    }
}

fn same3(ours: &Frame, theirs: &resp3::types::BytesFrame) -> bool {
    use resp3::types::BytesFrame as Theirs;
    match (ours, theirs) {
        (Frame::Simple(a), Theirs::SimpleString { data, .. })
        | (Frame::Blob(a), Theirs::BlobString { data, .. })
        | (Frame::Verbatim(_, a), Theirs::VerbatimString { data, .. })
        | (Frame::BigNumber(a), Theirs::BigNumber { data, .. }) => a == data,
        (Frame::Error(a), Theirs::SimpleError { data, .. }) => *a == ServerError::parse(data.as_bytes()),
        (Frame::Integer(a), Theirs::Number { data, .. }) => a == data,
        (Frame::Double(a), Theirs::Double { data, .. }) => a.to_bits() == data.to_bits(),
        (Frame::Boolean(a), Theirs::Boolean { data, .. }) => a == data,
        (Frame::Null, Theirs::Null) => true,
        (Frame::Array(a), Theirs::Array { data, .. }) => {
            a.len() == data.len() && a.iter().zip(data).all(|(a, b)| same3(a, b))
        }
        (Frame::Set(a), Theirs::Set { data, .. }) => {
            a.len() == data.len() && a.iter().all(|a| data.iter().any(|b| same3(a, b)))
        }
        (Frame::Map(a), Theirs::Map { data, .. }) => {
            a.len() == data.len() * 2
                && a.chunks(2).all(|pair| data.iter().any(|(k, v)| same3(&pair[0], k) && same3(&pair[1], v)))
        }
        _ => false,
    }
}

fn wire(frame: &Frame, behind: &[u8]) -> (Bytes, usize) {
    let mut wire = BytesMut::new();
    encode_frame(frame, &mut wire);
    let len = wire.len();
    wire.extend_from_slice(behind);
    (wire.freeze(), len)
}

/// What we make of the bytes, with what lies behind the reply left alone.
fn ours(wire: &Bytes) -> Option<(Frame, usize)> {
    let found = Scanner::new(Limits::default()).scan(wire).ok()??;
    Frame::parse(&wire.slice(..found.len), &Limits::default()).ok().map(|frame| (frame, found.len))
}

proptest! {
    #[test]
    fn resp2_replies_are_the_same(frame in resp2_frame(), behind in prop::collection::vec(any::<u8>(), 0..10)) {
        let (wire, len) = wire(&frame, &behind);
        let (ours, our_len) = ours(&wire).expect("we read what we write");
        let (theirs, their_len) = resp2::decode::decode_bytes(&wire).unwrap().expect("they read it too");
        prop_assert_eq!((our_len, their_len), (len, len));
        prop_assert!(same2(&ours, &theirs), "{:?} {:?}", ours, theirs);
    }

    #[test]
    fn resp3_replies_are_the_same(frame in resp3_frame(), behind in prop::collection::vec(any::<u8>(), 0..10)) {
        let (wire, len) = wire(&frame, &behind);
        let (ours, our_len) = ours(&wire).expect("we read what we write");
        let (theirs, their_len) = resp3::decode::complete::decode_bytes(&wire).unwrap().expect("they read it too");
        prop_assert_eq!((our_len, their_len), (len, len));
        prop_assert!(same3(&ours, &theirs), "{:?} {:?}", ours, theirs);
    }

    #[test]
    fn a_cut_reply_is_whole_to_neither(frame in resp2_frame(), cut in any::<prop::sample::Index>()) {
        let (wire, len) = wire(&frame, b"");
        let cut = wire.slice(..cut.index(len));
        prop_assert!(ours(&cut).is_none());
        prop_assert!(!matches!(resp2::decode::decode_bytes(&cut), Ok(Some(_))));
    }

    #[test]
    fn where_both_accept_damaged_bytes_they_read_the_same(frame in resp2_frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (wire, len) = wire(&frame, b"");
        let mut damaged = wire.to_vec();
        damaged[at.index(len)] = byte;
        let damaged = Bytes::from(damaged);
        let plain = damaged.iter().all(|byte| b"+-:$*".contains(byte) || !b",(#_!=%~>|;.".contains(byte));
        if let (true, Some((ours, our_len)), Ok(Some((theirs, their_len)))) =
            (plain, ours(&damaged), resp2::decode::decode_bytes(&damaged))
        {
            prop_assert_eq!(our_len, their_len);
            prop_assert!(same2(&ours, &theirs), "{:?} {:?}", ours, theirs);
        }
    }
}
