//! The broker's Lua scripts in Rust, for the embedded server, which has no Lua.

use bytes::Bytes;
use evenkeel::protocol::Frame;
use evenkeel_testkit::server::{Builder, Script};

/// Lets the embedded server run what the gateway's broker sends.
pub(super) fn register(server: Builder) -> Builder {
    // The demo's channels keep no presence.
    let [append, publish_all, read, check, _presence] = evenkeel::gateway::RedisBroker::scripts();
    server
        .script(append, run_append)
        .script(publish_all, run_publish_all)
        .script(read, run_read)
        .script(check, run_check)
}

type Answer = Result<Frame, String>;

/// The arguments of a call, cheap to keep while the script calls on.
struct Call {
    keys: Vec<Bytes>,
    args: Vec<Bytes>,
}

impl Call {
    fn of(script: &Script<'_>) -> Self {
        Self { keys: script.keys().to_vec(), args: script.args().to_vec() }
    }

    fn key(&self, at: usize) -> Bytes {
        self.keys.get(at - 1).cloned().unwrap_or_default()
    }

    fn arg(&self, at: usize) -> Bytes {
        self.args.get(at - 1).cloned().unwrap_or_default()
    }

    fn number(&self, at: usize) -> u64 {
        number(&self.arg(at))
    }
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn text(text: impl Into<Bytes>) -> Frame {
    Frame::Blob(text.into())
}

/// As `redis.call`: an error ends the script.
fn call(script: &mut Script<'_>, command: &[&[u8]]) -> Answer {
    match script.call(command) {
        Frame::Error(error) => Err(error.to_string()),
        frame => Ok(frame),
    }
}

fn bytes(frame: &Frame) -> Option<Bytes> {
    frame.as_bytes().map(Bytes::copy_from_slice)
}

/// The fields `e`, `o` and `n` of the hash.
fn meta(script: &mut Script<'_>, hash: &Bytes) -> Result<(Option<Bytes>, Bytes, Bytes), String> {
    let reply = call(script, &[b"HMGET", hash, b"e", b"o", b"n"])?;
    let field = |at: usize| reply.elements().and_then(|list| list.get(at)).and_then(bytes);
    let zero = || Bytes::from_static(b"0");
    Ok((field(0), field(1).unwrap_or_else(zero), field(2).unwrap_or_else(zero)))
}

/// Id and data of each entry of a range.
fn entries(frame: &Frame) -> Vec<(Bytes, Bytes)> {
    let entry = |entry: &Frame| {
        let [id, fields] = entry.elements()? else { return None };
        Some((bytes(id)?, bytes(fields.elements()?.get(1)?)?))
    };
    frame.elements().into_iter().flatten().filter_map(entry).collect()
}

fn run_append(script: &mut Script<'_>) -> Answer {
    let at = Call::of(script);
    let (stream, hash) = (at.key(1), at.key(2));
    let epoch = if let Some(epoch) = meta(script, &hash)?.0 {
        epoch
    } else {
        call(script, &[b"DEL", &stream])?;
        call(script, &[b"HSET", &hash, b"e", &at.arg(5)])?;
        at.arg(5)
    };
    let known = if at.arg(6) == "1" {
        entries(&call(script, &[b"XREVRANGE", &stream, b"+", b"-", b"COUNT", b"1000"])?)
    } else {
        Vec::new()
    };
    let mut out = vec![text(epoch.clone())];
    for pair in at.args.get(7..).unwrap_or_default().chunks(2) {
        let [nonce, data] = pair else { break };
        let repeat = known.iter().find_map(|(id, _)| {
            let cut = id.iter().position(|byte| *byte == b'-')?;
            (id.get(cut + 1..) == Some(nonce.as_ref())).then(|| id.slice(..cut))
        });
        let offset = if let Some(offset) = repeat {
            offset
        } else {
            let next = call(script, &[b"HINCRBY", &hash, b"o", b"1"])?.as_integer().unwrap_or(0);
            let offset = Bytes::from(next.to_string());
            let id = [&offset, b"-".as_slice(), nonce].concat();
            call(script, &[b"XADD", &stream, b"MAXLEN", &at.arg(2), &id, b"d", data])?;
            call(script, &[b"HSET", &hash, b"n", nonce])?;
            offset
        };
        let envelope = [b"\x01ek1 ".as_slice(), &epoch, b" ", &offset, b" ", nonce, b" ", data].concat();
        call(script, &[&at.arg(7), &at.arg(1), &envelope])?;
        out.push(text(offset));
    }
    call(script, &[b"PEXPIRE", &stream, &at.arg(3)])?;
    call(script, &[b"PEXPIRE", &hash, &at.arg(4)])?;
    Ok(Frame::Array(out.into()))
}

fn run_publish_all(script: &mut Script<'_>) -> Answer {
    let at = Call::of(script);
    for payload in at.args.get(4..).unwrap_or_default() {
        call(script, &[&at.arg(4), &at.arg(3), payload])?;
    }
    // One gateway is all there is, and it need not be waited for.
    Ok(Frame::Integer(0))
}

fn run_read(script: &mut Script<'_>) -> Answer {
    let at = Call::of(script);
    let (stream, hash) = (at.key(1), at.key(2));
    let (epoch, offset, nonce) = meta(script, &hash)?;
    let epoch = if let Some(epoch) = epoch {
        epoch
    } else {
        call(script, &[b"DEL", &stream])?;
        call(script, &[b"HSET", &hash, b"e", &at.arg(1)])?;
        call(script, &[b"PEXPIRE", &hash, &at.arg(2)])?;
        at.arg(1)
    };
    let mut out = vec![text(epoch), text(offset), text(nonce)];
    if at.number(4) > 0 {
        let reply = if at.arg(5) == "1" {
            let before = [b"(".as_slice(), &at.arg(3), b"-0"].concat();
            call(script, &[b"XREVRANGE", &stream, &before, b"-", b"COUNT", &at.arg(4)])?
        } else {
            call(script, &[b"XRANGE", &stream, &after(&at.arg(3)), b"+", b"COUNT", &at.arg(4)])?
        };
        out.extend(entries(&reply).into_iter().flat_map(|(id, data)| [text(id), text(data)]));
    }
    Ok(Frame::Array(out.into()))
}

/// The start of a range behind all entries with this offset.
fn after(offset: &[u8]) -> Vec<u8> {
    [b"(".as_slice(), offset, b"-18446744073709551615"].concat()
}

fn run_check(script: &mut Script<'_>) -> Answer {
    let at = Call::of(script);
    let (stream, hash) = (at.key(1), at.key(2));
    let (epoch, offset, nonce) = meta(script, &hash)?;
    let answer = |epoch: Bytes, verdict: &'static str| {
        vec![text(epoch), text(offset.clone()), text(nonce.clone()), text(verdict)]
    };
    if let Some(other) = epoch.as_ref().filter(|epoch| **epoch != at.arg(3)) {
        return Ok(Frame::Array(answer(other.clone(), "new").into()));
    }
    let (top, seen) = (number(&offset), at.number(4));
    let (mut stands, mut lost) = (false, false);
    if epoch.is_some() && top == seen {
        stands = seen == 0 || nonce == at.arg(5);
    } else if epoch.is_some() && top > seen {
        let first = [at.arg(4).as_ref(), b"-0"].concat();
        let last = [at.arg(4).as_ref(), b"-18446744073709551615"].concat();
        let found = entries(&call(script, &[b"XRANGE", &stream, &first, &last, b"COUNT", b"1"])?);
        let id = [at.arg(4).as_ref(), b"-", &at.arg(5)].concat();
        stands = seen == 0 || found.first().is_none_or(|(stood, _)| *stood == id);
        lost = seen != 0 && found.is_empty();
    }
    if epoch.is_none() {
        call(script, &[b"DEL", &stream])?;
    }
    let Some(epoch) = epoch.filter(|_| stands) else {
        call(script, &[b"HSET", &hash, b"e", &at.arg(1)])?;
        call(script, &[b"PEXPIRE", &hash, &at.arg(2)])?;
        return Ok(Frame::Array(answer(at.arg(1), "new").into()));
    };
    let range = call(script, &[b"XRANGE", &stream, &after(&at.arg(4)), b"+", b"COUNT", &at.arg(6)])?;
    let range = entries(&range);
    let next = range.first().map(|(id, _)| number(id.split(|byte| *byte == b'-').next().unwrap_or_default()));
    if lost || (top > seen && next != Some(seen + 1)) {
        return Ok(Frame::Array(answer(epoch, "hole").into()));
    }
    let mut out = answer(epoch, "stands");
    out.extend(range.into_iter().flat_map(|(id, data)| [text(id), text(data)]));
    Ok(Frame::Array(out.into()))
}
