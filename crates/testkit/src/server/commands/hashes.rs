//! Hashes.

use super::{
    Command, Ctx, DENY_OOM, FAST, READ, WRITE,
    number::{float, integer, need_float, need_integer},
    strings::decimal,
};
use crate::server::{data::Hash, fault::Fault, request::Args};

const CHANGE: u16 = WRITE | DENY_OOM | FAST;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("HDEL", -3, WRITE | FAST, (1, 1, 1), hdel),
    Command::new("HEXISTS", 3, READ | FAST, (1, 1, 1), hexists),
    Command::new("HGET", 3, READ | FAST, (1, 1, 1), hget),
    Command::new("HGETALL", 2, READ, (1, 1, 1), hgetall),
    Command::new("HINCRBY", 4, CHANGE, (1, 1, 1), hincrby),
    Command::new("HINCRBYFLOAT", 4, CHANGE, (1, 1, 1), hincrbyfloat),
    Command::new("HKEYS", 2, READ, (1, 1, 1), hkeys),
    Command::new("HLEN", 2, READ | FAST, (1, 1, 1), hlen),
    Command::new("HMGET", -3, READ | FAST, (1, 1, 1), hmget),
    Command::new("HMSET", -4, CHANGE, (1, 1, 1), |ctx, args| {
        write(ctx, args, "hmset")?;
        ctx.out.ok();
        Ok(())
    }),
    Command::new("HSET", -4, CHANGE, (1, 1, 1), |ctx, args| {
        let added = write(ctx, args, "hset")?;
        ctx.out.count(added);
        Ok(())
    }),
    Command::new("HSETNX", 4, CHANGE, (1, 1, 1), hsetnx),
    Command::new("HSTRLEN", 3, READ | FAST, (1, 1, 1), hstrlen),
    Command::new("HVALS", 2, READ, (1, 1, 1), hvals),
];

fn write(ctx: &mut Ctx<'_>, args: Args<'_>, name: &str) -> Result<usize, Fault> {
    if !args.len().is_multiple_of(2) {
        return Err(Fault::arity(name));
    }
    let hash = ctx.engine.make::<Hash>(ctx.db, args.at(1))?;
    let mut added = 0;
    for at in (2..args.len()).step_by(2) {
        added += usize::from(hash.insert(args.at(at), args.at(at + 1).to_vec()).is_none());
    }
    ctx.engine.touched(ctx.db, args.at(1));
    Ok(added)
}

fn hsetnx(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let hash = ctx.engine.make::<Hash>(ctx.db, args.at(1))?;
    let new = !hash.contains(args.at(2));
    if new {
        hash.insert(args.at(2), args.at(3).to_vec());
        ctx.engine.touched(ctx.db, args.at(1));
    }
    ctx.out.integer(i64::from(new));
    Ok(())
}

fn hget(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let value = ctx.engine.read::<Hash>(ctx.db, args.at(1))?.and_then(|hash| hash.get(args.at(2)));
    ctx.out.bulk_or_null(value.map(Vec::as_slice));
    Ok(())
}

fn hmget(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let hash = ctx.engine.read::<Hash>(ctx.db, args.at(1))?;
    ctx.out.array(args.len() - 2);
    for field in args.from(2) {
        let value = hash.as_ref().and_then(|hash| hash.get(field));
        ctx.out.bulk_or_null(value.map(Vec::as_slice));
    }
    Ok(())
}

fn hgetall(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(hash) = ctx.engine.read::<Hash>(ctx.db, args.at(1))? else {
        ctx.out.map(0);
        return Ok(());
    };
    ctx.out.map(hash.len());
    for (field, value) in hash.iter() {
        ctx.out.bulk(field);
        ctx.out.bulk(value);
    }
    Ok(())
}

fn hkeys(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(hash) = ctx.engine.read::<Hash>(ctx.db, args.at(1))? else {
        ctx.out.array(0);
        return Ok(());
    };
    ctx.out.array(hash.len());
    hash.keys().for_each(|field| ctx.out.bulk(field));
    Ok(())
}

fn hvals(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(hash) = ctx.engine.read::<Hash>(ctx.db, args.at(1))? else {
        ctx.out.array(0);
        return Ok(());
    };
    ctx.out.array(hash.len());
    for (_, value) in hash.iter() {
        ctx.out.bulk(value);
    }
    Ok(())
}

fn hlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let length = ctx.engine.read::<Hash>(ctx.db, args.at(1))?.map_or(0, |hash| hash.len());
    ctx.out.count(length);
    Ok(())
}

fn hstrlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let value = ctx.engine.read::<Hash>(ctx.db, args.at(1))?.and_then(|hash| hash.get(args.at(2)));
    ctx.out.count(value.map_or(0, Vec::len));
    Ok(())
}

fn hexists(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = ctx.engine.read::<Hash>(ctx.db, args.at(1))?.is_some_and(|hash| hash.contains(args.at(2)));
    ctx.out.integer(i64::from(found));
    Ok(())
}

fn hdel(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let removed = match ctx.engine.read::<Hash>(ctx.db, args.at(1))? {
        Some(hash) => args.from(2).filter(|field| hash.remove(field).is_some()).count(),
        None => 0,
    };
    if removed > 0 {
        ctx.engine.changed::<Hash>(ctx.db, args.at(1));
    }
    ctx.out.count(removed);
    Ok(())
}

fn hincrby(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let by = need_integer(args.at(3))?;
    let old = match ctx.engine.read::<Hash>(ctx.db, args.at(1))?.and_then(|hash| hash.get(args.at(2))) {
        Some(text) => integer(text).ok_or("ERR hash value is not an integer")?,
        None => 0,
    };
    let new = old.checked_add(by).ok_or(Fault::OVERFLOW)?;
    let hash = ctx.engine.make::<Hash>(ctx.db, args.at(1))?;
    hash.insert(args.at(2), itoa::Buffer::new().format(new).into());
    ctx.engine.touched(ctx.db, args.at(1));
    ctx.out.integer(new);
    Ok(())
}

fn hincrbyfloat(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let by = need_float(args.at(3))?;
    let old = match ctx.engine.read::<Hash>(ctx.db, args.at(1))?.and_then(|hash| hash.get(args.at(2))) {
        Some(text) => float(text).ok_or("ERR hash value is not a float")?,
        None => 0.0,
    };
    let new = old + by;
    if !new.is_finite() {
        return Err(Fault::NAN);
    }
    let written = decimal(new);
    let hash = ctx.engine.make::<Hash>(ctx.db, args.at(1))?;
    hash.insert(args.at(2), written.as_bytes().to_vec());
    ctx.engine.touched(ctx.db, args.at(1));
    ctx.out.bulk(written.as_bytes());
    Ok(())
}
