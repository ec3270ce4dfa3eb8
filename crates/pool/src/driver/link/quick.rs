//! Whole messages at the front of a buffer, found without a tree: nearly everything that a link reads is one.
//!
//! What is not plainly a message, or not whole, is left to the scanner, which knows every form and every limit.

use std::ops::Range;

use bytes::Bytes;
use evenkeel_protocol::Push;

/// Where the parts of a message lie.
#[derive(Debug)]
pub(super) struct Found {
    /// Bytes of the whole frame.
    pub(super) len: usize,
    sharded: bool,
    pattern: Option<Range<usize>>,
    channel: Range<usize>,
    payload: Range<usize>,
}

/// The message that `buf` starts with, if it is a whole one as servers write it.
pub(super) fn find(buf: &[u8], resp3: bool) -> Option<Found> {
    let mark = if resp3 { b'>' } else { b'*' };
    if *buf.first()? != mark {
        return None;
    }
    let rest = buf.get(1..)?;
    let (sharded, by_pattern, mut at) = if rest.starts_with(b"3\r\n$7\r\nmessage\r\n") {
        (false, false, 17)
    } else if rest.starts_with(b"4\r\n$8\r\npmessage\r\n") {
        (false, true, 18)
    } else if rest.starts_with(b"3\r\n$8\r\nsmessage\r\n") {
        (true, false, 18)
    } else {
        return None;
    };
    let pattern = if by_pattern { Some(string(buf, &mut at)?) } else { None };
    let channel = string(buf, &mut at)?;
    let payload = string(buf, &mut at)?;
    Some(Found { len: at, sharded, pattern, channel, payload })
}

/// Digits of a length that is looked at here; a longer one is no message that lies in one read.
const MAX_DIGITS: usize = 7;

/// The string at `at`, which moves behind it.
fn string(buf: &[u8], at: &mut usize) -> Option<Range<usize>> {
    let rest = buf.get(*at..)?;
    if *rest.first()? != b'$' {
        return None;
    }
    let digits = rest.iter().skip(1).take(MAX_DIGITS + 1).position(|byte| *byte == b'\r')?;
    let mut len = 0usize;
    for digit in rest.get(1..=digits)? {
        len = len * 10 + usize::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    let start = *at + digits + 3;
    let end = start + len;
    let whole = digits > 0 && buf.get(start - 1) == Some(&b'\n') && buf.get(end..end + 2)? == b"\r\n";
    *at = end + 2;
    whole.then_some(start..end)
}

impl Found {
    /// The message, as parts of `chunk`, in which it begins at `base`.
    pub(super) fn message(self, chunk: &Bytes, base: usize) -> Push {
        let part = |range: Range<usize>| chunk.slice(base + range.start..base + range.end);
        let (channel, payload) = (part(self.channel), part(self.payload));
        match self.pattern {
            Some(pattern) => Push::PatternMessage { pattern: part(pattern), channel, payload },
            None => Push::Message { sharded: self.sharded, channel, payload },
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::{Limits, Reply, Scanner};
    use proptest::prelude::*;

    use super::*;

    /// What the scanner and the parser make of the front of `buf`.
    fn slowly(buf: &[u8]) -> Option<(usize, Push)> {
        let found = Scanner::new(Limits::default()).scan(buf).ok()??;
        let reply = Reply::new(Bytes::copy_from_slice(&buf[..found.len]));
        Push::read(&reply.frame().ok()?).map(|push| (found.len, push))
    }

    fn quickly(buf: &[u8], resp3: bool) -> Option<(usize, Push)> {
        let found = find(buf, resp3)?;
        let chunk = Bytes::copy_from_slice(buf);
        Some((found.len, found.message(&chunk, 0)))
    }

    fn wire(mark: u8, name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
        let mut wire =
            format!("{}{}\r\n${}\r\n{name}\r\n", mark as char, parts.len() + 1, name.len()).into_bytes();
        for part in parts {
            wire.extend(format!("${}\r\n", part.len()).as_bytes());
            wire.extend(part);
            wire.extend(b"\r\n");
        }
        wire
    }

    fn part() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..40)
    }

    proptest! {
        #[test]
        fn every_message_is_found_and_read_as_the_parser_reads_it(
            resp3: bool, kind in 0..3usize, parts in [part(), part(), part()], cut in 0..200usize
        ) {
            let name = ["message", "smessage", "pmessage"][kind];
            let parts = &parts[..if kind == 2 { 3 } else { 2 }];
            let wire = wire(if resp3 { b'>' } else { b'*' }, name, parts);
            let found = quickly(&wire, resp3);
            prop_assert!(found.is_some());
            prop_assert_eq!(&found, &slowly(&wire));
            // Half of one is not found; more behind it does not matter.
            let half = &wire[..cut.min(wire.len() - 1)];
            prop_assert!(find(half, resp3).is_none());
            let more = [wire.as_slice(), half].concat();
            prop_assert_eq!(quickly(&more, resp3), found);
        }

        #[test]
        fn what_is_found_in_damaged_bytes_is_what_the_parser_reads(
            parts in [part(), part()], place in 0..60usize, byte: u8
        ) {
            let mut wire = wire(b'>', "message", &parts);
            let place = place.min(wire.len() - 1);
            wire[place] = byte;
            if let Some(found) = quickly(&wire, true) {
                prop_assert_eq!(Some(found), slowly(&wire));
            }
        }
    }
}
