//! Lists, and those who wait for them.

use std::time::Duration;

use bytes::Bytes;

use super::{
    BLOCKING, Command, Ctx, DENY_OOM, FAST, READ, WRITE,
    number::{float, need_count, need_integer, range},
};
use crate::server::{
    conn::{Blocked, End, Wait},
    data::List,
    engine::Engine,
    fault::Fault,
    out::Out,
    request::Args,
};

const PUSH: u16 = WRITE | DENY_OOM | FAST;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("BLMOVE", 6, WRITE | DENY_OOM | BLOCKING, (1, 2, 1), |ctx, args| {
        let (from, to) = (end(args.at(3))?, end(args.at(4))?);
        blocking_move(ctx, args, from, to, args.at(5))
    }),
    Command::new("BLPOP", -3, WRITE | FAST | BLOCKING, (1, -2, 1), |ctx, args| {
        blocking_pop(ctx, args, End::Left)
    }),
    Command::new("BRPOP", -3, WRITE | FAST | BLOCKING, (1, -2, 1), |ctx, args| {
        blocking_pop(ctx, args, End::Right)
    }),
    Command::new("BRPOPLPUSH", 4, WRITE | DENY_OOM | BLOCKING, (1, 2, 1), |ctx, args| {
        blocking_move(ctx, args, End::Right, End::Left, args.at(3))
    }),
    Command::new("LINDEX", 3, READ, (1, 1, 1), lindex),
    Command::new("LINSERT", 5, WRITE | DENY_OOM, (1, 1, 1), linsert),
    Command::new("LLEN", 2, READ | FAST, (1, 1, 1), llen),
    Command::new("LMOVE", 5, WRITE | DENY_OOM, (1, 2, 1), |ctx, args| {
        let (from, to) = (end(args.at(3))?, end(args.at(4))?);
        pop_and_push(ctx, args, from, to)
    }),
    Command::new("LPOP", -2, WRITE | FAST, (1, 1, 1), |ctx, args| pop(ctx, args, End::Left)),
    Command::new("LPUSH", -3, PUSH, (1, 1, 1), |ctx, args| push(ctx, args, End::Left, true)),
    Command::new("LPUSHX", -3, PUSH, (1, 1, 1), |ctx, args| push(ctx, args, End::Left, false)),
    Command::new("LRANGE", 4, READ, (1, 1, 1), lrange),
    Command::new("LREM", 4, WRITE, (1, 1, 1), lrem),
    Command::new("LSET", 4, WRITE | DENY_OOM, (1, 1, 1), lset),
    Command::new("LTRIM", 4, WRITE, (1, 1, 1), ltrim),
    Command::new("RPOP", -2, WRITE | FAST, (1, 1, 1), |ctx, args| pop(ctx, args, End::Right)),
    Command::new("RPOPLPUSH", 3, WRITE | DENY_OOM, (1, 2, 1), |ctx, args| {
        pop_and_push(ctx, args, End::Right, End::Left)
    }),
    Command::new("RPUSH", -3, PUSH, (1, 1, 1), |ctx, args| push(ctx, args, End::Right, true)),
    Command::new("RPUSHX", -3, PUSH, (1, 1, 1), |ctx, args| push(ctx, args, End::Right, false)),
];

fn end(word: &[u8]) -> Result<End, Fault> {
    if word.eq_ignore_ascii_case(b"LEFT") {
        Ok(End::Left)
    } else if word.eq_ignore_ascii_case(b"RIGHT") {
        Ok(End::Right)
    } else {
        Err(Fault::SYNTAX)
    }
}

fn take(list: &mut List, end: End) -> Option<Bytes> {
    match end {
        End::Left => list.pop_front(),
        End::Right => list.pop_back(),
    }
}

fn put(list: &mut List, end: End, item: Bytes) {
    match end {
        End::Left => list.push_front(item),
        End::Right => list.push_back(item),
    }
}

fn push(ctx: &mut Ctx<'_>, args: Args<'_>, end: End, make: bool) -> Result<(), Fault> {
    let key = args.at(1);
    if !make && ctx.engine.read::<List>(ctx.db, key)?.is_none() {
        ctx.out.integer(0);
        return Ok(());
    }
    let list = ctx.engine.make::<List>(ctx.db, key)?;
    args.from(2).for_each(|item| put(list, end, Bytes::copy_from_slice(item)));
    ctx.out.count(list.len());
    ctx.engine.touched(ctx.db, key);
    ctx.engine.signal(ctx.db, key);
    Ok(())
}

fn pop(ctx: &mut Ctx<'_>, args: Args<'_>, end: End) -> Result<(), Fault> {
    let name = if end == End::Left { "lpop" } else { "rpop" };
    let key = args.at(1);
    let count = match args.len() {
        2 => None,
        3 => Some(need_count(args.at(2)).map_err(|_fault| Fault::OUT_OF_RANGE)?),
        _ => return Err(Fault::arity(name)),
    };
    let Some(list) = ctx.engine.read::<List>(ctx.db, key)? else {
        match count {
            None => ctx.out.null(),
            Some(_) => ctx.out.null_array(),
        }
        return Ok(());
    };
    match count {
        None => match take(list, end) {
            Some(item) => ctx.out.bulk(&item),
            None => ctx.out.null(),
        },
        Some(0) => {
            ctx.out.array(0);
            return Ok(());
        }
        Some(count) => {
            let count = count.min(list.len());
            ctx.out.array(count);
            (0..count).filter_map(|_| take(list, end)).for_each(|item| ctx.out.bulk(&item));
        }
    }
    ctx.engine.changed::<List>(ctx.db, key);
    Ok(())
}

fn llen(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let length = ctx.engine.read::<List>(ctx.db, args.at(1))?.map_or(0, |list| list.len());
    ctx.out.count(length);
    Ok(())
}

fn lrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (start, end) = (need_integer(args.at(2))?, need_integer(args.at(3))?);
    let list = ctx.engine.read::<List>(ctx.db, args.at(1))?;
    let Some((list, (first, last))) = list.and_then(|list| {
        let range = range(start, end, list.len())?;
        Some((list, range))
    }) else {
        ctx.out.array(0);
        return Ok(());
    };
    ctx.out.array(last - first + 1);
    list.range(first..=last).for_each(|item| ctx.out.bulk(item));
    Ok(())
}

/// The place that an index names, when there is one.
fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 { length + index } else { index };
    usize::try_from(index).ok().filter(|_| index < length)
}

fn lindex(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let index = need_integer(args.at(2))?;
    let item =
        ctx.engine.read::<List>(ctx.db, args.at(1))?.and_then(|list| list.get(place(index, list.len())?));
    ctx.out.bulk_or_null(item.map(|item| &item[..]));
    Ok(())
}

fn lset(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let list = ctx.engine.read::<List>(ctx.db, args.at(1))?.ok_or(Fault::NO_SUCH_KEY)?;
    let index = need_integer(args.at(2))?;
    let item = place(index, list.len()).and_then(|at| list.get_mut(at)).ok_or("ERR index out of range")?;
    *item = Bytes::copy_from_slice(args.at(3));
    ctx.engine.touched(ctx.db, args.at(1));
    ctx.out.ok();
    Ok(())
}

fn linsert(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let behind = if args.is(2, "AFTER") {
        1
    } else if args.is(2, "BEFORE") {
        0
    } else {
        return Err(Fault::SYNTAX);
    };
    let Some(list) = ctx.engine.read::<List>(ctx.db, args.at(1))? else {
        ctx.out.integer(0);
        return Ok(());
    };
    let Some(at) = list.iter().position(|item| item == args.at(3)) else {
        ctx.out.integer(-1);
        return Ok(());
    };
    list.insert(at + behind, Bytes::copy_from_slice(args.at(4)));
    ctx.out.count(list.len());
    ctx.engine.touched(ctx.db, args.at(1));
    Ok(())
}

fn lrem(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let count = need_integer(args.at(2))?;
    let item = args.at(3);
    let Some(list) = ctx.engine.read::<List>(ctx.db, args.at(1))? else {
        ctx.out.integer(0);
        return Ok(());
    };
    let most =
        if count == 0 { usize::MAX } else { usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX) };
    let before = list.len();
    let mut left = most;
    let mut keep = |found: &Bytes| {
        let goes = left > 0 && found == item;
        left -= usize::from(goes);
        !goes
    };
    if count < 0 {
        let kept: List = list.drain(..).rev().filter(|found| keep(found)).collect();
        *list = kept.into_iter().rev().collect();
    } else {
        list.retain(keep);
    }
    let removed = before - list.len();
    if removed > 0 {
        ctx.engine.changed::<List>(ctx.db, args.at(1));
    }
    ctx.out.count(removed);
    Ok(())
}

fn ltrim(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (start, end) = (need_integer(args.at(2))?, need_integer(args.at(3))?);
    if let Some(list) = ctx.engine.read::<List>(ctx.db, args.at(1))? {
        match range(start, end, list.len()) {
            Some((first, last)) => {
                list.truncate(last + 1);
                list.drain(..first);
            }
            None => list.clear(),
        }
        ctx.engine.changed::<List>(ctx.db, args.at(1));
    }
    ctx.out.ok();
    Ok(())
}

// --- moving and waiting

fn pop_and_push(ctx: &mut Ctx<'_>, args: Args<'_>, from: End, to: End) -> Result<(), Fault> {
    let wait = Wait::Move {
        source: Bytes::copy_from_slice(args.at(1)),
        target: Bytes::copy_from_slice(args.at(2)),
        from,
        to,
    };
    ctx.engine.read::<List>(ctx.db, args.at(1))?;
    if !ctx.engine.attempt(ctx.db, &wait, ctx.out) {
        ctx.out.null();
    }
    Ok(())
}

fn blocking_move(ctx: &mut Ctx<'_>, args: Args<'_>, from: End, to: End, time: &[u8]) -> Result<(), Fault> {
    let time = timeout(time)?;
    ctx.engine.read::<List>(ctx.db, args.at(1))?;
    let wait = Wait::Move {
        source: Bytes::copy_from_slice(args.at(1)),
        target: Bytes::copy_from_slice(args.at(2)),
        from,
        to,
    };
    ctx.attempt_or_block(wait, time);
    Ok(())
}

fn blocking_pop(ctx: &mut Ctx<'_>, args: Args<'_>, end: End) -> Result<(), Fault> {
    let last = args.len() - 1;
    let time = timeout(args.at(last))?;
    let keys: Vec<Bytes> = args.from(1).take(last - 1).map(Bytes::copy_from_slice).collect();
    for key in &keys {
        // The first list that holds something is taken before a later key of the wrong kind is looked at.
        if ctx.engine.read::<List>(ctx.db, key)?.is_some() {
            break;
        }
    }
    ctx.attempt_or_block(Wait::Pop { keys, end }, time);
    Ok(())
}

/// Seconds with a fraction; 0 waits for ever.
fn timeout(text: &[u8]) -> Result<Option<Duration>, Fault> {
    let seconds = float(text).ok_or("ERR timeout is not a float or out of range")?;
    if seconds < 0.0 {
        return Err("ERR timeout is negative".into());
    }
    let time = Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| time.as_millis() < u128::from(u64::MAX / 4))
        .ok_or("ERR timeout is out of range")?;
    Ok((!time.is_zero()).then_some(time))
}

impl Ctx<'_> {
    /// Answers at once when there is something, else waits, or says "nothing" where waiting is not allowed.
    pub(super) fn attempt_or_block(&mut self, wait: Wait, time: Option<Duration>) {
        if self.engine.attempt(self.db, &wait, self.out) {
            return;
        }
        if self.at_once {
            wait.time_out(self.out);
            return;
        }
        let until = time.map(|time| self.engine.now + time);
        self.engine.block(self.key, Blocked { db: self.db, wait, until });
    }
}

impl Engine {
    /// Does what a blocked command waits for, when it can be done. True when a reply was written.
    pub(in crate::server) fn attempt(&mut self, db: usize, wait: &Wait, out: &mut Out) -> bool {
        match wait {
            Wait::Pop { keys, end } => keys.iter().any(|key| {
                let Ok(Some(list)) = self.read::<List>(db, key) else { return false };
                let Some(item) = take(list, *end) else { return false };
                out.array(2);
                out.bulk(key);
                out.bulk(&item);
                self.changed::<List>(db, key);
                true
            }),
            Wait::Move { source, target, from, to } => {
                let Ok(Some(_)) = self.read::<List>(db, source) else { return false };
                if let Err(fault) = self.read::<List>(db, target) {
                    out.error(&fault.0);
                    return true;
                }
                let item = self.read::<List>(db, source).ok().flatten().and_then(|list| take(list, *from));
                let Some(item) = item else { return false };
                out.bulk(&item);
                if let Ok(list) = self.make::<List>(db, target) {
                    put(list, *to, item);
                }
                self.changed::<List>(db, source);
                self.touched(db, target);
                self.signal(db, target);
                true
            }
            Wait::Read { streams, count } => self.read_streams(db, streams, *count, out),
            Wait::Replicas | Wait::Sleep => false,
        }
    }
}
