//! Streams without consumer groups, as far as a gateway keeps history in them.

use std::time::Duration;

use bytes::Bytes;

use super::{
    BLOCKING, Command, Ctx, DENY_OOM, FAST, MOVABLE, READ, WRITE,
    number::{integer, need_integer},
};
use crate::server::{
    conn::Wait,
    data::{Fields, Stream, StreamId},
    engine::Engine,
    fault::Fault,
    out::{Out, Proto},
    request::Args,
};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("XADD", -5, WRITE | DENY_OOM | FAST, (1, 1, 1), xadd),
    Command::new("XDEL", -3, WRITE | FAST, (1, 1, 1), xdel),
    Command::container("XINFO", INFO),
    Command::new("XLEN", 2, READ | FAST, (1, 1, 1), xlen),
    Command::new("XRANGE", -4, READ, (1, 1, 1), |ctx, args| xrange(ctx, args, false)),
    Command::new("XREAD", -4, READ | BLOCKING | MOVABLE, (0, 0, 0), xread),
    Command::new("XREVRANGE", -4, READ, (1, 1, 1), |ctx, args| xrange(ctx, args, true)),
    Command::new("XTRIM", -4, WRITE, (1, 1, 1), xtrim),
];

const INFO: &[Command] = &[Command::sub("XINFO", "STREAM", -3, READ, xinfo).on_keys(2, 2, 1)];

const BAD_ID: &str = "ERR Invalid stream ID specified as stream command argument";
const SMALL_ID: &str = "ERR The ID specified in XADD is equal or smaller than the target stream top item";

/// `ms` or `ms-count`; without a count it is `count`.
fn id(text: &[u8], count: u64) -> Result<StreamId, Fault> {
    let number =
        |text: &[u8]| std::str::from_utf8(text).ok().filter(|t| !t.starts_with('+'))?.parse::<u64>().ok();
    let found = match text.iter().position(|&byte| byte == b'-') {
        Some(dash) => {
            let (ms, rest) = text.split_at(dash);
            number(ms).zip(number(rest.get(1..).unwrap_or_default()))
        }
        None => number(text).map(|ms| (ms, count)),
    };
    found.map(|(ms, count)| StreamId(ms, count)).ok_or_else(|| BAD_ID.into())
}

/// What is cut off a stream when something is added.
#[derive(Clone, Copy)]
enum Trim {
    Length(usize),
    MinId(StreamId),
}

impl Stream {
    fn trim(&mut self, trim: Trim) -> usize {
        let before = self.entries.len();
        while let Some((&first, _)) = self.entries.first_key_value() {
            let goes = match trim {
                Trim::Length(most) => self.entries.len() > most,
                Trim::MinId(least) => first < least,
            };
            if !goes {
                break;
            }
            self.entries.remove(&first);
        }
        before - self.entries.len()
    }
}

/// Reads `MAXLEN|MINID [=|~] value [LIMIT n]` at `at`; gives the trim and the place behind.
///
/// An approximate trim is done exactly, which every server is free to do.
fn trim_option(args: Args<'_>, mut at: usize) -> Result<(Trim, usize), Fault> {
    let by_length = args.is(at, "MAXLEN");
    at += 1;
    let approximate = args.is(at, "~");
    if approximate || args.is(at, "=") {
        at += 1;
    }
    let value = args.get(at).ok_or(Fault::SYNTAX)?;
    let trim = if by_length {
        let length = need_integer(value)?;
        Trim::Length(
            usize::try_from(length)
                .map_err(|_negative| Fault::from("ERR The MAXLEN argument must be >= 0."))?,
        )
    } else {
        Trim::MinId(id(value, 0)?)
    };
    at += 1;
    if args.is(at, "LIMIT") {
        if !approximate {
            return Err("ERR syntax error, LIMIT cannot be used without the special ~ option".into());
        }
        need_integer(args.at(at + 1))?;
        at += 2;
    }
    Ok((trim, at))
}

fn xadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mut make, mut trim) = (true, None);
    let mut at = 2;
    loop {
        if args.is(at, "NOMKSTREAM") {
            make = false;
            at += 1;
        } else if args.is(at, "MAXLEN") || args.is(at, "MINID") {
            let (found, next) = trim_option(args, at)?;
            trim = Some(found);
            at = next;
        } else {
            break;
        }
    }
    let (wanted, from) = (args.at(at), at + 1);
    let given = args.len().saturating_sub(from);
    if given == 0 || !given.is_multiple_of(2) {
        return Err(Fault::arity("xadd"));
    }
    let key = args.at(1);
    let explicit = if wanted == b"*" {
        None
    } else if let Some(ms) = wanted.strip_suffix(b"-*") {
        let ms = integer(ms).and_then(|ms| u64::try_from(ms).ok()).ok_or(BAD_ID)?;
        Some((ms, None))
    } else {
        let StreamId(ms, count) = id(wanted, 0)?;
        Some((ms, Some(count)))
    };
    if explicit == Some((0, Some(0))) {
        return Err("ERR The ID specified in XADD must be greater than 0-0".into());
    }
    let now = ctx.engine.unix_ms;
    let Some(last) = ctx
        .engine
        .read::<Stream>(ctx.db, key)?
        .map(|stream| stream.last_id)
        .or_else(|| make.then(StreamId::default))
    else {
        ctx.out.null();
        return Ok(());
    };
    let new = match explicit {
        None if now > last.0 => Some(StreamId(now, 0)),
        None => last.next(),
        Some((ms, Some(count))) => Some(StreamId(ms, count)),
        Some((ms, None)) if ms > last.0 => Some(StreamId(ms, 0)),
        Some((ms, None)) if ms == last.0 => last.1.checked_add(1).map(|count| StreamId(ms, count)),
        Some(_) => None,
    };
    let new = new.filter(|&new| new > last).ok_or(SMALL_ID)?;
    let stream = ctx.engine.make::<Stream>(ctx.db, key)?;
    let fields: Fields = args.from(from).map(Bytes::copy_from_slice).collect();
    stream.entries.insert(new, fields);
    stream.last_id = new;
    stream.added += 1;
    if let Some(trim) = trim {
        stream.trim(trim);
    }
    ctx.out.bulk(new.to_string().as_bytes());
    ctx.engine.touched(ctx.db, key);
    ctx.engine.signal(ctx.db, key);
    Ok(())
}

fn xlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let length = ctx.engine.read::<Stream>(ctx.db, args.at(1))?.map_or(0, |stream| stream.entries.len());
    ctx.out.count(length);
    Ok(())
}

fn xtrim(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if !args.is(2, "MAXLEN") && !args.is(2, "MINID") {
        return Err(Fault::SYNTAX);
    }
    let (trim, end) = trim_option(args, 2)?;
    if end < args.len() {
        return Err(Fault::SYNTAX);
    }
    let cut = ctx.engine.read::<Stream>(ctx.db, args.at(1))?.map_or(0, |stream| stream.trim(trim));
    if cut > 0 {
        ctx.engine.touched(ctx.db, args.at(1));
    }
    ctx.out.count(cut);
    Ok(())
}

fn xdel(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let ids = args.from(2).map(|text| id(text, 0)).collect::<Result<Vec<_>, _>>()?;
    let mut removed = 0;
    if let Some(stream) = ctx.engine.read::<Stream>(ctx.db, args.at(1))? {
        for id in ids {
            if stream.entries.remove(&id).is_some() {
                removed += 1;
                stream.max_deleted = stream.max_deleted.max(id);
            }
        }
    }
    if removed > 0 {
        ctx.engine.touched(ctx.db, args.at(1));
    }
    ctx.out.count(removed);
    Ok(())
}

fn write_entry(out: &mut Out, id: StreamId, fields: &Fields) {
    out.array(2);
    out.bulk(id.to_string().as_bytes());
    out.array(fields.len());
    for field in fields {
        out.bulk(field);
    }
}

/// One end of a range: `-`, `+`, an id, or an id after `(` that is itself left out.
fn bound(text: &[u8], lower: bool) -> Result<Option<StreamId>, Fault> {
    match text {
        b"-" => return Ok(Some(StreamId::default())),
        b"+" => return Ok(Some(StreamId::MAX)),
        _ => {}
    }
    let count = if lower { 0 } else { u64::MAX };
    match text.strip_prefix(b"(") {
        Some(rest) => {
            let id = id(rest, count)?;
            Ok(if lower { id.next() } else { id.previous() })
        }
        None => id(text, count).map(Some),
    }
}

fn xrange(ctx: &mut Ctx<'_>, args: Args<'_>, reverse: bool) -> Result<(), Fault> {
    let (low, high) = if reverse { (3, 2) } else { (2, 3) };
    let (start, end) = (bound(args.at(low), true)?, bound(args.at(high), false)?);
    let count = match args.len() {
        4 => usize::MAX,
        6 if args.is(4, "COUNT") => usize::try_from(need_integer(args.at(5))?).unwrap_or(0),
        _ => return Err(Fault::SYNTAX),
    };
    let stream = ctx.engine.read::<Stream>(ctx.db, args.at(1))?;
    let Some((stream, (start, end))) = stream.zip(start.zip(end)).filter(|(_, (start, end))| start <= end)
    else {
        ctx.out.array(0);
        return Ok(());
    };
    let range = stream.entries.range(start..=end);
    let found: Vec<_> = if reverse { range.rev().take(count).collect() } else { range.take(count).collect() };
    ctx.out.array(found.len());
    for (&id, fields) in found {
        write_entry(ctx.out, id, fields);
    }
    Ok(())
}

fn xread(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mut count, mut block) = (None, None);
    let mut at = 1;
    while at < args.len() && !args.is(at, "STREAMS") {
        let value = args.get(at + 1).ok_or(Fault::SYNTAX)?;
        if args.is(at, "COUNT") {
            count = usize::try_from(need_integer(value)?).ok().filter(|&count| count > 0);
        } else if args.is(at, "BLOCK") {
            let ms = integer(value).ok_or("ERR timeout is not an integer or out of range")?;
            let ms = u64::try_from(ms).map_err(|_negative| Fault::from("ERR timeout is negative"))?;
            block = Some((ms > 0).then(|| Duration::from_millis(ms)));
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 2;
    }
    let given = args.len().saturating_sub(at + 1);
    if given == 0 {
        return Err(Fault::SYNTAX);
    }
    if !given.is_multiple_of(2) {
        return Err(
            "ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified."
                .into(),
        );
    }
    let half = given / 2;
    let mut streams = Vec::with_capacity(half);
    for (key, after) in args.from(at + 1).take(half).zip(args.from(at + 1 + half)) {
        let last =
            ctx.engine.read::<Stream>(ctx.db, key)?.map_or_else(StreamId::default, |stream| stream.last_id);
        let after = if after == b"$" { last } else { id(after, 0)? };
        streams.push((Bytes::copy_from_slice(key), after));
    }
    match block {
        Some(time) => ctx.attempt_or_block(Wait::Read { streams, count }, time),
        None => {
            if !ctx.engine.read_streams(ctx.db, &streams, count, ctx.out) {
                ctx.out.null_array();
            }
        }
    }
    Ok(())
}

impl Engine {
    /// Writes what the streams hold behind the ids given. False, and nothing written, when they hold nothing.
    pub(super) fn read_streams(
        &mut self,
        db: usize,
        streams: &[(Bytes, StreamId)],
        count: Option<usize>,
        out: &mut Out,
    ) -> bool {
        let filled: Vec<&(Bytes, StreamId)> = streams
            .iter()
            .filter(|(key, after)| {
                let stream = self.read::<Stream>(db, key).ok().flatten();
                stream.is_some_and(|stream| {
                    stream.entries.last_key_value().is_some_and(|(last, _)| last > after)
                })
            })
            .collect();
        if filled.is_empty() {
            return false;
        }
        out.map_or_pairs(filled.len());
        for (key, after) in filled {
            if out.proto == Proto::Resp2 {
                out.array(2);
            }
            out.bulk(key);
            let Ok(Some(stream)) = self.read::<Stream>(db, key) else { continue };
            let Some(start) = after.next() else { continue };
            let found: Vec<_> = stream.entries.range(start..).take(count.unwrap_or(usize::MAX)).collect();
            out.array(found.len());
            for (&id, fields) in found {
                write_entry(out, id, fields);
            }
        }
        true
    }
}

impl Out {
    /// A map in RESP3, an array of pairs in RESP2; the caller opens each pair.
    fn map_or_pairs(&mut self, pairs: usize) {
        match self.proto {
            Proto::Resp2 => self.array(pairs),
            Proto::Resp3 => self.map(pairs),
        }
    }
}

fn xinfo(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let stream = ctx.engine.read::<Stream>(ctx.db, args.at(2))?.ok_or(Fault::NO_SUCH_KEY)?;
    let out = &mut *ctx.out;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let first_recorded = stream.entries.keys().next().copied().unwrap_or_default();
    out.map(10);
    out.bulk(b"length");
    out.count(stream.entries.len());
    out.bulk(b"radix-tree-keys");
    out.count(usize::from(!stream.entries.is_empty()));
    out.bulk(b"radix-tree-nodes");
    out.count(1 + usize::from(!stream.entries.is_empty()));
    out.bulk(b"last-generated-id");
    out.bulk(stream.last_id.to_string().as_bytes());
    out.bulk(b"max-deleted-entry-id");
    out.bulk(stream.max_deleted.to_string().as_bytes());
    out.bulk(b"entries-added");
    out.integer(number(stream.added));
    out.bulk(b"recorded-first-entry-id");
    out.bulk(first_recorded.to_string().as_bytes());
    out.bulk(b"groups");
    out.integer(0);
    for (name, entry) in
        [("first-entry", stream.entries.first_key_value()), ("last-entry", stream.entries.last_key_value())]
    {
        out.bulk(name.as_bytes());
        match entry {
            Some((&id, fields)) => write_entry(out, id, fields),
            None => out.null(),
        }
    }
    Ok(())
}
