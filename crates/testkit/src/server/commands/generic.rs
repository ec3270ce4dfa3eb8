//! Keys of any kind: removal, expiry, names.

use super::{Command, Ctx, FAST, READ, WRITE, number::need_integer};
use crate::server::{fault::Fault, glob, request::Args};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("DBSIZE", 1, READ | FAST, (0, 0, 0), dbsize),
    Command::new("DEL", -2, WRITE, (1, -1, 1), del),
    Command::new("EXISTS", -2, READ | FAST, (1, -1, 1), exists),
    Command::new("EXPIRE", -3, WRITE | FAST, (1, 1, 1), |ctx, args| expire(ctx, args, "expire", 1000, true)),
    Command::new("EXPIREAT", -3, WRITE | FAST, (1, 1, 1), |ctx, args| {
        expire(ctx, args, "expireat", 1000, false)
    }),
    Command::new("EXPIRETIME", 2, READ | FAST, (1, 1, 1), |ctx, args| {
        ttl(ctx, args, |at, _now| at.div_euclid(1000))
    }),
    Command::new("FLUSHALL", -1, WRITE, (0, 0, 0), flushall),
    Command::new("FLUSHDB", -1, WRITE, (0, 0, 0), flushdb),
    Command::new("KEYS", 2, READ, (0, 0, 0), keys),
    Command::new("PERSIST", 2, WRITE | FAST, (1, 1, 1), persist),
    Command::new("PEXPIRE", -3, WRITE | FAST, (1, 1, 1), |ctx, args| expire(ctx, args, "pexpire", 1, true)),
    Command::new("PEXPIREAT", -3, WRITE | FAST, (1, 1, 1), |ctx, args| {
        expire(ctx, args, "pexpireat", 1, false)
    }),
    Command::new("PEXPIRETIME", 2, READ | FAST, (1, 1, 1), |ctx, args| ttl(ctx, args, |at, _now| at)),
    Command::new("PTTL", 2, READ | FAST, (1, 1, 1), |ctx, args| ttl(ctx, args, |at, now| at - now)),
    Command::new("RANDOMKEY", 1, READ, (0, 0, 0), randomkey),
    Command::new("RENAME", 3, WRITE, (1, 2, 1), rename),
    Command::new("RENAMENX", 3, WRITE | FAST, (1, 2, 1), renamenx),
    Command::new("TOUCH", -2, READ | FAST, (1, -1, 1), exists),
    Command::new("TTL", 2, READ | FAST, (1, 1, 1), |ctx, args| {
        ttl(ctx, args, |at, now| (at - now + 500) / 1000)
    }),
    Command::new("TYPE", 2, READ | FAST, (1, 1, 1), kind),
    Command::new("UNLINK", -2, WRITE | FAST, (1, -1, 1), del),
];

fn del(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let removed = args.from(1).filter(|key| ctx.engine.remove(ctx.db, key)).count();
    ctx.out.count(removed);
    Ok(())
}

fn exists(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = args.from(1).filter(|key| ctx.engine.entry(ctx.db, key).is_some()).count();
    ctx.out.count(found);
    Ok(())
}

fn kind(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let kind = ctx.engine.entry(ctx.db, args.at(1)).map_or("none", |entry| entry.value.kind());
    ctx.out.simple(kind);
    Ok(())
}

fn expire(ctx: &mut Ctx<'_>, args: Args<'_>, name: &str, unit: i64, from_now: bool) -> Result<(), Fault> {
    let amount = need_integer(args.at(2))?;
    let (mut new, mut old, mut greater, mut less) = (false, false, false, false);
    for option in args.from(3) {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" => new = true,
            b"XX" => old = true,
            b"GT" => greater = true,
            b"LT" => less = true,
            _ => return Err(format!("ERR Unsupported option {}", String::from_utf8_lossy(option)).into()),
        }
    }
    if new && (old || greater || less) {
        return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
    }
    if greater && less {
        return Err("ERR GT and LT options at the same time are not compatible".into());
    }
    let now = i64::try_from(ctx.engine.unix_ms).unwrap_or(i64::MAX);
    let at = amount
        .checked_mul(unit)
        .and_then(|ms| if from_now { ms.checked_add(now) } else { Some(ms) })
        .ok_or_else(|| Fault::invalid_expire(name))?;
    let key = args.at(1);
    let Some(entry) = ctx.engine.entry(ctx.db, key) else {
        ctx.out.integer(0);
        return Ok(());
    };
    let current = entry.expires_at().and_then(|at| i64::try_from(at).ok());
    let allowed = !(new && current.is_some()
        || old && current.is_none()
        || greater && current.is_none_or(|current| at <= current)
        || less && current.is_some_and(|current| at >= current));
    if allowed {
        if at <= now {
            ctx.engine.remove(ctx.db, key);
        } else {
            ctx.engine.database(ctx.db).set_expiry(key, u64::try_from(at).ok());
            ctx.engine.touched(ctx.db, key);
        }
    }
    ctx.out.integer(i64::from(allowed));
    Ok(())
}

fn ttl(ctx: &mut Ctx<'_>, args: Args<'_>, show: fn(i64, i64) -> i64) -> Result<(), Fault> {
    let now = i64::try_from(ctx.engine.unix_ms).unwrap_or(i64::MAX);
    let shown = match ctx.engine.entry(ctx.db, args.at(1)) {
        None => -2,
        Some(entry) => match entry.expires_at().and_then(|at| i64::try_from(at).ok()) {
            None => -1,
            Some(at) => show(at, now),
        },
    };
    ctx.out.integer(shown);
    Ok(())
}

fn persist(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let key = args.at(1);
    let had = ctx.engine.entry(ctx.db, key).is_some_and(|entry| entry.expires_at().is_some());
    if had {
        ctx.engine.database(ctx.db).set_expiry(key, None);
        ctx.engine.touched(ctx.db, key);
    }
    ctx.out.integer(i64::from(had));
    Ok(())
}

fn keys(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    ctx.engine.expire_all();
    let pattern = args.at(1);
    let found: Vec<_> = ctx
        .engine
        .database(ctx.db)
        .keys()
        .keys()
        .filter(|key| glob::matches(pattern, key))
        .cloned()
        .collect();
    ctx.out.array(found.len());
    for key in &found {
        ctx.out.bulk(key);
    }
    Ok(())
}

fn dbsize(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    ctx.engine.expire_all();
    let size = ctx.engine.database(ctx.db).len();
    ctx.out.count(size);
    Ok(())
}

fn randomkey(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    ctx.engine.expire_all();
    let keys = ctx.engine.database(ctx.db).keys();
    let key = if keys.is_empty() { None } else { keys.nth_key(fastrand::usize(..keys.len())).cloned() };
    ctx.out.bulk_or_null(key.as_deref());
    Ok(())
}

fn rename(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    relabel(ctx, args)?;
    ctx.out.ok();
    Ok(())
}

fn renamenx(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if ctx.engine.entry(ctx.db, args.at(1)).is_none() {
        return Err(Fault::NO_SUCH_KEY);
    }
    let free = ctx.engine.entry(ctx.db, args.at(2)).is_none();
    if free {
        relabel(ctx, args)?;
    }
    ctx.out.integer(i64::from(free));
    Ok(())
}

fn relabel(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (from, to) = (args.at(1), args.at(2));
    if ctx.engine.entry(ctx.db, from).is_none() {
        return Err(Fault::NO_SUCH_KEY);
    }
    if from == to {
        return Ok(());
    }
    let database = ctx.engine.database(ctx.db);
    let Some(entry) = database.remove(from) else { return Err(Fault::NO_SUCH_KEY) };
    let ends = entry.expires_at();
    database.remove(to);
    database.put(to, entry.value);
    database.set_expiry(to, ends);
    ctx.engine.touched(ctx.db, from);
    ctx.engine.touched(ctx.db, to);
    ctx.engine.signal(ctx.db, to);
    Ok(())
}

fn flush_mode(args: Args<'_>) -> Result<(), Fault> {
    match args.len() {
        1 => Ok(()),
        2 if args.is(1, "SYNC") || args.is(1, "ASYNC") => Ok(()),
        _ => Err(Fault::SYNTAX),
    }
}

fn flushdb(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    flush_mode(args)?;
    ctx.engine.flush(ctx.db);
    ctx.engine.invalidate_all();
    ctx.out.ok();
    Ok(())
}

fn flushall(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    flush_mode(args)?;
    for db in 0..ctx.engine.databases.len() {
        ctx.engine.flush(db);
    }
    ctx.engine.invalidate_all();
    ctx.out.ok();
    Ok(())
}
