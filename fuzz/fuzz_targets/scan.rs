//! However a stream is cut, the scanner gives the same answer, looks at each header byte once, and keeps its limits.
#![no_main]

use evenkeel_protocol::{Limits, ScanError, Scanned, Scanner};
use libfuzzer_sys::fuzz_target;

/// Small limits, drawn from the input: the large ones of every day are not reached by an input of some kilobytes.
fn limits(draw: &[u8; 4]) -> Limits {
    Limits::default()
        .max_depth(usize::from(draw[0] % 16))
        .max_bulk(usize::from(draw[1]) * 4)
        .max_elements(usize::from(draw[2]))
        .max_reply(usize::from(draw[3]) * 16)
}

/// What the scanner says of `wire` when it comes in pieces of `piece` bytes, and how many header bytes it looked at.
fn in_pieces(limits: Limits, wire: &[u8], piece: usize) -> (Result<Option<Scanned>, ScanError>, u64) {
    let mut scanner = Scanner::new(limits);
    let mut end = 0;
    loop {
        end = wire.len().min(end + piece);
        let found = scanner.scan(&wire[..end]);
        if !matches!(found, Ok(None)) || end == wire.len() {
            return (found, scanner.header_bytes());
        }
        assert!(scanner.known_len() == 0 || scanner.known_len() <= limits.reply());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((draw, wire)) = data.split_first_chunk::<5>() else { return };
    let [first, second, third, fourth, piece] = *draw;
    let limits = if first == 0 {
        Limits::default()
    } else {
        limits(&[first, second, third, fourth])
    };
    let (whole, looked_at) = in_pieces(limits, wire, wire.len().max(1));
    for piece in [1, usize::from(piece).max(1)] {
        let (cut, cut_looked_at) = in_pieces(limits, wire, piece);
        match (&whole, &cut) {
            (Ok(Some(a)), Ok(Some(b))) => {
                assert_eq!(a, b);
                assert_eq!(looked_at, cut_looked_at, "header bytes");
            }
            (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
            (a, b) => panic!("whole {a:?}, in pieces of {piece} {b:?}"),
        }
    }
    if let Ok(Some(found)) = whole {
        assert!(found.len <= wire.len() && found.len <= limits.reply());
        assert!(looked_at <= found.len as u64);
        // What lies behind a reply is no part of the answer, and a scanner goes on to the next one.
        let mut scanner = Scanner::new(limits);
        assert_eq!(scanner.scan(&wire[..found.len]), Ok(Some(found)));
        assert!(scanner.is_idle());
        assert_eq!(scanner.scan(&wire[..found.len]), Ok(Some(found)));
        // One byte less is no reply.
        assert!(!matches!(Scanner::new(limits).scan(&wire[..found.len - 1]), Ok(Some(_))));
    }
});
