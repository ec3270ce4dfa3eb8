//! `COMMAND`: the table describes itself, thinly.

use super::{
    ADMIN, BLOCKING, Command, Ctx, DENY_OOM, FAST, LOADING, MOVABLE, NO_AUTH, NO_SCRIPT, PUBSUB, READ, STALE,
    TABLE, WRITE,
};
use crate::server::{
    fault::Fault,
    out::Out,
    request::{Args, OwnedArgs},
};

pub(super) const COMMANDS: &[Command] =
    &[Command { arity: -1, flags: LOADING | STALE, run: all, ..Command::container("COMMAND", SUBCOMMANDS) }];

const SUBCOMMANDS: &[Command] = &[
    Command::sub("COMMAND", "COUNT", 2, LOADING | STALE, |ctx, _| {
        ctx.out.count(TABLE.len());
        Ok(())
    }),
    Command::sub("COMMAND", "DOCS", -2, LOADING | STALE, docs),
    Command::sub("COMMAND", "GETKEYS", -3, LOADING | STALE, getkeys),
    Command::sub("COMMAND", "INFO", -2, LOADING | STALE, info),
    Command::sub("COMMAND", "LIST", -2, LOADING | STALE, list),
];

const FLAGS: &[(u16, &str)] = &[
    (WRITE, "write"),
    (READ, "readonly"),
    (DENY_OOM, "denyoom"),
    (ADMIN, "admin"),
    (PUBSUB, "pubsub"),
    (NO_SCRIPT, "noscript"),
    (BLOCKING, "blocking"),
    (LOADING, "loading"),
    (STALE, "stale"),
    (FAST, "fast"),
    (NO_AUTH, "no_auth"),
    (MOVABLE, "movablekeys"),
];

fn describe(out: &mut Out, command: &Command) {
    out.array(10);
    out.bulk(command.full_name().to_ascii_lowercase().as_bytes());
    out.integer(i64::from(command.arity));
    let flags: Vec<&str> =
        FLAGS.iter().filter(|(flag, _)| command.has(*flag)).map(|(_, name)| *name).collect();
    out.set(flags.len());
    for flag in &flags {
        out.simple(flag);
    }
    let (first, last, step) = command.keys;
    for place in [first, last, step] {
        out.integer(i64::from(place));
    }
    // ACL categories, tips, key specifications.
    out.set(0);
    out.array(0);
    out.array(0);
    out.array(command.subcommands.len());
    for sub in command.subcommands {
        describe(out, sub);
    }
}

fn all(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    ctx.out.array(TABLE.len());
    for command in TABLE.iter() {
        describe(ctx.out, command);
    }
    Ok(())
}

fn find(name: &[u8]) -> Option<&'static Command> {
    TABLE.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(name)).copied()
}

fn info(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if args.len() == 2 {
        return all(ctx, args);
    }
    ctx.out.array(args.len() - 2);
    for name in args.from(2) {
        match find(name) {
            Some(command) => describe(ctx.out, command),
            None => ctx.out.null(),
        }
    }
    Ok(())
}

fn list(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if args.len() > 2 {
        return Err(Fault::SYNTAX);
    }
    ctx.out.array(TABLE.len());
    for command in TABLE.iter() {
        ctx.out.bulk(command.name.to_ascii_lowercase().as_bytes());
    }
    Ok(())
}

fn docs(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let commands: Vec<&Command> =
        if args.len() == 2 { TABLE.clone() } else { args.from(2).filter_map(find).collect() };
    ctx.out.map(commands.len());
    for command in commands {
        ctx.out.bulk(command.name.to_ascii_lowercase().as_bytes());
        ctx.out.map(2);
        ctx.out.bulk(b"summary");
        ctx.out.bulk(b"See the documentation of Redis.");
        ctx.out.bulk(b"since");
        ctx.out.bulk(b"1.0.0");
    }
    Ok(())
}

fn getkeys(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let inner: OwnedArgs = args.from(2).collect();
    let inner = inner.as_args();
    let command = super::Lookup::of(inner).command().ok_or("ERR Invalid command specified")?;
    let keys = command.keys_of(inner);
    if keys.is_empty() {
        return Err("ERR The command has no key arguments".into());
    }
    ctx.out.array(keys.len());
    for key in &keys {
        ctx.out.bulk(key);
    }
    Ok(())
}
