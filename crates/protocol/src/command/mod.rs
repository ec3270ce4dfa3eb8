//! `Command`: what is asked, encoded once, at the caller, into wire form.

mod arg;
mod body;
mod generated;
mod keys;
mod refused;
mod spec;

use std::{fmt, ops::Range, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};

pub use arg::{ToArg, ToArgs};
use body::Body;
pub use refused::LaneRefusal;
pub use spec::{Request, Response, Spec};

use crate::{encode, slot::Slot};

/// From here on `Bytes` are sent by reference, in a `writev`, instead of being copied.
const SHARE_FROM: usize = 16 * 1024;

/// A command in wire form, with what routing needs to know.
///
/// `Debug` shows the name and the number of arguments; keys and values are nobody's business.
///
/// ```
/// use bytes::BytesMut;
/// use evenkeel_protocol::Command;
/// let command = Command::new("SET").key("k").arg("v").arg("PX").arg(1500);
/// assert_eq!(command.slot(), Some(evenkeel_protocol::Slot::of(b"k")));
/// assert_eq!(format!("{command:?}"), "SET with 4 arguments");
/// let mut wire = BytesMut::new();
/// command.encode(&mut wire);
/// assert!(wire.starts_with(b"*5\r\n$3\r\nSET\r\n"));
/// ```
#[derive(Clone)]
pub struct Command {
    /// Arguments in wire form, the name first, without the array header and without shared ones.
    body: Body,
    /// Rare, so that it costs a command without large arguments one word.
    large: Option<Box<Large>>,
    argc: u32,
    /// The first key inside `body`, where it was named as one; it ends at 0 where none was, since a name comes first.
    key: (u32, u32),
    spec: Option<&'static Spec>,
    retry: Retry,
}

/// Large arguments with the place in the body where each belongs.
#[derive(Clone, Debug, Default)]
struct Large(Vec<(usize, Bytes)>);

/// Whether a command may go on the wire again after it may have run.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// Yes: the caller says that twice is as good as once.
    Idempotent,
    /// Only if it is read-only.
    #[default]
    ReadOnly,
}

impl Command {
    /// A command by its name; a subcommand is the first argument.
    pub fn new(name: &str) -> Self {
        let mut command = Self {
            body: Body::new(),
            large: None,
            argc: 0,
            key: (0, 0),
            spec: Spec::find(name),
            retry: Retry::ReadOnly,
        };
        command.push_bytes(name.as_bytes());
        command
    }

    /// A command whose name is known when compiling: `head` is the name in wire form.
    #[doc(hidden)]
    pub const fn with_head(head: &'static [u8], spec: Option<&'static Spec>) -> Self {
        Self { body: Body::of(head), large: None, argc: 1, key: (0, 0), spec, retry: Retry::ReadOnly }
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl ToArg) -> Self {
        arg.append_to(&mut self);
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn args_from(mut self, args: impl ToArgs) -> Self {
        args.append_all_to(&mut self);
        self
    }

    /// Appends a key; the first one decides where the command goes.
    #[must_use]
    #[inline]
    pub fn key(mut self, key: impl ToArg) -> Self {
        self.push_key(key);
        self
    }

    /// As [`key`](Self::key), in place: what was just written in small pieces is dear to move in large ones.
    #[doc(hidden)]
    #[inline]
    pub fn push_key(&mut self, key: impl ToArg) {
        let before = self.body.len();
        key.append_to(self);
        if self.key.1 == 0
            && let Some(range) = self.last_string(before)
        {
            self.key = (range.start as u32, range.end as u32);
        }
    }

    /// Says that running the command twice is as good as once, so that it may be sent again when its fate is unknown.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.set_idempotent();
        self
    }

    /// As [`idempotent`](Self::idempotent), in place.
    pub fn set_idempotent(&mut self) {
        self.retry = Retry::Idempotent;
    }

    /// Takes the command away; what stays knows its name and has no arguments, nor even that on the wire.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let rest = Self {
            body: Body::new(),
            large: None,
            argc: 0,
            key: (0, 0),
            spec: self.spec(),
            retry: self.retry,
        };
        std::mem::replace(self, rest)
    }

    #[inline]
    pub(crate) fn push_bytes(&mut self, arg: &[u8]) {
        self.argc = self.argc.saturating_add(1);
        self.body.put_string(arg);
    }

    pub(crate) fn push_shared(&mut self, arg: &Bytes) {
        if arg.len() < SHARE_FROM {
            return self.push_bytes(arg);
        }
        self.put_length(arg.len());
        self.large.get_or_insert_default().0.push((self.body.len(), arg.clone()));
        self.body.extend_from_slice(b"\r\n");
    }

    fn shared(&self) -> &[(usize, Bytes)] {
        self.large.as_ref().map_or(&[], |large| &large.0)
    }

    fn put_length(&mut self, length: usize) {
        self.argc = self.argc.saturating_add(1);
        self.body.put_length(length);
    }

    /// Where the string that begins at `start` in the body has its bytes; `None` when they are shared.
    fn last_string(&self, start: usize) -> Option<Range<usize>> {
        let written = self.body.get(start..)?;
        // A length has few digits: no search routine is worth its call.
        let line = match written {
            [_, _, _, b'\n', ..] => 3,
            [_, _, _, _, b'\n', ..] => 4,
            _ => written.iter().position(|&byte| byte == b'\n')?,
        };
        let from = start + line + 1;
        let to = self.body.len().checked_sub(2)?;
        if self.shared().last().is_some_and(|(at, _)| *at >= start) {
            return None;
        }
        (from <= to).then_some(from..to)
    }

    /// Appends the whole command to `out`, shared arguments copied.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.encoded_len());
        self.put_head(out);
        let mut from = 0;
        for (at, shared) in self.shared() {
            out.put_slice(self.body.get(from..*at).unwrap_or_default());
            out.put_slice(shared);
            from = *at;
        }
        out.put_slice(self.body.get(from..).unwrap_or_default());
    }

    /// Appends the command to `out`; at each large argument `share` is given the bytes that belong where `out` ends then.
    pub fn encode_with(&self, out: &mut BytesMut, mut share: impl FnMut(&BytesMut, Bytes)) {
        self.put_head(out);
        let mut from = 0;
        for (at, shared) in self.shared() {
            out.put_slice(self.body.get(from..*at).unwrap_or_default());
            share(out, shared.clone());
            from = *at;
        }
        out.put_slice(self.body.get(from..).unwrap_or_default());
    }

    fn put_head(&self, out: &mut BytesMut) {
        encode::put_head(out, b'*', self.argc as usize);
    }

    /// Bytes on the wire, large arguments included.
    pub fn encoded_len(&self) -> usize {
        let digits = if self.argc < 10 { 1 } else { self.argc.ilog10() as usize + 1 };
        let head = 3 + digits;
        head + self.body.len() + self.shared().iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }

    /// The arguments, the name first; large shared ones included.
    pub fn args(&self) -> Args<'_> {
        Args { command: self, at: 0, shared: 0 }
    }

    /// Its name as it was given.
    pub fn name(&self) -> &str {
        self.args().next().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// What is known of it; subcommands are looked up with their container.
    #[inline]
    pub fn spec(&self) -> Option<&'static Spec> {
        match self.spec {
            Some(spec) if spec.is_container() => self.subcommand(spec),
            spec => spec,
        }
    }

    /// Whether nothing about it has to be looked at before a lane may have it: it is known, no lane refuses it, it does not
    /// wait on the server and runs no script.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.spec.is_some_and(Spec::is_plain)
    }

    fn subcommand(&self, spec: &'static Spec) -> Option<&'static Spec> {
        let subcommand = self.args().nth(1).and_then(|sub| std::str::from_utf8(sub).ok())?;
        Spec::find(&format!("{} {subcommand}", spec.name())).or(Some(spec))
    }

    /// The key that decides where it goes: the one named, else the first that the command table finds.
    #[inline]
    pub fn routing_key(&self) -> Option<&[u8]> {
        match self.key {
            (_, 0) => keys::first(self),
            (from, to) => self.body.get(from as usize..to as usize),
        }
    }

    /// Every key that the command table finds.
    pub fn keys(&self) -> Vec<&[u8]> {
        keys::all(self)
    }

    /// The slot of its routing key.
    #[inline]
    pub fn slot(&self) -> Option<Slot> {
        self.routing_key().map(Slot::of)
    }

    /// It may wait on the server, so it runs on a lease. `XREAD` and `XREADGROUP` wait only with `BLOCK`.
    pub fn is_blocking(&self) -> bool {
        match self.spec {
            Some(spec) if spec.is_blocking() => match spec.name() {
                "XREAD" | "XREADGROUP" => self.args().any(|arg| arg.eq_ignore_ascii_case(b"BLOCK")),
                _ => true,
            },
            _ => false,
        }
    }

    /// How long the server may wait: `None` for a command that does not block, `Some(None)` for one that waits for ever.
    pub fn blocks_for(&self) -> Option<Option<Duration>> {
        if self.is_blocking() { Some(keys::block_timeout(self)) } else { None }
    }

    /// The same command with another time to wait for data, zero for ever; `None` for a command that does not wait for
    /// data (`WAIT` waits for replicas).
    pub fn with_block_timeout(&self, wait: Duration) -> Option<Self> {
        if !self.is_blocking() {
            return None;
        }
        let mut other = keys::with_block_timeout(self, wait)?;
        other.retry = self.retry;
        Some(other)
    }

    /// It only reads. A command that the table does not know counts as a write.
    pub fn is_read_only(&self) -> bool {
        self.spec().is_some_and(Spec::is_read_only)
    }

    /// It may change data or tell subscribers. A command that the table does not know may.
    pub fn may_write(&self) -> bool {
        self.spec().is_none_or(Spec::may_write)
    }

    /// It may go on the wire again although it may have run.
    pub fn may_run_twice(&self) -> bool {
        self.retry == Retry::Idempotent || self.is_read_only()
    }

    /// It runs a script or a function, which may have written before it returns an error code (P3).
    pub fn is_script(&self) -> bool {
        self.spec.is_some_and(Spec::is_script)
    }

    /// Whether it only prepares or surrounds the commands beside it, as ASKING, MULTI and EXEC do: it has no slot of its own.
    pub fn is_bracket(&self) -> bool {
        self.spec.is_some_and(|spec| matches!(spec.name(), "ASKING" | "EXEC" | "MULTI"))
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name that the table does not know may be a payload in the wrong place.
        let name = self.spec.map_or("command", Spec::name);
        write!(f, "{name} with {} arguments", self.argc.saturating_sub(1))
    }
}

/// Walks the arguments of a [`Command`].
#[derive(Clone, Debug)]
pub struct Args<'a> {
    command: &'a Command,
    at: usize,
    shared: usize,
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let body: &'a [u8] = &self.command.body;
        let rest = body.get(self.at..)?;
        let line = memchr::memchr(b'\n', rest)?;
        let length: usize = std::str::from_utf8(rest.get(1..line.checked_sub(1)?)?).ok()?.parse().ok()?;
        let from = self.at + line + 1;
        match self.command.shared().get(self.shared) {
            Some((at, bytes)) if *at == from => {
                self.shared += 1;
                self.at = from + 2;
                Some(bytes)
            }
            _ => {
                self.at = from + length + 2;
                body.get(from..from + length)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(command: &Command) -> Vec<u8> {
        let mut out = BytesMut::new();
        command.encode(&mut out);
        assert_eq!(out.len(), command.encoded_len());
        out.to_vec()
    }

    #[test]
    fn arguments_come_back_as_they_were_given() {
        let big = Bytes::from(vec![b'x'; SHARE_FROM]);
        let command =
            Command::new("MSET").key("a").arg(&big).arg("b").arg(&big).arg(-5i64).arg(b"\r\n\0".to_vec());
        let args: Vec<&[u8]> = command.args().collect();
        assert_eq!(args, [&b"MSET"[..], b"a", &big, b"b", &big, b"-5", b"\r\n\0"]);
        let bytes = wire(&command);
        assert!(bytes.starts_with(b"*7\r\n$4\r\nMSET\r\n$1\r\na\r\n$16384\r\nxx"));
        let mut parts = Vec::new();
        let mut out = BytesMut::new();
        command.encode_with(&mut out, |out, bytes| parts.push((out.len(), bytes)));
        assert_eq!(parts.len(), 2);
        assert_eq!(out.len() + 2 * SHARE_FROM, bytes.len());
    }

    #[test]
    fn the_key_is_found_named_or_by_the_table() {
        assert_eq!(Command::new("GET").key("k").routing_key(), Some(&b"k"[..]));
        assert_eq!(Command::new("GET").arg("k").routing_key(), Some(&b"k"[..]));
        assert_eq!(
            Command::new("get").key(Bytes::from(vec![b'k'; SHARE_FROM])).routing_key().unwrap().len(),
            SHARE_FROM
        );
        assert_eq!(Command::new("PING").routing_key(), None);
        assert_eq!(Command::new("EVAL").arg("return 1").arg(1).arg("k").routing_key(), Some(&b"k"[..]));
        assert_eq!(Command::new("EVAL").arg("return 1").arg(0).arg("k").routing_key(), None);
        assert_eq!(
            Command::new("XREAD").args_from(["COUNT", "1", "STREAMS", "s", "t", "0", "0"]).keys(),
            [&b"s"[..], b"t"]
        );
        assert_eq!(Command::new("MSET").args_from(["a", "1", "b", "2"]).keys(), [&b"a"[..], b"b"]);
        assert_eq!(Command::new("BLPOP").args_from(["a", "b", "0"]).keys(), [&b"a"[..], b"b"]);
        assert_eq!(Command::new("OBJECT").args_from(["ENCODING", "k"]).routing_key(), Some(&b"k"[..]));
        assert_eq!(
            Command::new("XGROUP").args_from(["CREATE", "k", "g", "$"]).routing_key(),
            Some(&b"k"[..])
        );
        assert_eq!(Command::new("NOSUCH").arg("k").routing_key(), None);
    }

    #[test]
    fn a_wait_is_given_another_time() {
        let with = |words: &[&str], wait| {
            let (name, args) = words.split_first().unwrap();
            let other = Command::new(name).args_from(args.to_vec()).with_block_timeout(wait)?;
            let words: Vec<_> = other.args().map(|arg| String::from_utf8(arg.to_vec()).unwrap()).collect();
            Some(words.join(" "))
        };
        let half = Duration::from_millis(500);
        assert_eq!(with(&["BLPOP", "a", "b", "9"], half).unwrap(), "BLPOP a b 0.5");
        assert_eq!(
            with(&["BLMOVE", "a", "b", "LEFT", "LEFT", "9"], half).unwrap(),
            "BLMOVE a b LEFT LEFT 0.5"
        );
        assert_eq!(with(&["BLMPOP", "9", "1", "a", "LEFT"], half).unwrap(), "BLMPOP 0.5 1 a LEFT");
        let group = ["XREADGROUP", "GROUP", "g", "c", "BLOCK", "9000", "STREAMS", "s", ">"];
        assert_eq!(with(&group, half).unwrap(), "XREADGROUP GROUP g c BLOCK 500 STREAMS s >");
        assert_eq!(with(&group, Duration::from_micros(1)).unwrap().split(' ').nth(5).unwrap(), "1");
        assert_eq!(with(&["BLPOP", "a", "9"], Duration::ZERO).unwrap(), "BLPOP a 0");
        for other in [&["WAIT", "1", "0"] as &[_], &["GET", "a"], &["XREAD", "STREAMS", "s", "0"]] {
            assert_eq!(with(other, half), None, "{other:?}");
        }
    }

    #[test]
    fn blocking_is_told_with_its_time() {
        let blocks = |command: Command| command.blocks_for();
        assert_eq!(blocks(Command::new("GET").arg("k")), None);
        assert_eq!(
            blocks(Command::new("BLPOP").args_from(["a", "1.5"])),
            Some(Some(Duration::from_millis(1500)))
        );
        assert_eq!(blocks(Command::new("BLPOP").args_from(["a", "0"])), Some(None));
        assert_eq!(blocks(Command::new("XREAD").args_from(["STREAMS", "s", "0"])), None);
        assert_eq!(
            blocks(Command::new("XREAD").args_from(["BLOCK", "250", "STREAMS", "s", "$"])),
            Some(Some(Duration::from_millis(250)))
        );
        assert_eq!(
            blocks(Command::new("BLMPOP").args_from(["2", "1", "k", "LEFT"])),
            Some(Some(Duration::from_secs(2)))
        );
        assert_eq!(
            blocks(Command::new("WAIT").args_from(["1", "100"])),
            Some(Some(Duration::from_millis(100)))
        );
    }

    #[test]
    fn a_command_stays_small_since_it_is_moved_and_kept_until_it_is_answered() {
        assert_eq!(size_of::<Command>(), 112);
        assert_eq!(size_of::<Option<Command>>(), 112);
    }

    #[test]
    fn scripts_and_unknown_commands_count_as_writes() {
        assert!(Command::new("EVAL").is_script());
        assert!(Command::new("EVAL").may_write());
        assert!(!Command::new("EVAL_RO").is_script());
        assert!(Command::new("MODULE.THING").may_write());
        assert!(!Command::new("MODULE.THING").may_run_twice());
        assert!(Command::new("INCR").idempotent().may_run_twice());
    }
}
