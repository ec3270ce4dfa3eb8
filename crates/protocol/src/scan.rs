//! `Scanner`: finds where a reply ends, however the bytes arrive; it builds nothing and knows no types.
//!
//! Each header byte is looked at once and bulk bodies are skipped, so a reply in ten thousand pieces costs what
//! it costs whole. A driver appends what it reads to one buffer and calls [`Scanner::scan`] with all of it.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::{error::ScanError, limits::Limits};

/// A whole reply found at the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scanned {
    /// Bytes of the reply, attributes in front of it included.
    pub len: usize,
    /// The marker of the value itself (behind attributes), as on the wire: `b'+'`, `b'>'` ...
    pub marker: u8,
}

/// One aggregate that is still open.
#[derive(Clone, Copy, Debug)]
struct Level {
    /// Elements still to come; for the streamed kinds it is not used.
    left: u64,
    kind: LevelKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LevelKind {
    /// `*2`, `%1`, `~1`, `>3`: ends when `left` is 0.
    Counted,
    /// `|1`: as `Counted`, but the value that it describes is still to come.
    Attribute,
    /// `*?`, `%?`, `~?`: ends with `.`.
    Streamed,
    /// `$?`: holds chunks `;n` and ends with `;0`.
    Chunks,
}

/// Where in the current element the scanner stands.
///
/// ```text
///            marker of a line            CR LF seen
///   Marker ------------------> Line  ---------------> (element done)
///      |  marker of a length                              ^
///      +------------------> Length --+-- aggregate: push a level
///                                    +-- string ---> Body-+
/// ```
#[derive(Clone, Copy, Debug)]
enum State {
    Marker,
    Line { from: usize },
    Length { marker: u8, value: u64, digits: u8, negative: bool, streamed: bool, cr: bool },
    Body { end: usize },
}

/// Finds reply ends in a growing buffer.
///
/// ```
/// use evenkeel_protocol::{Limits, Scanner};
/// let mut scanner = Scanner::new(Limits::default());
/// assert_eq!(scanner.scan(b"$5\r\nhel").unwrap(), None);
/// let found = scanner.scan(b"$5\r\nhello\r\n+OK\r\n").unwrap().unwrap();
/// assert_eq!((found.len, found.marker), (11, b'$'));
/// ```
#[derive(Clone, Debug)]
pub struct Scanner {
    limits: Limits,
    /// Bytes of the current reply that are done with.
    at: usize,
    state: State,
    stack: Vec<Level>,
    elements: usize,
    /// Marker of the value at the outermost level, once seen.
    outer: Option<u8>,
    header_bytes: u64,
}

/// Longest text of a length: 20 digits of a 64-bit number.
const MAX_DIGITS: u8 = 20;

impl Scanner {
    /// A scanner that stands before a reply.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            at: 0,
            state: State::Marker,
            stack: Vec::new(),
            elements: 0,
            outer: None,
            header_bytes: 0,
        }
    }

    /// The limits in force.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Header and line bytes looked at since the start; bodies of strings are not among them.
    pub const fn header_bytes(&self) -> u64 {
        self.header_bytes
    }

    /// True when no byte of a reply has been looked at.
    pub const fn is_idle(&self) -> bool {
        self.at == 0 && matches!(self.state, State::Marker)
    }

    /// How many bytes the reply under way needs in all, as far as its headers tell; 0 before a long string is seen.
    ///
    /// A reader may make room for exactly this much when it is large.
    pub const fn known_len(&self) -> usize {
        match self.state {
            State::Body { end } => end,
            _ => 0,
        }
    }

    /// Looks for the end of the reply at the front of `buf`.
    ///
    /// Until it answers, `buf` must begin with the same bytes at each call and may only grow. After an answer the
    /// caller takes `len` bytes off the front, and the next call starts on the next reply.
    ///
    /// # Errors
    /// What is not RESP, or is over a limit. The connection is of no use then: nobody knows where the next reply begins.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<Scanned>, ScanError> {
        loop {
            match self.state {
                State::Marker => {
                    let Some(&marker) = buf.get(self.at) else { return Ok(None) };
                    self.open(marker)?;
                }
                State::Line { from } => {
                    let rest = buf.get(from..).unwrap_or_default();
                    let Some(found) = memchr::memchr(b'\n', rest) else {
                        self.header_bytes = self.header_bytes.saturating_add(rest.len() as u64);
                        if buf.len().saturating_sub(self.at) > self.limits.bulk() {
                            return Err(ScanError::BulkTooLong { limit: self.limits.bulk() });
                        }
                        self.state = State::Line { from: buf.len() };
                        return Ok(None);
                    };
                    self.header_bytes = self.header_bytes.saturating_add(found as u64).saturating_add(1);
                    let end = from.saturating_add(found).saturating_add(1);
                    if buf.get(end.saturating_sub(2)) != Some(&b'\r') {
                        return Err(ScanError::MissingLineEnd { at: end.saturating_sub(1) });
                    }
                    if end.saturating_sub(self.at) > self.limits.bulk() {
                        return Err(ScanError::BulkTooLong { limit: self.limits.bulk() });
                    }
                    self.advance(end)?;
                    if let Some(done) = self.close_element() {
                        return Ok(Some(done));
                    }
                }
                State::Length { .. } => {
                    if !self.read_length(buf)? {
                        return Ok(None);
                    }
                    if matches!(self.state, State::Marker) && self.stack.is_empty() && self.outer.is_some() {
                        return Ok(Some(self.finish()));
                    }
                }
                State::Body { end } => {
                    if buf.len() < end {
                        return Ok(None);
                    }
                    if buf.get(end.saturating_sub(2)..end) != Some(b"\r\n") {
                        return Err(ScanError::MissingLineEnd { at: end.saturating_sub(2) });
                    }
                    self.at = end;
                    self.state = State::Marker;
                    if self.in_chunks() {
                        // A chunk is part of a string that is still open.
                        continue;
                    }
                    if let Some(done) = self.close_element() {
                        return Ok(Some(done));
                    }
                }
            }
        }
    }

    fn in_chunks(&self) -> bool {
        matches!(self.stack.last(), Some(Level { kind: LevelKind::Chunks, .. }))
    }

    /// Takes the marker at `self.at`.
    fn open(&mut self, marker: u8) -> Result<(), ScanError> {
        self.header_bytes = self.header_bytes.saturating_add(1);
        let at = self.at;
        let next = at.saturating_add(1);
        let misplaced = Err(ScanError::Misplaced { marker, at });
        if self.in_chunks() != (marker == b';') {
            return misplaced;
        }
        match marker {
            b'+' | b'-' | b':' | b',' | b'(' | b'#' | b'_' => self.state = State::Line { from: next },
            b'.' => {
                if !matches!(self.stack.last(), Some(Level { kind: LevelKind::Streamed, .. })) {
                    return misplaced;
                }
                self.at = next;
                self.state = length_of(marker);
                return Ok(());
            }
            b'>' if !self.stack.is_empty() => return misplaced,
            b'$' | b'!' | b'=' | b'*' | b'%' | b'~' | b'>' | b'|' | b';' => {
                self.at = next;
                self.state = length_of(marker);
            }
            _ => return Err(ScanError::BadMarker { marker, at }),
        }
        if marker != b';' && marker != b'|' {
            if self.stack.is_empty() {
                self.outer = Some(marker);
            }
            self.elements = self.elements.saturating_add(1);
            if self.elements > self.limits.elements() {
                return Err(ScanError::TooManyElements { limit: self.limits.elements() });
            }
        }
        Ok(())
    }

    /// Reads a length, digit by digit, and acts on it. False when more bytes are needed.
    fn read_length(&mut self, buf: &[u8]) -> Result<bool, ScanError> {
        let State::Length { marker, mut value, mut digits, mut negative, mut streamed, mut cr } = self.state
        else {
            return Ok(true);
        };
        let rest = buf.get(self.at..).unwrap_or_default();
        for (offset, &byte) in rest.iter().enumerate() {
            let bad = ScanError::BadLength { at: self.at.saturating_add(offset) };
            match byte {
                b'0'..=b'9' if !cr && !streamed && digits < MAX_DIGITS => {
                    digits = digits.saturating_add(1);
                    value = value
                        .checked_mul(10)
                        .and_then(|v| v.checked_add(u64::from(byte.wrapping_sub(b'0'))))
                        .ok_or(bad)?;
                }
                b'\r' if !cr => cr = true,
                b'\n' if cr => {
                    let end = self.at.saturating_add(offset).saturating_add(1);
                    self.header_bytes = self.header_bytes.saturating_add(offset as u64).saturating_add(1);
                    if digits == 0 && !streamed && marker != b'.' {
                        return Err(bad);
                    }
                    self.advance(end)?;
                    self.act_on_length(marker, value, negative, streamed)?;
                    return Ok(true);
                }
                b'-' if digits == 0 && !negative && !streamed && !cr => negative = true,
                b'?' if digits == 0 && !negative && !streamed && !cr => streamed = true,
                _ => return Err(bad),
            }
        }
        self.header_bytes = self.header_bytes.saturating_add(rest.len() as u64);
        self.at = self.at.saturating_add(rest.len());
        self.state = State::Length { marker, value, digits, negative, streamed, cr };
        Ok(false)
    }

    fn act_on_length(
        &mut self,
        marker: u8,
        value: u64,
        negative: bool,
        streamed: bool,
    ) -> Result<(), ScanError> {
        let bad = ScanError::BadLength { at: self.at };
        let null = negative && value == 1 && matches!(marker, b'$' | b'*');
        if negative && !null {
            return Err(bad);
        }
        self.state = State::Marker;
        match marker {
            b'.' => {
                if value != 0 || streamed {
                    return Err(bad);
                }
                self.stack.pop();
                self.close_inner();
                Ok(())
            }
            _ if null => {
                self.close_inner();
                Ok(())
            }
            b';' if streamed => Err(bad),
            b';' if value == 0 => {
                self.stack.pop();
                self.close_inner();
                Ok(())
            }
            b'$' if streamed => self.push(LevelKind::Chunks, 0),
            b'*' | b'%' | b'~' if streamed => self.push(LevelKind::Streamed, 0),
            _ if streamed => Err(bad),
            b'$' | b'!' | b'=' | b';' => {
                let length = usize::try_from(value)
                    .ok()
                    .filter(|&length| length <= self.limits.bulk())
                    .ok_or_else(|| ScanError::BulkTooLong { limit: self.limits.bulk() })?;
                if marker == b'=' && length < 4 {
                    return Err(bad);
                }
                let end = self.at.saturating_add(length).saturating_add(2);
                if end > self.limits.reply() {
                    return Err(ScanError::ReplyTooLong { limit: self.limits.reply() });
                }
                self.state = State::Body { end };
                Ok(())
            }
            _ => {
                let pairs = matches!(marker, b'%' | b'|');
                let left = if pairs { value.saturating_mul(2) } else { value };
                let room = self.limits.elements().saturating_sub(self.elements) as u64;
                if left > room {
                    return Err(ScanError::TooManyElements { limit: self.limits.elements() });
                }
                if marker == b'|' {
                    if left == 0 { Ok(()) } else { self.push(LevelKind::Attribute, left) }
                } else if left == 0 {
                    self.close_inner();
                    Ok(())
                } else {
                    self.push(LevelKind::Counted, left)
                }
            }
        }
    }

    fn push(&mut self, kind: LevelKind, left: u64) -> Result<(), ScanError> {
        if self.stack.len() >= self.limits.depth() {
            return Err(ScanError::TooDeep { limit: self.limits.depth() });
        }
        self.stack.push(Level { left, kind });
        Ok(())
    }

    fn advance(&mut self, end: usize) -> Result<(), ScanError> {
        if end > self.limits.reply() {
            return Err(ScanError::ReplyTooLong { limit: self.limits.reply() });
        }
        self.at = end;
        self.state = State::Marker;
        Ok(())
    }

    /// One element is whole; closes the levels that it fills.
    fn close_inner(&mut self) {
        while let Some(level) = self.stack.last_mut() {
            match level.kind {
                LevelKind::Counted | LevelKind::Attribute => {
                    level.left = level.left.saturating_sub(1);
                    if level.left > 0 {
                        return;
                    }
                    let attribute = level.kind == LevelKind::Attribute;
                    self.stack.pop();
                    if attribute {
                        // The value that was described comes next, in place of the attribute.
                        return;
                    }
                }
                LevelKind::Streamed | LevelKind::Chunks => return,
            }
        }
    }

    /// One element is whole; tells when the reply is.
    fn close_element(&mut self) -> Option<Scanned> {
        self.close_inner();
        // An attribute at the outermost level leaves `outer` empty: its value is still to come.
        if self.stack.is_empty() && self.outer.is_some() { Some(self.finish()) } else { None }
    }

    fn finish(&mut self) -> Scanned {
        let found = Scanned { len: self.at, marker: self.outer.unwrap_or_default() };
        self.at = 0;
        self.state = State::Marker;
        self.elements = 0;
        self.outer = None;
        found
    }
}

const fn length_of(marker: u8) -> State {
    State::Length { marker, value: 0, digits: 0, negative: false, streamed: false, cr: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8]) {
        let limits = Limits::default();
        let mut whole = Scanner::new(limits);
        let found = whole.scan(bytes).unwrap().unwrap_or_else(|| panic!("not whole: {bytes:?}"));
        assert_eq!(found.len, bytes.len(), "{}", String::from_utf8_lossy(bytes));
        let mut by_one = Scanner::new(limits);
        for end in 0..bytes.len() {
            assert_eq!(
                by_one.scan(&bytes[..end]).unwrap(),
                None,
                "{}",
                String::from_utf8_lossy(&bytes[..end])
            );
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
}
