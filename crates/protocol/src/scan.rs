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

/// One aggregate that is still open, or the place of the reply itself.
#[derive(Clone, Copy, Debug)]
struct Level {
    /// Elements still to come, 1 or more while the level is open; the streamed kinds do not count.
    left: u64,
    kind: LevelKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LevelKind {
    /// Around everything: the reply is its one element.
    Root,
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

/// How far [`Scanner::walk`] came.
enum Walk {
    /// The reply is whole.
    Done,
    /// The bytes ended; the state says where.
    Short,
    /// Something comes that [`Scanner::step`] is for.
    Rare,
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
    /// The innermost open level.
    top: Level,
    /// The levels around it.
    outer: Vec<Level>,
    elements: usize,
    /// Marker of the value at the outermost level, once seen.
    marker: u8,
    /// An attribute has ended and the value that it describes has not begun; kept where a streamed level could end here.
    described: bool,
    header_bytes: u64,
}

/// Longest text of a length: 20 digits of a 64-bit number.
const MAX_DIGITS: u8 = 20;

/// So many digits always fit into 64 bits.
const SAFE_DIGITS: usize = 18;

/// Lines up to this length are searched byte by byte; most are shorter, and a search routine costs more to call.
const SHORT_LINE: usize = 16;

const ROOT: Level = Level { left: 1, kind: LevelKind::Root };

impl Scanner {
    /// A scanner that stands before a reply.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            at: 0,
            state: State::Marker,
            top: ROOT,
            outer: Vec::new(),
            elements: 0,
            marker: 0,
            described: false,
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
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<Scanned>, ScanError> {
        match self.short_line(buf).or_else(|| self.short_string(buf)) {
            Some(found) => Ok(Some(found)),
            None => self.scan_any(buf),
        }
    }

    /// A whole reply of one string of up to three digits' length, as nearly every value is: nothing of the state is needed for
    /// it either.
    #[inline]
    fn short_string(&mut self, buf: &[u8]) -> Option<Scanned> {
        let digit = |byte: u8| usize::from(byte.wrapping_sub(b'0'));
        let (length, header) = match *buf {
            [b'$', ones @ b'0'..=b'9', b'\r', b'\n', ..] => (digit(ones), 4usize),
            [b'$', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..] => {
                (digit(tens).wrapping_mul(10).wrapping_add(digit(ones)), 5)
            }
            [b'$', many @ b'0'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..] => {
                let tens = digit(many).wrapping_mul(10).wrapping_add(digit(tens));
                (tens.wrapping_mul(10).wrapping_add(digit(ones)), 6)
            }
            _ => return None,
        };
        let text_end = header.wrapping_add(length);
        let len = text_end.wrapping_add(2);
        if !self.is_idle() || self.limits.elements() == 0 || buf.get(text_end..len) != Some(b"\r\n") {
            return None;
        }
        if length > self.limits.bulk() || len > self.limits.reply() {
            return None;
        }
        self.header_bytes = self.header_bytes.saturating_add(header as u64);
        Some(Scanned { len, marker: b'$' })
    }

    /// A whole reply of one short line, such as `+OK` and `:1`: nothing of the state is needed for it. What is odd is left
    /// to the rest of the scanner, which names it.
    #[inline]
    fn short_line(&mut self, buf: &[u8]) -> Option<Scanned> {
        let (&marker, rest) = buf.split_first()?;
        if !matches!(marker, b'+' | b':') || !self.is_idle() || self.limits.elements() == 0 {
            return None;
        }
        let found = rest.iter().take(SHORT_LINE).position(|&byte| byte == b'\n')?;
        let text = found.checked_sub(1)?;
        let len = found.wrapping_add(2);
        if rest.get(text) != Some(&b'\r') || found > self.limits.bulk() || len > self.limits.reply() {
            return None;
        }
        self.header_bytes = self.header_bytes.saturating_add(len as u64);
        Some(Scanned { len, marker })
    }

    fn scan_any(&mut self, buf: &[u8]) -> Result<Option<Scanned>, ScanError> {
        loop {
            if matches!(self.state, State::Marker) {
                match self.walk(buf)? {
                    Walk::Done => return self.finish().map(Some),
                    Walk::Short => break,
                    Walk::Rare => {}
                }
            }
            if !self.step(buf)? {
                break;
            }
            if self.top.left == 0 {
                return self.finish().map(Some);
            }
        }
        if self.at > self.limits.reply() {
            return Err(ScanError::ReplyTooLong { limit: self.limits.reply() });
        }
        Ok(None)
    }

    /// Walks over whole elements with everything in registers. What it has looked at and could not finish goes into the
    /// state, so that no header byte is looked at again.
    fn walk(&mut self, buf: &[u8]) -> Result<Walk, ScanError> {
        if matches!(self.top.kind, LevelKind::Streamed | LevelKind::Chunks) {
            return Ok(Walk::Rare);
        }
        let limits = self.limits;
        let (mut at, mut left, mut elements, mut looked_at) = (self.at, self.top.left, self.elements, 0usize);
        if self.outer.is_empty()
            && let Some(&marker) = buf.get(at)
        {
            self.marker = marker;
        }
        let walked = loop {
            let Some((&marker, rest)) = buf.get(at..).and_then(<[u8]>::split_first) else {
                break Walk::Short;
            };
            if marker == b'$' {
                // Most of what servers send; everything else is asked about behind it.
                elements = elements.wrapping_add(1);
                let (value, digits, end) = number(rest);
                let header = digits.wrapping_add(end.bytes()).wrapping_add(1);
                looked_at = looked_at.wrapping_add(header);
                at = at.wrapping_add(header);
                if end != NumberEnd::Whole {
                    self.state = end.state(marker, value, digits);
                    break Walk::Rare;
                }
                let length = usize::try_from(value).unwrap_or(usize::MAX);
                if length > limits.bulk() {
                    return Err(ScanError::BulkTooLong { limit: limits.bulk() });
                }
                let text_end = at.saturating_add(length);
                let end = text_end.saturating_add(2);
                let Some(line_end) = buf.get(text_end..end) else {
                    if end > limits.reply() {
                        return Err(ScanError::ReplyTooLong { limit: limits.reply() });
                    }
                    self.state = State::Body { end };
                    break Walk::Short;
                };
                if line_end != b"\r\n" {
                    return Err(ScanError::MissingLineEnd { at: text_end });
                }
                at = end;
            } else if matches!(marker, b':' | b'+' | b'-' | b',' | b'_' | b'#' | b'(') {
                elements = elements.wrapping_add(1);
                let short = rest.iter().take(SHORT_LINE).position(|&byte| byte == b'\n');
                let Some(found) = short.or_else(|| {
                    let far = rest.get(SHORT_LINE..)?;
                    memchr::memchr(b'\n', far).map(|found| found.wrapping_add(SHORT_LINE))
                }) else {
                    looked_at = looked_at.wrapping_add(1).wrapping_add(rest.len());
                    if rest.len() > limits.bulk() {
                        return Err(ScanError::BulkTooLong { limit: limits.bulk() });
                    }
                    self.state = State::Line { from: buf.len() };
                    break Walk::Short;
                };
                if found == 0 || rest.get(found.wrapping_sub(1)) != Some(&b'\r') {
                    return Err(ScanError::MissingLineEnd { at: at.wrapping_add(found).wrapping_add(1) });
                }
                if found > limits.bulk() {
                    return Err(ScanError::BulkTooLong { limit: limits.bulk() });
                }
                let line = found.wrapping_add(2);
                looked_at = looked_at.wrapping_add(line);
                at = at.wrapping_add(line);
            } else if matches!(marker, b'*' | b'%' | b'~') || (marker == b'>' && self.outer.is_empty()) {
                elements = elements.wrapping_add(1);
                let (value, digits, end) = number(rest);
                let header = digits.wrapping_add(end.bytes()).wrapping_add(1);
                looked_at = looked_at.wrapping_add(header);
                at = at.wrapping_add(header);
                if end != NumberEnd::Whole {
                    self.state = end.state(marker, value, digits);
                    break Walk::Rare;
                }
                let count = if marker == b'%' { value.saturating_mul(2) } else { value };
                if count > limits.elements().saturating_sub(elements) as u64 {
                    return Err(ScanError::TooManyElements { limit: limits.elements() });
                }
                if count > 0 {
                    self.top.left = left;
                    self.push(LevelKind::Counted, count)?;
                    left = count;
                    continue;
                }
            } else {
                break Walk::Rare;
            }
            left = left.wrapping_sub(1);
            if left == 0 {
                self.top.left = 1;
                self.close_inner();
                left = self.top.left;
                if left == 0 {
                    break Walk::Done;
                }
                if self.top.kind == LevelKind::Streamed {
                    break Walk::Rare;
                }
                if self.outer.is_empty()
                    && let Some(&marker) = buf.get(at)
                {
                    // Behind attributes comes the value itself.
                    self.marker = marker;
                }
            }
        };
        self.at = at;
        self.top.left = left;
        self.elements = elements;
        self.header_bytes = self.header_bytes.saturating_add(looked_at as u64);
        // Levels are compared with the cap when they open; this covers the lines of streamed ones.
        if elements > limits.elements() {
            return Err(ScanError::TooManyElements { limit: limits.elements() });
        }
        Ok(walked)
    }

    /// Goes one step on from any state. False when more bytes are needed.
    fn step(&mut self, buf: &[u8]) -> Result<bool, ScanError> {
        match self.state {
            State::Marker => {
                let Some(&marker) = buf.get(self.at) else { return Ok(false) };
                self.open(marker)?;
                Ok(true)
            }
            State::Line { from } => {
                let rest = buf.get(from..).unwrap_or_default();
                let Some(found) = memchr::memchr(b'\n', rest) else {
                    self.header_bytes = self.header_bytes.saturating_add(rest.len() as u64);
                    // The marker is no part of the line.
                    if buf.len().saturating_sub(self.at).saturating_sub(1) > self.limits.bulk() {
                        return Err(ScanError::BulkTooLong { limit: self.limits.bulk() });
                    }
                    self.state = State::Line { from: buf.len() };
                    return Ok(false);
                };
                self.header_bytes = self.header_bytes.saturating_add(found as u64).saturating_add(1);
                let end = from.saturating_add(found).saturating_add(1);
                if buf.get(end.saturating_sub(2)) != Some(&b'\r') {
                    return Err(ScanError::MissingLineEnd { at: end.saturating_sub(1) });
                }
                if end.saturating_sub(self.at).saturating_sub(2) > self.limits.bulk() {
                    return Err(ScanError::BulkTooLong { limit: self.limits.bulk() });
                }
                self.at = end;
                self.state = State::Marker;
                self.close_inner();
                Ok(true)
            }
            State::Length { .. } => self.read_length(buf),
            State::Body { end } => {
                if buf.len() < end {
                    return Ok(false);
                }
                if buf.get(end.saturating_sub(2)..end) != Some(b"\r\n") {
                    return Err(ScanError::MissingLineEnd { at: end.saturating_sub(2) });
                }
                self.at = end;
                self.state = State::Marker;
                // A chunk is part of a string that is still open.
                if self.top.kind != LevelKind::Chunks {
                    self.close_inner();
                }
                Ok(true)
            }
        }
    }

    /// Takes the marker at `self.at`.
    fn open(&mut self, marker: u8) -> Result<(), ScanError> {
        self.header_bytes = self.header_bytes.saturating_add(1);
        let at = self.at;
        let next = at.saturating_add(1);
        let misplaced = Err(ScanError::Misplaced { marker, at });
        if (self.top.kind == LevelKind::Chunks) != (marker == b';') {
            return misplaced;
        }
        match marker {
            b'+' | b'-' | b':' | b',' | b'(' | b'#' | b'_' => self.state = State::Line { from: next },
            b'.' => {
                if self.top.kind != LevelKind::Streamed || self.described {
                    return misplaced;
                }
                self.at = next;
                self.state = length_of(marker);
                return Ok(());
            }
            b'>' if !self.outer.is_empty() => return misplaced,
            b'$' | b'!' | b'=' | b'*' | b'%' | b'~' | b'>' | b'|' | b';' => {
                self.at = next;
                self.state = length_of(marker);
            }
            _ => return Err(ScanError::BadMarker { marker, at }),
        }
        self.described = false;
        if marker != b';' {
            if self.outer.is_empty() && marker != b'|' {
                self.marker = marker;
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
                // `-1` is the only number below zero, and an end marker has none.
                b'0'..=b'9' if negative && (digits > 0 || byte != b'1') || marker == b'.' => return Err(bad),
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
                    self.at = end;
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
                if streamed {
                    return Err(bad);
                }
                self.pop();
                self.close_inner();
                Ok(())
            }
            _ if null => {
                self.close_inner();
                Ok(())
            }
            b';' if streamed => Err(bad),
            b';' if value == 0 => {
                self.pop();
                self.close_inner();
                Ok(())
            }
            b'$' if streamed => self.push(LevelKind::Chunks, 1),
            b'*' | b'%' | b'~' if streamed => self.push(LevelKind::Streamed, 1),
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
                    if left > 0 {
                        return self.push(LevelKind::Attribute, left);
                    }
                    self.described = self.top.kind == LevelKind::Streamed;
                    Ok(())
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
        if self.outer.len() >= self.limits.depth() {
            return Err(ScanError::TooDeep { limit: self.limits.depth() });
        }
        self.outer.push(self.top);
        self.top = Level { left, kind };
        Ok(())
    }

    fn pop(&mut self) {
        self.top = self.outer.pop().unwrap_or(Level { left: 0, kind: LevelKind::Root });
    }

    /// One element is whole; closes the levels that it fills. The root stays, with nothing left.
    fn close_inner(&mut self) {
        loop {
            match self.top.kind {
                LevelKind::Streamed | LevelKind::Chunks => return,
                LevelKind::Root | LevelKind::Counted | LevelKind::Attribute => {
                    self.top.left = self.top.left.saturating_sub(1);
                    if self.top.left > 0 || self.top.kind == LevelKind::Root {
                        return;
                    }
                    let attribute = self.top.kind == LevelKind::Attribute;
                    self.pop();
                    if attribute {
                        // The value that was described comes next, in place of the attribute.
                        self.described = self.top.kind == LevelKind::Streamed;
                        return;
                    }
                }
            }
        }
    }

    fn finish(&mut self) -> Result<Scanned, ScanError> {
        if self.at > self.limits.reply() {
            return Err(ScanError::ReplyTooLong { limit: self.limits.reply() });
        }
        let found = Scanned { len: self.at, marker: self.marker };
        self.at = 0;
        self.top = ROOT;
        self.elements = 0;
        Ok(found)
    }
}

/// How the digits of a length ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NumberEnd {
    /// With a line end.
    Whole,
    /// With the first byte of one, and nothing behind it, or something else.
    HalfLineEnd,
    /// With something else, or nothing.
    Open,
}

impl NumberEnd {
    /// Bytes of it that have been looked at.
    const fn bytes(self) -> usize {
        match self {
            Self::Whole => 2,
            Self::HalfLineEnd => 1,
            Self::Open => 0,
        }
    }

    /// Where a scanner stands that has to wait for the rest, or look at what is rare.
    const fn state(self, marker: u8, value: u64, digits: usize) -> State {
        let cr = matches!(self, Self::HalfLineEnd);
        State::Length { marker, value, digits: digits as u8, negative: false, streamed: false, cr }
    }
}

/// Reads at most [`SAFE_DIGITS`] digits and the line end behind them; gives the value and how many digits there were.
#[inline]
fn number(text: &[u8]) -> (u64, usize, NumberEnd) {
    let mut value = 0u64;
    let mut digits = 0usize;
    loop {
        let Some(&byte) = text.get(digits) else { return (value, digits, NumberEnd::Open) };
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 && digits < SAFE_DIGITS {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            digits = digits.wrapping_add(1);
            continue;
        }
        let end = match (byte, text.get(digits.wrapping_add(1))) {
            (b'\r', Some(b'\n')) if digits > 0 => NumberEnd::Whole,
            (b'\r', _) if digits > 0 => NumberEnd::HalfLineEnd,
            _ => NumberEnd::Open,
        };
        return (value, digits, end);
    }
}

const fn length_of(marker: u8) -> State {
    State::Length { marker, value: 0, digits: 0, negative: false, streamed: false, cr: false }
}

#[cfg(test)]
mod tests;
