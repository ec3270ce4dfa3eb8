//! Strings and counters.

use super::{
    Command, Ctx, DENY_OOM, FAST, READ, WRITE,
    number::{need_float, need_integer, range},
};
use crate::server::{
    data::{Text, Value},
    fault::Fault,
    out::double_text,
    request::Args,
};

const CHANGE: u16 = WRITE | DENY_OOM;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("APPEND", 3, CHANGE | FAST, (1, 1, 1), append),
    Command::new("DECR", 2, CHANGE | FAST, (1, 1, 1), |ctx, args| add(ctx, args, -1)),
    Command::new("DECRBY", 3, CHANGE | FAST, (1, 1, 1), decrby),
    Command::new("GET", 2, READ | FAST, (1, 1, 1), get),
    Command::new("GETDEL", 2, WRITE | FAST, (1, 1, 1), getdel),
    Command::new("GETEX", -2, WRITE | FAST, (1, 1, 1), getex),
    Command::new("GETRANGE", 4, READ, (1, 1, 1), getrange),
    Command::new("GETSET", 3, CHANGE | FAST, (1, 1, 1), getset),
    Command::new("INCR", 2, CHANGE | FAST, (1, 1, 1), |ctx, args| add(ctx, args, 1)),
    Command::new("INCRBY", 3, CHANGE | FAST, (1, 1, 1), |ctx, args| {
        let by = need_integer(args.at(2))?;
        add(ctx, args, by)
    }),
    Command::new("INCRBYFLOAT", 3, CHANGE | FAST, (1, 1, 1), incrbyfloat),
    Command::new("MGET", -2, READ | FAST, (1, -1, 1), mget),
    Command::new("MSET", -3, CHANGE, (1, -1, 2), mset),
    Command::new("MSETNX", -3, CHANGE, (1, -1, 2), msetnx),
    Command::new("PSETEX", 4, CHANGE, (1, 1, 1), |ctx, args| setex(ctx, args, "psetex", 1)),
    Command::new("SET", -3, CHANGE, (1, 1, 1), set),
    Command::new("SETEX", 4, CHANGE, (1, 1, 1), |ctx, args| setex(ctx, args, "setex", 1000)),
    Command::new("SETNX", 3, CHANGE | FAST, (1, 1, 1), setnx),
    Command::new("SETRANGE", 4, CHANGE, (1, 1, 1), setrange),
    Command::new("STRLEN", 2, READ | FAST, (1, 1, 1), strlen),
];

fn get(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let value = ctx.engine.read::<Text>(ctx.db, args.at(1))?;
    let found = value.is_some();
    ctx.out.bulk_or_null(value.map(|text| text.as_slice()));
    if found {
        ctx.engine.totals.hits += 1;
    } else {
        ctx.engine.totals.misses += 1;
    }
    Ok(())
}

/// When a key ends, as the options of SET and GETEX say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    At(u64),
    Keep,
    Never,
}

/// The end in Unix milliseconds that `EX`, `PX`, `EXAT` or `PXAT` names.
fn ending(ctx: &Ctx<'_>, option: &[u8], value: &[u8], command: &str) -> Result<u64, Fault> {
    let amount = need_integer(value)?;
    let invalid = || Fault::invalid_expire(command);
    let amount = u64::try_from(amount).ok().filter(|&amount| amount > 0).ok_or_else(invalid)?;
    let upper = option.to_ascii_uppercase();
    let millis = if upper.starts_with(b"EX") { amount.checked_mul(1000) } else { Some(amount) };
    let at = if upper.ends_with(b"AT") {
        millis
    } else {
        millis.and_then(|ms| ms.checked_add(ctx.engine.unix_ms))
    };
    at.filter(|&at| i64::try_from(at).is_ok()).ok_or_else(invalid)
}

fn is_ending(option: &[u8]) -> bool {
    [&b"EX"[..], b"PX", b"EXAT", b"PXAT"].iter().any(|known| option.eq_ignore_ascii_case(known))
}

/// Stores a string in place of whatever was there; the allocation of an old string serves again.
fn store(ctx: &mut Ctx<'_>, key: &[u8], text: &[u8], ending: Ending) {
    let now = ctx.engine.unix_ms;
    ctx.engine.expire(ctx.db, key);
    let database = ctx.engine.database(ctx.db);
    if let Some(Value::Text(old)) = database.value_mut(key) {
        old.clear();
        old.extend_from_slice(text);
    } else {
        database.put(key, Value::Text(text.to_vec()));
    }
    match ending {
        Ending::Keep => {}
        Ending::Never => {
            database.set_expiry(key, None);
        }
        Ending::At(at) if at <= now => {
            database.remove(key);
        }
        Ending::At(at) => {
            database.set_expiry(key, Some(at));
        }
    }
    ctx.engine.touched(ctx.db, key);
}

fn set(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mut end, mut only_new, mut only_old, mut give) = (Ending::Never, false, false, false);
    let mut at = 3;
    while at < args.len() {
        let option = args.at(at);
        if args.is(at, "NX") && !only_old {
            only_new = true;
        } else if args.is(at, "XX") && !only_new {
            only_old = true;
        } else if args.is(at, "GET") {
            give = true;
        } else if args.is(at, "KEEPTTL") && end == Ending::Never {
            end = Ending::Keep;
        } else if is_ending(option) && end == Ending::Never && at + 1 < args.len() {
            end = Ending::At(ending(ctx, option, args.at(at + 1), "set")?);
            at += 1;
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    let (key, text) = (args.at(1), args.at(2));
    if give {
        let old = ctx.engine.read::<Text>(ctx.db, key)?;
        ctx.out.bulk_or_null(old.map(|text| text.as_slice()));
    }
    if (only_new || only_old) && ctx.engine.entry(ctx.db, key).is_some() == only_new {
        if !give {
            ctx.out.null();
        }
        return Ok(());
    }
    store(ctx, key, text, end);
    if !give {
        ctx.out.ok();
    }
    Ok(())
}

fn setex(ctx: &mut Ctx<'_>, args: Args<'_>, name: &str, unit: u64) -> Result<(), Fault> {
    let option: &[u8] = if unit == 1 { b"PX" } else { b"EX" };
    let at = ending(ctx, option, args.at(2), name)?;
    store(ctx, args.at(1), args.at(3), Ending::At(at));
    ctx.out.ok();
    Ok(())
}

fn setnx(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let new = ctx.engine.entry(ctx.db, args.at(1)).is_none();
    if new {
        store(ctx, args.at(1), args.at(2), Ending::Never);
    }
    ctx.out.integer(i64::from(new));
    Ok(())
}

fn getset(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let old = ctx.engine.read::<Text>(ctx.db, args.at(1))?;
    ctx.out.bulk_or_null(old.map(|text| text.as_slice()));
    store(ctx, args.at(1), args.at(2), Ending::Never);
    Ok(())
}

fn getdel(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let old = ctx.engine.read::<Text>(ctx.db, args.at(1))?;
    ctx.out.bulk_or_null(old.map(|text| text.as_slice()));
    ctx.engine.remove(ctx.db, args.at(1));
    Ok(())
}

fn getex(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let end = match args.len() {
        2 => Ending::Keep,
        3 if args.is(2, "PERSIST") => Ending::Never,
        4 if is_ending(args.at(2)) => Ending::At(ending(ctx, args.at(2), args.at(3), "getex")?),
        _ => return Err(Fault::SYNTAX),
    };
    let key = args.at(1);
    let old = ctx.engine.read::<Text>(ctx.db, key)?;
    ctx.out.bulk_or_null(old.as_ref().map(|text| text.as_slice()));
    if old.is_none() || end == Ending::Keep {
        return Ok(());
    }
    match end {
        Ending::At(at) if at <= ctx.engine.unix_ms => {
            ctx.engine.remove(ctx.db, key);
        }
        Ending::At(at) => {
            ctx.engine.database(ctx.db).set_expiry(key, Some(at));
            ctx.engine.touched(ctx.db, key);
        }
        Ending::Keep | Ending::Never => {
            ctx.engine.database(ctx.db).set_expiry(key, None);
            ctx.engine.touched(ctx.db, key);
        }
    }
    Ok(())
}

fn append(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let text = ctx.engine.make::<Text>(ctx.db, args.at(1))?;
    text.extend_from_slice(args.at(2));
    ctx.out.count(text.len());
    ctx.engine.touched(ctx.db, args.at(1));
    Ok(())
}

fn strlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let length = ctx.engine.read::<Text>(ctx.db, args.at(1))?.map_or(0, |text| text.len());
    ctx.out.count(length);
    Ok(())
}

fn getrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (start, end) = (need_integer(args.at(2))?, need_integer(args.at(3))?);
    let text = ctx.engine.read::<Text>(ctx.db, args.at(1))?;
    // A negative end beyond the start means the first byte here, unlike in LRANGE.
    let part = text.and_then(|text| {
        let length = i64::try_from(text.len()).ok()?;
        if start < 0 && end < 0 && start > end {
            return None;
        }
        let end = if end < 0 { (length + end).max(0) } else { end };
        let (first, last) = range(start, end, text.len())?;
        text.get(first..=last)
    });
    ctx.out.bulk(part.unwrap_or_default());
    Ok(())
}

fn setrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let offset = need_integer(args.at(2))?;
    let Ok(offset) = usize::try_from(offset) else { return Err("ERR offset is out of range".into()) };
    let patch = args.at(3);
    if patch.is_empty() {
        return strlen(ctx, args);
    }
    if offset.saturating_add(patch.len()) > 512 << 20 {
        return Err("ERR string exceeds maximum allowed size (proto-max-bulk-len)".into());
    }
    let text = ctx.engine.make::<Text>(ctx.db, args.at(1))?;
    let end = offset + patch.len();
    if text.len() < end {
        text.resize(end, 0);
    }
    if let Some(place) = text.get_mut(offset..end) {
        place.copy_from_slice(patch);
    }
    ctx.out.count(text.len());
    ctx.engine.touched(ctx.db, args.at(1));
    Ok(())
}

fn mget(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    ctx.out.array(args.len() - 1);
    for key in args.from(1) {
        let value = ctx.engine.read::<Text>(ctx.db, key).unwrap_or_default();
        ctx.out.bulk_or_null(value.map(|text| text.as_slice()));
    }
    Ok(())
}

fn mset(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if args.len().is_multiple_of(2) {
        return Err(Fault::arity("mset"));
    }
    for at in (1..args.len()).step_by(2) {
        store(ctx, args.at(at), args.at(at + 1), Ending::Never);
    }
    ctx.out.ok();
    Ok(())
}

fn msetnx(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if args.len().is_multiple_of(2) {
        return Err(Fault::arity("msetnx"));
    }
    let taken = (1..args.len()).step_by(2).any(|at| ctx.engine.entry(ctx.db, args.at(at)).is_some());
    if !taken {
        for at in (1..args.len()).step_by(2) {
            store(ctx, args.at(at), args.at(at + 1), Ending::Never);
        }
    }
    ctx.out.integer(i64::from(!taken));
    Ok(())
}

fn decrby(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let by = need_integer(args.at(2))?;
    let by = by.checked_neg().ok_or("ERR decrement would overflow")?;
    add(ctx, args, by)
}

fn add(ctx: &mut Ctx<'_>, args: Args<'_>, by: i64) -> Result<(), Fault> {
    let key = args.at(1);
    let old = match ctx.engine.read::<Text>(ctx.db, key)? {
        Some(text) => need_integer(text)?,
        None => 0,
    };
    let new = old.checked_add(by).ok_or(Fault::OVERFLOW)?;
    let mut digits = itoa::Buffer::new();
    let text = ctx.engine.make::<Text>(ctx.db, key)?;
    text.clear();
    text.extend_from_slice(digits.format(new).as_bytes());
    ctx.engine.touched(ctx.db, key);
    ctx.out.integer(new);
    Ok(())
}

fn incrbyfloat(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let key = args.at(1);
    let old = match ctx.engine.read::<Text>(ctx.db, key)? {
        Some(text) => need_float(text)?,
        None => 0.0,
    };
    let new = old + need_float(args.at(2))?;
    if !new.is_finite() {
        return Err(Fault::NAN);
    }
    let written = decimal(new);
    let text = ctx.engine.make::<Text>(ctx.db, key)?;
    text.clear();
    text.extend_from_slice(written.as_bytes());
    ctx.engine.touched(ctx.db, key);
    ctx.out.bulk(written.as_bytes());
    Ok(())
}

/// Counters with a fraction never have an exponent, and lose what binary fractions add beyond 17 decimals.
pub(super) fn decimal(value: f64) -> String {
    let text = double_text(value);
    if !text.contains('e') {
        return text;
    }
    let text = format!("{value:.17}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
