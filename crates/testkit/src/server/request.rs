//! Reads commands as a server does: arrays of bulk strings, or inline lines. It resumes where bytes ran out.

use std::borrow::Cow;

const MAX_ARGS: i64 = 1024 * 1024;
const MAX_BULK: usize = 512 << 20;
const MAX_LINE: usize = 64 * 1024;

/// The arguments of one command, the name first, as places in a buffer.
#[derive(Clone, Copy)]
pub(super) struct Args<'a> {
    bytes: &'a [u8],
    places: &'a [(usize, usize)],
}

impl<'a> Args<'a> {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Argument `index`; empty beyond the last, which the arity check rules out.
    pub(super) fn at(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    pub(super) fn get(&self, index: usize) -> Option<&'a [u8]> {
        let &(start, end) = self.places.get(index)?;
        self.bytes.get(start..end)
    }

    /// The arguments from `index` on.
    pub(super) fn from(&self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        let places = self.places.get(index..).unwrap_or_default();
        places.iter().map(move |&(start, end)| bytes.get(start..end).unwrap_or_default())
    }

    /// Whether argument `index` is the word, in whatever case.
    pub(super) fn is(&self, index: usize, word: &str) -> bool {
        self.at(index).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Argument `index` as text, for messages.
    pub(super) fn text(&self, index: usize) -> Cow<'a, str> {
        String::from_utf8_lossy(self.at(index))
    }
}

/// A command kept beyond its read buffer: queued by MULTI, or made by a script.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnedArgs {
    bytes: Vec<u8>,
    places: Vec<(usize, usize)>,
}

impl OwnedArgs {
    pub(super) fn push(&mut self, arg: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(arg);
        self.places.push((start, self.bytes.len()));
    }

    pub(super) fn as_args(&self) -> Args<'_> {
        Args { bytes: &self.bytes, places: &self.places }
    }
}

impl<'a> FromIterator<&'a [u8]> for OwnedArgs {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(args: I) -> Self {
        let mut owned = Self::default();
        args.into_iter().for_each(|arg| owned.push(arg));
        owned
    }
}

/// Finds commands in a buffer. Not for several buffers at a time.
#[derive(Debug, Default)]
pub(super) struct Requests {
    places: Vec<(usize, usize)>,
    /// Bulk strings of the open array that are still to come.
    left: usize,
    /// Length of the bulk string whose header has been read.
    bulk: Option<usize>,
    at: usize,
    /// Unescaped arguments of an inline command.
    inline: Option<OwnedArgs>,
}

impl Requests {
    /// Finds the next command from the start of `buf`; gives its length, 0 when bytes are missing.
    ///
    /// After a find the caller passes the buffer from behind it. A command of no arguments is to be passed over.
    pub(super) fn next(&mut self, buf: &[u8]) -> Result<usize, Cow<'static, str>> {
        if self.left == 0 && self.bulk.is_none() {
            self.places.clear();
            self.inline = None;
            self.at = 0;
            match buf.first() {
                None => return Ok(0),
                Some(b'*') => {
                    let Some((count, next)) =
                        header(buf, 1, "ERR Protocol error: too big mbulk count string")?
                    else {
                        return Ok(0);
                    };
                    let count = match count {
                        Some(count) if count <= MAX_ARGS => usize::try_from(count).unwrap_or(0),
                        _ => return Err("ERR Protocol error: invalid multibulk length".into()),
                    };
                    self.at = next;
                    self.left = count;
                    if count == 0 {
                        return Ok(next);
                    }
                }
                Some(_) => return self.next_inline(buf),
            }
        }
        while self.left > 0 {
            let length = if let Some(length) = self.bulk {
                length
            } else {
                match buf.get(self.at) {
                    None => return Ok(0),
                    Some(b'$') => {}
                    Some(&other) => {
                        let other = char::from(other);
                        return Err(format!("ERR Protocol error: expected '$', got '{other}'").into());
                    }
                }
                let Some((length, next)) =
                    header(buf, self.at + 1, "ERR Protocol error: too big bulk count string")?
                else {
                    return Ok(0);
                };
                let length = length
                    .and_then(|length| usize::try_from(length).ok())
                    .filter(|&length| length <= MAX_BULK)
                    .ok_or(Cow::Borrowed("ERR Protocol error: invalid bulk length"))?;
                self.at = next;
                self.bulk = Some(length);
                length
            };
            let end = self.at + length;
            if buf.len() < end + 2 {
                return Ok(0);
            }
            self.places.push((self.at, end));
            self.at = end + 2;
            self.bulk = None;
            self.left -= 1;
        }
        Ok(self.at)
    }

    /// The command that [`next`](Self::next) found at the start of `buf`.
    pub(super) fn args<'a>(&'a self, buf: &'a [u8]) -> Args<'a> {
        match &self.inline {
            Some(inline) => inline.as_args(),
            None => Args { bytes: buf, places: &self.places },
        }
    }

    fn next_inline(&mut self, buf: &[u8]) -> Result<usize, Cow<'static, str>> {
        let Some(end) = buf.iter().position(|&byte| byte == b'\n') else {
            if buf.len() > MAX_LINE {
                return Err("ERR Protocol error: too big inline request".into());
            }
            return Ok(0);
        };
        let line = buf.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let args = split_line(line).ok_or("ERR Protocol error: unbalanced quotes in request")?;
        self.inline = Some(args);
        Ok(end + 1)
    }
}

/// A number and the place behind its line; no number when it is malformed; nothing when bytes are missing.
fn header(
    buf: &[u8],
    from: usize,
    too_long: &'static str,
) -> Result<Option<(Option<i64>, usize)>, Cow<'static, str>> {
    let rest = buf.get(from..).unwrap_or_default();
    let mut value: Option<i64> = Some(0);
    let mut negative = false;
    let mut digits = 0;
    for (offset, &byte) in rest.iter().enumerate().take(MAX_LINE) {
        match byte {
            b'\r' => {
                if rest.get(offset + 1).is_none() {
                    return Ok(None);
                }
                let value = if digits == 0 { None } else { value };
                return Ok(Some((
                    value.map(|value| if negative { -value } else { value }),
                    from + offset + 2,
                )));
            }
            b'0'..=b'9' => {
                digits += 1;
                value = value.and_then(|v| v.checked_mul(10)?.checked_add(i64::from(byte - b'0')));
            }
            b'-' if offset == 0 => negative = true,
            _ => value = None,
        }
    }
    if rest.len() >= MAX_LINE { Err(too_long.into()) } else { Ok(None) }
}

/// Splits an inline command as a shell would: quotes and the escapes of redis-cli.
fn split_line(line: &[u8]) -> Option<OwnedArgs> {
    let mut args = OwnedArgs::default();
    let mut bytes = line.iter().copied().peekable();
    loop {
        while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
        let Some(&first) = bytes.peek() else { return Some(args) };
        let mut arg = Vec::new();
        if first == b'"' || first == b'\'' {
            bytes.next();
            loop {
                match bytes.next()? {
                    byte if byte == first => break,
                    b'\\' if first == b'"' => match bytes.next()? {
                        b'n' => arg.push(b'\n'),
                        b'r' => arg.push(b'\r'),
                        b't' => arg.push(b'\t'),
                        b'x' => {
                            let mut digit = || char::from(bytes.next()?).to_digit(16);
                            arg.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
                        }
                        other => arg.push(other),
                    },
                    b'\\' if bytes.peek() == Some(&b'\'') => arg.extend(bytes.next()),
                    byte => arg.push(byte),
                }
            }
            if bytes.peek().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                return None;
            }
        } else {
            while let Some(byte) = bytes.next_if(|byte| !byte.is_ascii_whitespace()) {
                arg.push(byte);
            }
        }
        args.push(&arg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(wire: &[u8]) -> Vec<Vec<String>> {
        let mut requests = Requests::default();
        let (mut found, mut from) = (Vec::new(), 0);
        loop {
            let rest = &wire[from..];
            let length = requests.next(rest).unwrap();
            if length == 0 {
                return found;
            }
            found.push(
                requests.args(rest).from(0).map(|arg| String::from_utf8(arg.to_vec()).unwrap()).collect(),
            );
            from += length;
        }
    }

    #[test]
    fn commands_are_found_whole_and_byte_by_byte() {
        let wire = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING \"a b\"\r\n*0\r\n*1\r\n$0\r\n\r\n";
        let found = all(wire);
        assert_eq!(found, [vec!["GET", "k"], vec!["PING", "a b"], vec![], vec![""]]);
        let mut requests = Requests::default();
        let one = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        for end in 0..one.len() {
            assert_eq!(requests.next(&one[..end]).unwrap(), 0);
        }
        assert_eq!(requests.next(one).unwrap(), one.len());
        assert_eq!(requests.args(one).at(1), b"k");
    }

    #[test]
    fn what_is_no_command_is_named_as_redis_names_it() {
        let error = |wire: &[u8]| Requests::default().next(wire).unwrap_err().into_owned();
        assert_eq!(error(b"*x\r\n"), "ERR Protocol error: invalid multibulk length");
        assert_eq!(error(b"*2000000\r\n"), "ERR Protocol error: invalid multibulk length");
        assert_eq!(error(b"*1\r\n+a\r\n"), "ERR Protocol error: expected '$', got '+'");
        assert_eq!(error(b"*1\r\n$-1\r\n"), "ERR Protocol error: invalid bulk length");
        assert_eq!(error(b"PING \"a\r\n"), "ERR Protocol error: unbalanced quotes in request");
    }
}
