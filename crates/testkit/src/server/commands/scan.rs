//! Walks with cursors: SCAN, HSCAN, SSCAN, ZSCAN.

use super::{
    Command, Ctx, READ,
    number::{integer, need_integer},
};
use crate::server::{
    data::{Hash, Set, ZSet},
    fault::Fault,
    glob,
    out::double_text,
    request::Args,
};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("HSCAN", -3, READ, (1, 1, 1), hscan),
    Command::new("SCAN", -2, READ, (0, 0, 0), scan),
    Command::new("SSCAN", -3, READ, (1, 1, 1), sscan),
    Command::new("ZSCAN", -3, READ, (1, 1, 1), zscan),
];

struct Options<'a> {
    cursor: u64,
    pattern: Option<&'a [u8]>,
    count: usize,
    kind: Option<String>,
}

impl<'a> Options<'a> {
    fn read(args: Args<'a>, cursor_at: usize, keys: bool) -> Result<Self, Fault> {
        let cursor = integer(args.at(cursor_at)).and_then(|cursor| u64::try_from(cursor).ok());
        let mut options =
            Self { cursor: cursor.ok_or("ERR invalid cursor")?, pattern: None, count: 10, kind: None };
        let mut at = cursor_at + 1;
        while at < args.len() {
            if at + 1 >= args.len() {
                return Err(Fault::SYNTAX);
            }
            if args.is(at, "MATCH") {
                options.pattern = Some(args.at(at + 1));
            } else if args.is(at, "COUNT") {
                let count = need_integer(args.at(at + 1))?;
                options.count =
                    usize::try_from(count).ok().filter(|&count| count > 0).ok_or(Fault::SYNTAX)?;
            } else if keys && args.is(at, "TYPE") {
                options.kind = Some(args.text(at + 1).to_ascii_lowercase());
            } else {
                return Err(Fault::SYNTAX);
            }
            at += 2;
        }
        Ok(options)
    }

    fn fits(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }
}

/// Writes the next cursor and opens the list.
fn open(ctx: &mut Ctx<'_>, cursor: u64, length: usize) {
    ctx.out.array(2);
    ctx.out.bulk(itoa::Buffer::new().format(cursor).as_bytes());
    ctx.out.array(length);
}

fn scan(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let options = Options::read(args, 1, true)?;
    ctx.engine.expire_all();
    let database = ctx.engine.database(ctx.db);
    let (cursor, mut keys) = database.keys().scan(options.cursor, options.count);
    keys.retain(|key| {
        let kind = database.get(key).map(|entry| entry.value.kind());
        options.fits(key) && options.kind.as_ref().is_none_or(|wanted| kind == Some(wanted))
    });
    open(ctx, cursor, keys.len());
    for key in &keys {
        ctx.out.bulk(key);
    }
    Ok(())
}

fn hscan(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let options = Options::read(args, 2, false)?;
    let mut pairs = Vec::new();
    let mut next = 0;
    if let Some(hash) = ctx.engine.read::<Hash>(ctx.db, args.at(1))? {
        let (cursor, fields) = hash.scan(options.cursor, options.count);
        next = cursor;
        pairs.extend(
            fields
                .into_iter()
                .filter(|field| options.fits(field))
                .filter_map(|field| hash.get(&field).cloned().map(|value| (field, value))),
        );
    }
    open(ctx, next, pairs.len() * 2);
    for (field, value) in &pairs {
        ctx.out.bulk(field);
        ctx.out.bulk(value);
    }
    Ok(())
}

fn sscan(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let options = Options::read(args, 2, false)?;
    let (next, mut members) = match ctx.engine.read::<Set>(ctx.db, args.at(1))? {
        Some(set) => set.scan(options.cursor, options.count),
        None => (0, Vec::new()),
    };
    members.retain(|member| options.fits(member));
    open(ctx, next, members.len());
    for member in &members {
        ctx.out.bulk(member);
    }
    Ok(())
}

/// All members at once, as real servers do it for small sets.
fn zscan(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let options = Options::read(args, 2, false)?;
    let members: Vec<_> = match ctx.engine.read::<ZSet>(ctx.db, args.at(1))? {
        Some(zset) => zset
            .by_score
            .iter()
            .filter(|(_, member)| options.fits(member))
            .map(|(score, member)| (member.clone(), score.0))
            .collect(),
        None => Vec::new(),
    };
    open(ctx, 0, members.len() * 2);
    for (member, score) in &members {
        ctx.out.bulk(member);
        ctx.out.bulk(double_text(*score).as_bytes());
    }
    Ok(())
}
