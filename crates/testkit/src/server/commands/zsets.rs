//! Sorted sets, as far as programs use them as queues and rankings.

use super::{
    Command, Ctx, DENY_OOM, FAST, READ, WRITE,
    number::{float, need_float, need_integer, range},
};
use crate::server::{
    data::{Score, ZSet},
    fault::Fault,
    out::Proto,
    request::Args,
};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("ZADD", -4, WRITE | DENY_OOM | FAST, (1, 1, 1), zadd),
    Command::new("ZCARD", 2, READ | FAST, (1, 1, 1), zcard),
    Command::new("ZCOUNT", 4, READ | FAST, (1, 1, 1), zcount),
    Command::new("ZINCRBY", 4, WRITE | DENY_OOM | FAST, (1, 1, 1), zincrby),
    Command::new("ZPOPMIN", -2, WRITE | FAST, (1, 1, 1), zpopmin),
    Command::new("ZRANGE", -4, READ, (1, 1, 1), zrange),
    Command::new("ZRANGEBYSCORE", -4, READ, (1, 1, 1), zrangebyscore),
    Command::new("ZRANK", 3, READ | FAST, (1, 1, 1), zrank),
    Command::new("ZREM", -3, WRITE | FAST, (1, 1, 1), zrem),
    Command::new("ZREMRANGEBYSCORE", 4, WRITE, (1, 1, 1), zremrangebyscore),
    Command::new("ZSCORE", 3, READ | FAST, (1, 1, 1), zscore),
];

fn zadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mut new, mut old, mut greater, mut less, mut changes, mut increment) =
        (false, false, false, false, false, false);
    let mut at = 2;
    while at < args.len() {
        match args.at(at).to_ascii_uppercase().as_slice() {
            b"NX" => new = true,
            b"XX" => old = true,
            b"GT" => greater = true,
            b"LT" => less = true,
            b"CH" => changes = true,
            b"INCR" => increment = true,
            _ => break,
        }
        at += 1;
    }
    let pairs = args.len() - at;
    if pairs == 0 || !pairs.is_multiple_of(2) {
        return Err(Fault::SYNTAX);
    }
    if new && old {
        return Err("ERR XX and NX options at the same time are not compatible".into());
    }
    if (new && (greater || less)) || (greater && less) {
        return Err("ERR GT, LT, and/or NX options at the same time are not compatible".into());
    }
    if increment && pairs != 2 {
        return Err("ERR INCR option supports a single increment-element pair".into());
    }
    let scores =
        (at..args.len()).step_by(2).map(|at| need_float(args.at(at))).collect::<Result<Vec<_>, _>>()?;
    if old && ctx.engine.read::<ZSet>(ctx.db, args.at(1))?.is_none() {
        if increment {
            ctx.out.null();
        } else {
            ctx.out.integer(0);
        }
        return Ok(());
    }
    let zset = ctx.engine.make::<ZSet>(ctx.db, args.at(1))?;
    let (mut added, mut updated, mut last) = (0, 0, None);
    for (score, member) in scores.into_iter().zip(args.from(at + 1).step_by(2)) {
        let before = zset.scores.get(member).copied();
        let score = if increment { score + before.unwrap_or(0.0) } else { score };
        if score.is_nan() {
            return Err("ERR resulting score is not a number (NaN)".into());
        }
        let refused = match before {
            None => old,
            Some(before) => new || (greater && score <= before) || (less && score >= before),
        };
        if refused {
            continue;
        }
        last = Some(score);
        zset.insert(member, score);
        match before {
            None => added += 1,
            Some(before) => updated += usize::from(Score(before) != Score(score)),
        }
    }
    if added + updated > 0 {
        ctx.engine.touched(ctx.db, args.at(1));
    }
    // Nothing may have been added to a key made for it.
    if ctx.engine.read::<ZSet>(ctx.db, args.at(1))?.is_some_and(|zset| zset.scores.is_empty()) {
        ctx.engine.database(ctx.db).remove(args.at(1));
    }
    match (increment, last) {
        (true, Some(score)) => ctx.out.double(score),
        (true, None) => ctx.out.null(),
        (false, _) => ctx.out.count(if changes { added + updated } else { added }),
    }
    Ok(())
}

fn zincrby(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let by = need_float(args.at(2))?;
    let before = ctx.engine.read::<ZSet>(ctx.db, args.at(1))?.and_then(|z| z.scores.get(args.at(3)).copied());
    let score = before.unwrap_or(0.0) + by;
    if score.is_nan() {
        return Err("ERR resulting score is not a number (NaN)".into());
    }
    ctx.engine.make::<ZSet>(ctx.db, args.at(1))?.insert(args.at(3), score);
    ctx.engine.touched(ctx.db, args.at(1));
    ctx.out.double(score);
    Ok(())
}

fn zrem(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let removed = match ctx.engine.read::<ZSet>(ctx.db, args.at(1))? {
        Some(zset) => args.from(2).filter(|member| zset.remove(member)).count(),
        None => 0,
    };
    if removed > 0 {
        ctx.engine.changed::<ZSet>(ctx.db, args.at(1));
    }
    ctx.out.count(removed);
    Ok(())
}

fn zcard(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let size = ctx.engine.read::<ZSet>(ctx.db, args.at(1))?.map_or(0, |zset| zset.scores.len());
    ctx.out.count(size);
    Ok(())
}

fn zscore(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let score = ctx.engine.read::<ZSet>(ctx.db, args.at(1))?.and_then(|z| z.scores.get(args.at(2)).copied());
    match score {
        Some(score) => ctx.out.double(score),
        None => ctx.out.null(),
    }
    Ok(())
}

fn zrank(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let zset = ctx.engine.read::<ZSet>(ctx.db, args.at(1))?;
    match zset.and_then(|zset| zset.by_score.iter().position(|(_, member)| member == args.at(2))) {
        Some(rank) => ctx.out.count(rank),
        None => ctx.out.null(),
    }
    Ok(())
}

fn zpopmin(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let count = match args.len() {
        2 => 1,
        3 => super::number::need_count(args.at(2)).map_err(|_fault| Fault::OUT_OF_RANGE)?,
        _ => return Err(Fault::SYNTAX),
    };
    let Some(zset) = ctx.engine.read::<ZSet>(ctx.db, args.at(1))? else {
        ctx.out.array(0);
        return Ok(());
    };
    let taken: Vec<_> = zset.by_score.iter().take(count).map(|(s, m)| (m.clone(), s.0)).collect();
    for (member, _) in &taken {
        zset.remove(member);
    }
    ctx.engine.changed::<ZSet>(ctx.db, args.at(1));
    let nested = args.len() == 3;
    write_members(ctx, &taken, true, nested);
    Ok(())
}

/// Members, with their scores when asked for; RESP3 nests each pair.
fn write_members(ctx: &mut Ctx<'_>, members: &[(bytes::Bytes, f64)], scores: bool, nest: bool) {
    let nest = nest && scores && ctx.out.proto == Proto::Resp3;
    ctx.out.array(if scores && !nest { members.len() * 2 } else { members.len() });
    for (member, score) in members {
        if nest {
            ctx.out.array(2);
        }
        ctx.out.bulk(member);
        if scores {
            ctx.out.double(*score);
        }
    }
}

/// One end of a range of scores: the score, and whether it is itself left out.
fn bound(text: &[u8]) -> Result<(f64, bool), Fault> {
    let (text, open) = match text.strip_prefix(b"(") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    Ok((float(text).ok_or("ERR min or max is not a float")?, open))
}

struct Bounds {
    min: (f64, bool),
    max: (f64, bool),
}

impl Bounds {
    fn read(min: &[u8], max: &[u8]) -> Result<Self, Fault> {
        Ok(Self { min: bound(min)?, max: bound(max)? })
    }

    fn hold(&self, score: f64) -> bool {
        let above = if self.min.1 { score > self.min.0 } else { score >= self.min.0 };
        let below = if self.max.1 { score < self.max.0 } else { score <= self.max.0 };
        above && below
    }
}

fn zcount(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let bounds = Bounds::read(args.at(2), args.at(3))?;
    let zset = ctx.engine.read::<ZSet>(ctx.db, args.at(1))?;
    let count = zset.map_or(0, |zset| zset.by_score.iter().filter(|(score, _)| bounds.hold(score.0)).count());
    ctx.out.count(count);
    Ok(())
}

fn zremrangebyscore(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let bounds = Bounds::read(args.at(2), args.at(3))?;
    let mut removed = 0;
    if let Some(zset) = ctx.engine.read::<ZSet>(ctx.db, args.at(1))? {
        let gone: Vec<_> =
            zset.by_score.iter().filter(|(s, _)| bounds.hold(s.0)).map(|(_, m)| m.clone()).collect();
        removed = gone.iter().filter(|member| zset.remove(member)).count();
    }
    if removed > 0 {
        ctx.engine.changed::<ZSet>(ctx.db, args.at(1));
    }
    ctx.out.count(removed);
    Ok(())
}

fn zrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mut by_score, mut reverse, mut scores, mut limit) = (false, false, false, None);
    let mut at = 4;
    while at < args.len() {
        if args.is(at, "BYSCORE") {
            by_score = true;
        } else if args.is(at, "REV") {
            reverse = true;
        } else if args.is(at, "WITHSCORES") {
            scores = true;
        } else if args.is(at, "LIMIT") && at + 2 < args.len() {
            limit = Some((need_integer(args.at(at + 1))?, need_integer(args.at(at + 2))?));
            at += 2;
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    if limit.is_some() && !by_score {
        return Err(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX".into()
        );
    }
    if by_score {
        let (min, max) = if reverse { (3, 2) } else { (2, 3) };
        let bounds = Bounds::read(args.at(min), args.at(max))?;
        return select(ctx, args, &bounds, reverse, limit, scores);
    }
    let (start, end) = (need_integer(args.at(2))?, need_integer(args.at(3))?);
    let members = match ctx.engine.read::<ZSet>(ctx.db, args.at(1))? {
        Some(zset) => match range(start, end, zset.scores.len()) {
            Some((first, last)) => {
                let pick = |(score, member): &(Score, bytes::Bytes)| (member.clone(), score.0);
                let count = last - first + 1;
                if reverse {
                    zset.by_score.iter().rev().skip(first).take(count).map(pick).collect()
                } else {
                    zset.by_score.iter().skip(first).take(count).map(pick).collect()
                }
            }
            None => Vec::new(),
        },
        None => Vec::new(),
    };
    write_members(ctx, &members, scores, true);
    Ok(())
}

fn zrangebyscore(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let bounds = Bounds::read(args.at(2), args.at(3))?;
    let (mut scores, mut limit) = (false, None);
    let mut at = 4;
    while at < args.len() {
        if args.is(at, "WITHSCORES") {
            scores = true;
        } else if args.is(at, "LIMIT") && at + 2 < args.len() {
            limit = Some((need_integer(args.at(at + 1))?, need_integer(args.at(at + 2))?));
            at += 2;
        } else {
            return Err(Fault::SYNTAX);
        }
        at += 1;
    }
    select(ctx, args, &bounds, false, limit, scores)
}

fn select(
    ctx: &mut Ctx<'_>,
    args: Args<'_>,
    bounds: &Bounds,
    reverse: bool,
    limit: Option<(i64, i64)>,
    scores: bool,
) -> Result<(), Fault> {
    let (offset, count) = limit.unwrap_or((0, -1));
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    let take = usize::try_from(count).unwrap_or(usize::MAX);
    let members: Vec<_> = match ctx.engine.read::<ZSet>(ctx.db, args.at(1))? {
        Some(zset) => {
            let mut fit: Vec<_> = zset
                .by_score
                .iter()
                .filter(|(s, _)| bounds.hold(s.0))
                .map(|(s, m)| (m.clone(), s.0))
                .collect();
            if reverse {
                fit.reverse();
            }
            fit.into_iter().skip(skip).take(take).collect()
        }
        None => Vec::new(),
    };
    write_members(ctx, &members, scores, true);
    Ok(())
}
