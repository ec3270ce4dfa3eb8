//! A connection that is fed any bytes in any pieces hands out each token at most once, in order.
#![no_main]

use bytes::BytesMut;
use evenkeel_protocol::{
    Limits, Push,
    conn::{Connection, Incoming},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut conn = Connection::new(Limits::default().max_bulk(1 << 20).max_reply(1 << 20));
    let (mut sent, mut answered) = (0u32, 0u32);
    let mut read = BytesMut::new();
    for piece in data.chunks(7) {
        conn.sent(sent);
        sent += 1;
        read.extend_from_slice(piece);
        loop {
            match conn.next(&mut read) {
                Ok(Some(Incoming::Reply(token, _))) => {
                    assert_eq!(token, answered);
                    answered += 1;
                }
                Ok(Some(Incoming::Push(push))) => {
                    let _push = push.frame().ok().as_ref().and_then(Push::read);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
