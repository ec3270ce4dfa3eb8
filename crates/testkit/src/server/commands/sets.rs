//! Sets.

use super::{
    Command, Ctx, DENY_OOM, FAST, READ, WRITE,
    number::{integer, need_count},
};
use crate::server::{data::Set, fault::Fault, request::Args};

/// `set-max-intset-entries` of real servers.
const MAX_INTEGERS: usize = 512;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("SADD", -3, WRITE | DENY_OOM | FAST, (1, 1, 1), sadd),
    Command::new("SCARD", 2, READ | FAST, (1, 1, 1), scard),
    Command::new("SINTER", -2, READ, (1, -1, 1), |ctx, args| combine(ctx, args, Combine::Inter)),
    Command::new("SDIFF", -2, READ, (1, -1, 1), |ctx, args| combine(ctx, args, Combine::Diff)),
    Command::new("SISMEMBER", 3, READ | FAST, (1, 1, 1), sismember),
    Command::new("SMEMBERS", 2, READ, (1, 1, 1), smembers),
    Command::new("SMISMEMBER", -3, READ | FAST, (1, 1, 1), smismember),
    Command::new("SPOP", -2, WRITE | FAST, (1, 1, 1), spop),
    Command::new("SREM", -3, WRITE | FAST, (1, 1, 1), srem),
    Command::new("SUNION", -2, READ, (1, -1, 1), |ctx, args| combine(ctx, args, Combine::Union)),
];

fn sadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let set = ctx.engine.make::<Set>(ctx.db, args.at(1))?;
    let added = args.from(2).filter(|member| set.insert(member, ()).is_none()).count();
    if added > 0 {
        ctx.engine.touched(ctx.db, args.at(1));
    }
    ctx.out.count(added);
    Ok(())
}

fn srem(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let removed = match ctx.engine.read::<Set>(ctx.db, args.at(1))? {
        Some(set) => args.from(2).filter(|member| set.remove(member).is_some()).count(),
        None => 0,
    };
    if removed > 0 {
        ctx.engine.changed::<Set>(ctx.db, args.at(1));
    }
    ctx.out.count(removed);
    Ok(())
}

fn scard(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let size = ctx.engine.read::<Set>(ctx.db, args.at(1))?.map_or(0, |set| set.len());
    ctx.out.count(size);
    Ok(())
}

fn smembers(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(set) = ctx.engine.read::<Set>(ctx.db, args.at(1))? else {
        ctx.out.set(0);
        return Ok(());
    };
    let mut members: Vec<_> = set.keys().collect();
    // Servers keep small sets of integers in order.
    if members.len() <= MAX_INTEGERS && members.iter().all(|member| integer(member).is_some()) {
        members.sort_by_key(|member| integer(member));
    }
    ctx.out.set(members.len());
    for member in members {
        ctx.out.bulk(member);
    }
    Ok(())
}

fn sismember(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = ctx.engine.read::<Set>(ctx.db, args.at(1))?.is_some_and(|set| set.contains(args.at(2)));
    ctx.out.integer(i64::from(found));
    Ok(())
}

fn smismember(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let set = ctx.engine.read::<Set>(ctx.db, args.at(1))?;
    ctx.out.array(args.len() - 2);
    for member in args.from(2) {
        ctx.out.integer(i64::from(set.as_ref().is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

/// Takes members at random: any member is right, the oldest is as random as any.
fn spop(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let count = match args.len() {
        2 => None,
        3 => Some(need_count(args.at(2)).map_err(|_fault| Fault::OUT_OF_RANGE)?),
        _ => return Err(Fault::SYNTAX),
    };
    let Some(set) = ctx.engine.read::<Set>(ctx.db, args.at(1))? else {
        match count {
            None => ctx.out.null(),
            Some(_) => ctx.out.set(0),
        }
        return Ok(());
    };
    let taken: Vec<_> = set.keys().take(count.unwrap_or(1)).cloned().collect();
    for member in &taken {
        set.remove(member);
    }
    if count.is_some() {
        ctx.out.set(taken.len());
    }
    for member in &taken {
        ctx.out.bulk(member);
    }
    ctx.engine.changed::<Set>(ctx.db, args.at(1));
    Ok(())
}

#[derive(Clone, Copy)]
enum Combine {
    Diff,
    Inter,
    Union,
}

fn combine(ctx: &mut Ctx<'_>, args: Args<'_>, how: Combine) -> Result<(), Fault> {
    let mut result = Set::default();
    for (index, key) in args.from(1).enumerate() {
        let empty = Set::default();
        let set = match ctx.engine.read::<Set>(ctx.db, key)? {
            Some(set) => &*set,
            None => &empty,
        };
        match how {
            Combine::Union => set.keys().for_each(|member| {
                result.insert(member, ());
            }),
            _ if index == 0 => set.keys().for_each(|member| {
                result.insert(member, ());
            }),
            Combine::Diff | Combine::Inter => {
                let keep = matches!(how, Combine::Inter);
                let gone: Vec<_> = result.keys().filter(|m| set.contains(m) != keep).cloned().collect();
                for member in &gone {
                    result.remove(member);
                }
            }
        }
    }
    ctx.out.set(result.len());
    result.keys().for_each(|member| ctx.out.bulk(member));
    Ok(())
}
