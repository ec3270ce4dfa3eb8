//! Whatever the bytes: the scanner and the parser agree, and neither panics.
#![no_main]

use bytes::Bytes;
use evenkeel_protocol::{Frame, Limits, Reply, Scanner};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default().max_bulk(1 << 20).max_reply(1 << 20);
    let mut whole = Scanner::new(limits);
    let found = whole.scan(data);
    // The same bytes one by one end in the same answer.
    let mut by_one = Scanner::new(limits);
    let mut last = Ok(None);
    for end in 0..=data.len() {
        last = by_one.scan(&data[..end]);
        if !matches!(last, Ok(None)) {
            break;
        }
    }
    match (&found, &last) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(_), Err(_)) => {}
        (a, b) => panic!("whole {a:?}, by one {b:?}"),
    }
    if let Ok(Some(found)) = found {
        let bytes = Bytes::copy_from_slice(&data[..found.len]);
        let parsed = Frame::parse(&bytes, &limits);
        let reply = Reply::new(bytes);
        if parsed.is_ok() {
            assert!(reply.reader().skip().is_ok());
        }
        let _text: Result<Option<String>, _> = reply.decode();
        let _list: Result<Vec<Option<i64>>, _> = reply.decode();
    }
});
