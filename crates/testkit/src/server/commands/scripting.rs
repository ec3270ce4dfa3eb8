//! EVAL and its kin over the registered scripts.

use bytes::Bytes;

use super::{Command, Ctx, MAY_REPLICATE, MOVABLE, NO_SCRIPT, number::integer};
use crate::server::{
    fault::Fault,
    request::Args,
    script::{Script, ScriptFn, sha1_hex},
};

const RUN: u16 = NO_SCRIPT | MOVABLE | MAY_REPLICATE;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("EVAL", -3, RUN, (0, 0, 0), eval),
    Command::new("EVALSHA", -3, RUN, (0, 0, 0), evalsha),
    Command::container("SCRIPT", SCRIPT),
];

const SCRIPT: &[Command] = &[
    Command::sub("SCRIPT", "EXISTS", -3, NO_SCRIPT, exists),
    Command::sub("SCRIPT", "FLUSH", -2, NO_SCRIPT, flush),
    Command::sub("SCRIPT", "LOAD", 3, NO_SCRIPT, load),
];

const UNREGISTERED: &str =
    "ERR the embedded server runs registered scripts only, and this source is not one of them";

fn eval(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let script = ctx.engine.scripts.load(&sha1_hex(args.at(1))).ok_or(UNREGISTERED)?;
    run(ctx, args, &script)
}

fn evalsha(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let sha = args.text(1).to_ascii_lowercase();
    let script = ctx.engine.scripts.loaded(&sha).ok_or(Fault::NO_SCRIPT)?;
    run(ctx, args, &script)
}

fn run(ctx: &mut Ctx<'_>, args: Args<'_>, script: &ScriptFn) -> Result<(), Fault> {
    let count = integer(args.at(2)).ok_or(Fault::NOT_INTEGER)?;
    let count =
        usize::try_from(count).map_err(|_negative| Fault::from("ERR Number of keys can't be negative"))?;
    if count > args.len() - 3 {
        return Err("ERR Number of keys can't be greater than number of args".into());
    }
    let keys: Vec<Bytes> = args.from(3).take(count).map(Bytes::copy_from_slice).collect();
    let rest: Vec<Bytes> = args.from(3 + count).map(Bytes::copy_from_slice).collect();
    let reply = script.run(&mut Script::new(ctx.engine, ctx.key, keys, rest));
    ctx.out.frame(&reply.map_err(Fault::from)?);
    Ok(())
}

fn load(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let sha = sha1_hex(args.at(2));
    ctx.engine.scripts.load(&sha).ok_or(UNREGISTERED)?;
    ctx.out.bulk(sha.as_bytes());
    Ok(())
}

fn exists(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    ctx.out.array(args.len() - 2);
    for sha in args.from(2) {
        let sha = String::from_utf8_lossy(sha).to_ascii_lowercase();
        ctx.out.integer(i64::from(ctx.engine.scripts.loaded(&sha).is_some()));
    }
    Ok(())
}

fn flush(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if args.len() > 3 || (args.len() == 3 && !args.is(2, "SYNC") && !args.is(2, "ASYNC")) {
        return Err("ERR SCRIPT FLUSH only support SYNC|ASYNC option".into());
    }
    ctx.engine.scripts.flush();
    ctx.out.ok();
    Ok(())
}
