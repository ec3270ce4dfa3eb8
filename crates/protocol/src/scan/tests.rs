//! Every kind of reply, whole and byte by byte, and what is none.

use super::*;

fn check(bytes: &[u8]) {
    let limits = Limits::default();
    let mut whole = Scanner::new(limits);
    let found = whole.scan(bytes).unwrap().unwrap_or_else(|| panic!("not whole: {bytes:?}"));
    assert_eq!(found.len, bytes.len(), "{}", String::from_utf8_lossy(bytes));
    let mut by_one = Scanner::new(limits);
    for end in 0..bytes.len() {
        assert_eq!(by_one.scan(&bytes[..end]).unwrap(), None, "{}", String::from_utf8_lossy(&bytes[..end]));
    }
    assert_eq!(by_one.scan(bytes).unwrap(), Some(found));
    assert_eq!(by_one.header_bytes(), whole.header_bytes());
    assert!(whole.is_idle());
}

#[test]
fn every_kind_is_found_whole_and_byte_by_byte() {
    for bytes in [
        &b"+OK\r\n"[..],
        b"-ERR no\r\n",
        b":1\r\n",
        b",1.5\r\n",
        b"(12345678901234567890\r\n",
        b"#t\r\n",
        b"_\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"$0\r\n\r\n",
        b"$5\r\nhello\r\n",
        b"!5\r\nERR x\r\n",
        b"=5\r\ntxt:a\r\n",
        b"*0\r\n",
        b"%0\r\n",
        b"*2\r\n:1\r\n:2\r\n",
        b"%1\r\n+a\r\n*1\r\n:1\r\n",
        b"~2\r\n:1\r\n*0\r\n",
        b">2\r\n+message\r\n:1\r\n",
        b"|1\r\n+ttl\r\n:1\r\n*1\r\n:5\r\n",
        b"|1\r\n+a\r\n*1\r\n:1\r\n>1\r\n+x\r\n",
        b"*2\r\n|1\r\n+a\r\n:1\r\n:2\r\n:3\r\n",
        b"|0\r\n:3\r\n",
        b"$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n",
        b"*?\r\n:1\r\n*1\r\n:2\r\n.\r\n",
        b"%?\r\n+a\r\n:1\r\n.\r\n",
        b"*1\r\n$?\r\n;1\r\na\r\n;0\r\n",
        b"*1\r\n*1\r\n*1\r\n*0\r\n",
    ] {
        check(bytes);
    }
}

#[test]
fn the_marker_is_that_of_the_value_behind_attributes() {
    let mut scanner = Scanner::new(Limits::default());
    let found = scanner.scan(b"|1\r\n+a\r\n:1\r\n-ERR\r\n").unwrap().unwrap();
    assert_eq!(found.marker, b'-');
}

#[test]
fn what_is_not_resp_is_named() {
    let scan = |bytes: &[u8]| Scanner::new(Limits::default()).scan(bytes);
    assert_eq!(scan(b"HTTP"), Err(ScanError::BadMarker { marker: b'H', at: 0 }));
    assert!(matches!(scan(b"$x\r\n"), Err(ScanError::BadLength { .. })));
    assert!(matches!(scan(b"$-2\r\n"), Err(ScanError::BadLength { .. })));
    assert!(matches!(scan(b"%-1\r\n"), Err(ScanError::BadLength { .. })));
    assert!(matches!(scan(b"$\r\n"), Err(ScanError::BadLength { .. })));
    assert!(matches!(scan(b"$1\r\nab\r\n"), Err(ScanError::MissingLineEnd { .. })));
    assert!(matches!(scan(b"+OK\n"), Err(ScanError::MissingLineEnd { .. })));
    assert!(matches!(scan(b"*1\r\n>1\r\n+x\r\n"), Err(ScanError::Misplaced { marker: b'>', .. })));
    assert!(matches!(scan(b".\r\n"), Err(ScanError::Misplaced { .. })));
    assert!(matches!(scan(b";1\r\na\r\n"), Err(ScanError::Misplaced { .. })));
    assert!(matches!(scan(b"*99999999999999999999999\r\n"), Err(ScanError::BadLength { .. })));
}

#[test]
fn limits_hold_before_anything_is_reserved() {
    let limits = Limits::default().max_depth(2).max_bulk(10).max_elements(5).max_reply(100);
    let scan = |bytes: &[u8]| Scanner::new(limits).scan(bytes);
    assert_eq!(scan(b"$11\r\n"), Err(ScanError::BulkTooLong { limit: 10 }));
    assert_eq!(scan(b"*6\r\n"), Err(ScanError::TooManyElements { limit: 5 }));
    assert_eq!(scan(b"%3\r\n"), Err(ScanError::TooManyElements { limit: 5 }));
    assert_eq!(scan(b"*1\r\n*1\r\n*1\r\n"), Err(ScanError::TooDeep { limit: 2 }));
    assert_eq!(scan(b"+aaaaaaaaaaaaaaa"), Err(ScanError::BulkTooLong { limit: 10 }));
}

#[test]
fn an_attribute_is_an_element_and_describes_a_value() {
    let limits = Limits::default().max_elements(5);
    let flood = "|0\r\n".repeat(6);
    assert_eq!(Scanner::new(limits).scan(flood.as_bytes()), Err(ScanError::TooManyElements { limit: 5 }));
    let scan = |bytes: &[u8]| Scanner::new(Limits::default()).scan(bytes);
    for nothing_described in [&b"*?\r\n|1\r\n+a\r\n:1\r\n.\r\n"[..], b"*?\r\n:1\r\n|0\r\n.\r\n"] {
        assert!(matches!(scan(nothing_described), Err(ScanError::Misplaced { marker: b'.', .. })));
    }
    check(b"*?\r\n|1\r\n+a\r\n:1\r\n*?\r\n.\r\n.\r\n");
}

#[test]
fn ends_and_nulls_have_one_spelling() {
    let scan = |bytes: &[u8]| Scanner::new(Limits::default()).scan(bytes);
    for odd in [&b"$-01\r\n"[..], b"*-11\r\n", b"$-0\r\n", b"*?\r\n.0\r\n", b"*?\r\n.00\r\n"] {
        assert!(matches!(scan(odd), Err(ScanError::BadLength { .. })), "{odd:?}");
    }
    // A length with zeros in front is that length, for the parser too.
    for odd in [&b"$?\r\n;01\r\na\r\n;00\r\n"[..], b"$0000000000000000001\r\na\r\n", b"*001\r\n:1\r\n"] {
        check(odd);
        let bytes = bytes::Bytes::copy_from_slice(odd);
        assert!(crate::Frame::parse(&bytes, &Limits::default()).is_ok(), "{odd:?}");
        assert!(crate::Reply::new(bytes).reader().skip().is_ok(), "{odd:?}");
    }
}
