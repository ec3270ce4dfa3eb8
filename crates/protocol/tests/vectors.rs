//! The examples of the RESP3 specification and of the servers' documentation, each read as a tree, lazily and in pieces.
#![expect(clippy::unwrap_used, reason = "tests and what they share")]

use bytes::Bytes;
use evenkeel_protocol::{Event, Frame, Kind, Limits, Reply, Scanner, encode_frame};

fn blob(text: &'static str) -> Frame {
    Frame::Blob(text.into())
}

fn simple(text: &'static str) -> Frame {
    Frame::Simple(text.into())
}

fn numbers(list: impl IntoIterator<Item = i64>) -> Vec<Frame> {
    list.into_iter().map(Frame::Integer).collect()
}

fn check(wire: &'static str, expected: &Frame) {
    let bytes = Bytes::from_static(wire.as_bytes());
    assert_eq!(&Frame::parse(&bytes, &Limits::default()).unwrap(), expected, "{wire:?}");
    assert_eq!(&Reply::new(bytes.clone()).frame().unwrap(), expected, "{wire:?}");
    let mut scanner = Scanner::new(Limits::default());
    for end in 0..bytes.len() {
        assert_eq!(scanner.scan(&bytes[..end]).unwrap(), None, "{wire:?} at {end}");
    }
    assert_eq!(scanner.scan(&bytes).unwrap().unwrap().len, bytes.len(), "{wire:?}");
}

#[test]
fn simple_types() {
    check("$11\r\nhello world\r\n", &blob("hello world"));
    check("$0\r\n\r\n", &blob(""));
    check("+hello world\r\n", &simple("hello world"));
    check(":1234\r\n", &Frame::Integer(1234));
    check(":-42\r\n", &Frame::Integer(-42));
    check(":+7\r\n", &Frame::Integer(7));
    check("_\r\n", &Frame::Null);
    check("$-1\r\n", &Frame::Null);
    check("*-1\r\n", &Frame::Null);
    check(",1.23\r\n", &Frame::Double(1.23));
    check(",10\r\n", &Frame::Double(10.0));
    check(",1.5e3\r\n", &Frame::Double(1500.0));
    check(",inf\r\n", &Frame::Double(f64::INFINITY));
    check(",-inf\r\n", &Frame::Double(f64::NEG_INFINITY));
    check("#t\r\n", &Frame::Boolean(true));
    check("#f\r\n", &Frame::Boolean(false));
    check(
        "(3492890328409238509324850943850943825024385\r\n",
        &Frame::BigNumber("3492890328409238509324850943850943825024385".into()),
    );
    check("=15\r\ntxt:Some string\r\n", &Frame::Verbatim(*b"txt", "Some string".into()));
}

#[test]
fn errors() {
    let simple = Reply::new(Bytes::from_static(b"-ERR this is the error description\r\n"));
    let error = simple.error().expect("an error");
    assert_eq!((error.code(), error.detail()), ("ERR", "this is the error description"));
    let syntax = Reply::new(Bytes::from_static(b"!21\r\nSYNTAX invalid syntax\r\n"));
    assert_eq!(syntax.error().unwrap().to_string(), "SYNTAX invalid syntax");
}

#[test]
fn aggregates() {
    check("*3\r\n:1\r\n:2\r\n:3\r\n", &Frame::Array(numbers([1, 2, 3]).into()));
    check(
        "*2\r\n*3\r\n:1\r\n$5\r\nhello\r\n:2\r\n#f\r\n",
        &Frame::Array(
            vec![
                Frame::Array(vec![Frame::Integer(1), blob("hello"), Frame::Integer(2)].into()),
                Frame::Boolean(false),
            ]
            .into(),
        ),
    );
    check(
        "%2\r\n+first\r\n:1\r\n+second\r\n:2\r\n",
        &Frame::Map(vec![simple("first"), Frame::Integer(1), simple("second"), Frame::Integer(2)].into()),
    );
    check(
        "~5\r\n+orange\r\n+apple\r\n#t\r\n:100\r\n:999\r\n",
        &Frame::Set(
            vec![
                simple("orange"),
                simple("apple"),
                Frame::Boolean(true),
                Frame::Integer(100),
                Frame::Integer(999),
            ]
            .into(),
        ),
    );
    check("*0\r\n", &Frame::Array(Vec::new().into()));
    check("%0\r\n", &Frame::Map(Vec::new().into()));
    check("~0\r\n", &Frame::Set(Vec::new().into()));
}

#[test]
fn attributes_stand_before_any_value() {
    let popularity =
        Frame::Map(vec![blob("a"), Frame::Double(0.1923), blob("b"), Frame::Double(0.0012)].into());
    check(
        "|1\r\n+key-popularity\r\n%2\r\n$1\r\na\r\n,0.1923\r\n$1\r\nb\r\n,0.0012\r\n*2\r\n:2039123\r\n:9543892\r\n",
        &Frame::Attributed(
            vec![simple("key-popularity"), popularity].into(),
            Box::new(Frame::Array(numbers([2_039_123, 9_543_892]).into())),
        ),
    );
    check(
        "*3\r\n:1\r\n:2\r\n|1\r\n+ttl\r\n:3600\r\n:3\r\n",
        &Frame::Array(
            vec![
                Frame::Integer(1),
                Frame::Integer(2),
                Frame::Attributed(
                    vec![simple("ttl"), Frame::Integer(3600)].into(),
                    Box::new(Frame::Integer(3)),
                ),
            ]
            .into(),
        ),
    );
    let lazy = Reply::new(Bytes::from_static(b"*3\r\n:1\r\n:2\r\n|1\r\n+ttl\r\n:3600\r\n:3\r\n"));
    assert_eq!(lazy.decode::<Vec<i64>>().unwrap(), [1, 2, 3]);
}

#[test]
fn attributes_in_a_row_belong_to_the_value_behind_them() {
    let both: Vec<_> = [simple("a"), Frame::Integer(1), simple("b"), Frame::Integer(2)].into();
    let wire = "|1\r\n+a\r\n:1\r\n|0\r\n|1\r\n+b\r\n:2\r\n:3\r\n";
    let described = Frame::Attributed(both.into(), Box::new(Frame::Integer(3)));
    let parse =
        |wire: &str| Frame::parse(&Bytes::copy_from_slice(wire.as_bytes()), &Limits::default()).unwrap();
    assert_eq!(parse(wire), described);
    // Nothing is left over for the element that comes next.
    assert_eq!(
        parse(&format!("*2\r\n{wire}:4\r\n")),
        Frame::Array(vec![described, Frame::Integer(4)].into())
    );
    // Attributes of attributes, deeper than a thread's stack would take by recursion.
    let deep = [&b"|1\r\n+k\r\n".repeat(100_000)[..], &b":1\r\n".repeat(100_001)[..]].concat();
    let deep = Reply::new(Bytes::from(deep));
    assert_eq!(deep.decode::<i64>(), Ok(1));
    assert_eq!(deep.kind(), Kind::Integer);
    assert!(deep.frame().is_ok());
    assert_eq!(Reply::new(Bytes::from_static(b"|1\r\n+a\r\n:1\r\n$-1\r\n")).kind(), Kind::Null);
}

#[test]
fn text_of_several_lines_is_written_as_one_frame() {
    let error = Frame::Error(evenkeel_protocol::ServerError::parse(b"ERR a\r\nb"));
    let mut wire = bytes::BytesMut::new();
    encode_frame(&error, &mut wire);
    assert_eq!(&wire[..], b"!8\r\nERR a\r\nb\r\n");
    wire.clear();
    encode_frame(&simple("a\r\n:1"), &mut wire);
    assert_eq!(&wire[..], b"$5\r\na\r\n:1\r\n");
}

#[test]
fn pushes_with_and_without_attributes() {
    check(
        ">4\r\n+pubsub\r\n+message\r\n+somechannel\r\n+this is the message\r\n",
        &Frame::Push(
            vec![simple("pubsub"), simple("message"), simple("somechannel"), simple("this is the message")]
                .into(),
        ),
    );
    let mut scanner = Scanner::new(Limits::default());
    let found = scanner.scan(b"|1\r\n+a\r\n:1\r\n>1\r\n+x\r\n$9\r\nGet-Reply\r\n").unwrap().unwrap();
    assert_eq!((found.len, found.marker), (20, b'>'));
}

#[test]
fn streamed_strings_and_aggregates() {
    check("$?\r\n;4\r\nHell\r\n;5\r\no wor\r\n;1\r\nd\r\n;0\r\n", &blob("Hello word"));
    check("$?\r\n;0\r\n", &blob(""));
    check("*?\r\n:1\r\n:2\r\n:3\r\n.\r\n", &Frame::Array(numbers([1, 2, 3]).into()));
    check(
        "%?\r\n+a\r\n:1\r\n+b\r\n:2\r\n.\r\n",
        &Frame::Map(vec![simple("a"), Frame::Integer(1), simple("b"), Frame::Integer(2)].into()),
    );
    check("~?\r\n.\r\n", &Frame::Set(Vec::new().into()));
    check(
        "*?\r\n$?\r\n;2\r\nab\r\n;0\r\n*1\r\n*?\r\n.\r\n.\r\n",
        &Frame::Array(vec![blob("ab"), Frame::Array(vec![Frame::Array(Vec::new().into())].into())].into()),
    );
}

#[test]
fn the_pull_reader_names_each_step() {
    let reply = Reply::new(Bytes::from_static(b"%?\r\n+a\r\n*2\r\n:1\r\n#t\r\n.\r\n"));
    let mut reader = reply.reader();
    let mut steps = Vec::new();
    while let Ok(event) = reader.next() {
        steps.push(match event {
            Event::Map(None) => "map".to_owned(),
            Event::List(Kind::Array, Some(count)) => format!("array of {count}"),
            Event::Text(kind, text) => format!("{kind} of {}", text.len()),
            Event::Integer(number) => number.to_string(),
            Event::Boolean(value) => value.to_string(),
            Event::End => "end".to_owned(),
            other => other.kind().to_string(),
        });
    }
    assert_eq!(steps, ["map", "status of 1", "array of 2", "1", "true", "end"]);
}

#[test]
fn a_status_line_of_600_kilobytes_is_legal() {
    let wire = Bytes::from(["+", &"x".repeat(600_000), "\r\n"].concat());
    let mut scanner = Scanner::new(Limits::default());
    for end in (0..wire.len()).step_by(16 * 1024) {
        assert_eq!(scanner.scan(&wire[..end]).unwrap(), None);
    }
    assert_eq!(scanner.scan(&wire).unwrap().unwrap().len, wire.len());
    assert_eq!(Reply::new(wire).decode::<String>().unwrap().len(), 600_000);
}
