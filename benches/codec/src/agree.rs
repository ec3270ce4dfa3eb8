//! hiredis and we find the same ends in the same bytes: checked before anything is measured.

use evenkeel_protocol::{Limits, Scanner};

use crate::hiredis::Reader;

/// Numbers that are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn reply(draw: &mut Draw, depth: u64, out: &mut Vec<u8>) {
    match draw.below(if depth < 5 { 7 } else { 6 }) {
        0 => out.extend_from_slice(format!("+{}\r\n", "s".repeat(draw.below(40) as usize)).as_bytes()),
        1 => out.extend_from_slice(format!("-ERR {}\r\n", "e".repeat(draw.below(40) as usize)).as_bytes()),
        2 => out.extend_from_slice(format!(":{}\r\n", draw.0 as i64).as_bytes()),
        3 => out.extend_from_slice(b"$-1\r\n"),
        4 | 5 => {
            let text: Vec<u8> = (0..draw.below(200)).map(|_| draw.below(256) as u8).collect();
            out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
            out.extend_from_slice(&text);
            out.extend_from_slice(b"\r\n");
        }
        _ => {
            let count = draw.below(6);
            out.extend_from_slice(format!("*{count}\r\n").as_bytes());
            (0..count).for_each(|_| reply(draw, depth + 1, out));
        }
    }
}

/// Replies of every RESP2 kind, nested, fed byte by byte to both and whole to both.
///
/// # Panics
/// When they differ.
pub fn check() {
    const REPLIES: usize = 3000;
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let mut all = Vec::new();
    for number in 0..REPLIES {
        let mut wire = Vec::new();
        reply(&mut draw, 0, &mut wire);
        let mut theirs = Reader::new(true);
        let mut ours = Scanner::new(Limits::default());
        for end in 1..=wire.len() {
            let whole = theirs.feed(&wire[end - 1..end]) == 1;
            let found = ours.scan(&wire[..end]).expect("the bytes are RESP");
            assert_eq!(
                whole,
                found.is_some(),
                "reply {number} at byte {end}: {:?}",
                String::from_utf8_lossy(&wire)
            );
            assert_eq!(whole, end == wire.len(), "reply {number} at byte {end}");
        }
        all.extend_from_slice(&wire);
    }
    assert_eq!(Reader::new(true).feed(&all), REPLIES);
    let (mut ours, mut at, mut found) = (Scanner::new(Limits::default()), 0, 0);
    while let Some(one) = ours.scan(&all[at..]).expect("the bytes are RESP") {
        at += one.len;
        found += 1;
    }
    assert_eq!((at, found), (all.len(), REPLIES));
    eprintln!("hiredis and evenkeel agree on {REPLIES} replies, {} bytes", all.len());
}
