//! A connection between any commands and any bytes in any pieces: each token comes out once, in order, and for no push.
#![no_main]

use bytes::BytesMut;
use evenkeel_protocol::{
    Limits, Push, Scanner,
    conn::{Connection, Incoming, Violation},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&mode, mut rest)) = data.split_first() else { return };
    let limits = Limits::default().max_bulk(1 << 20).max_reply(1 << 20);
    let mut conn = Connection::new(limits);
    let resp2_link = mode & 1 == 1;
    if resp2_link {
        conn.treat_arrays_as_pushes();
    }
    let (mut sent, mut answered) = (0u32, 0u32);
    let (mut read, mut wire, mut heard) = (BytesMut::new(), Vec::new(), Vec::new());
    let mut ended = None;
    // Each step is a byte: its low bits say how many bytes arrive, its high ones how many commands are written before.
    while let Some((&step, bytes)) = rest.split_first() {
        for _ in 0..step >> 5 {
            conn.sent(sent);
            sent += 1;
        }
        let (piece, later) = bytes.split_at(bytes.len().min(usize::from(step & 31)));
        rest = later;
        read.extend_from_slice(piece);
        wire.extend_from_slice(piece);
        loop {
            match conn.next(&mut read) {
                Ok(Some(Incoming::Reply(token, reply))) => {
                    assert_eq!(token, answered, "a reply of another's");
                    answered += 1;
                    heard.push((reply.as_bytes().clone(), false));
                }
                Ok(Some(Incoming::Push(push))) => {
                    let _push = Push::of(&push);
                    heard.push((push.as_bytes().clone(), true));
                }
                Ok(Some(_)) => panic!("neither a reply nor a push"),
                Ok(None) => break,
                Err(violation) => {
                    ended = Some(violation);
                    break;
                }
            }
        }
        assert_eq!(conn.waiting().len() as u32, sent - answered, "every token waits or was answered");
        if ended.is_some() {
            break;
        }
    }
    if ended == Some(Violation::Unasked) {
        assert_eq!(sent, answered, "somebody waits, and the reply is called unasked");
    }
    // Cut by itself, the stream has the same replies and pushes in it.
    let (mut scanner, mut at) = (Scanner::new(limits), 0);
    for (bytes, is_push) in &heard {
        let found = scanner.scan(&wire[at..]).expect("it was read before").expect("it was whole before");
        assert_eq!(&wire[at..at + found.len], &bytes[..]);
        assert!(resp2_link || *is_push == (found.marker == b'>'));
        at += found.len;
    }
    assert_eq!(conn.take_waiting().into_iter().collect::<Vec<_>>(), (answered..sent).collect::<Vec<_>>());
});
