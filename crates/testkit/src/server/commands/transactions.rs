//! MULTI, EXEC, DISCARD, WATCH.

use bytes::Bytes;

use super::{Command, Ctx, FAST, IN_MULTI, Lookup, NO_SCRIPT};
use crate::server::{conn::Multi, fault::Fault, request::Args};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("DISCARD", 1, FAST | IN_MULTI | NO_SCRIPT, (0, 0, 0), discard),
    Command::new("EXEC", 1, IN_MULTI | NO_SCRIPT, (0, 0, 0), exec),
    Command::new("MULTI", 1, FAST | IN_MULTI | NO_SCRIPT, (0, 0, 0), multi),
    Command::new("UNWATCH", 1, FAST, (0, 0, 0), unwatch),
    Command::new("WATCH", -2, FAST | IN_MULTI | NO_SCRIPT, (1, -1, 1), watch),
];

fn multi(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let conn = ctx.conn();
    if conn.multi.is_some() {
        return Err("ERR MULTI calls can not be nested".into());
    }
    conn.multi = Some(Multi::default());
    ctx.out.ok();
    Ok(())
}

fn discard(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    ctx.conn().multi.take().ok_or("ERR DISCARD without MULTI")?;
    ctx.engine.unwatch(ctx.key);
    ctx.out.ok();
    Ok(())
}

fn watch(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if ctx.conn().multi.is_some() {
        return Err("ERR WATCH inside MULTI is not allowed".into());
    }
    let db = ctx.db;
    for name in args.from(1) {
        // A key whose time is over counts as absent, so that its removal later breaks nothing.
        ctx.engine.expire(db, name);
        let name = Bytes::copy_from_slice(name);
        let key = ctx.key;
        if let Some(interest) = ctx.engine.interest.get_mut(db) {
            interest.watching.entry(name.clone()).or_default().insert(key);
        }
        let conn = ctx.conn();
        if !conn.watched.contains(&(db, name.clone())) {
            conn.watched.push((db, name));
        }
    }
    ctx.out.ok();
    Ok(())
}

fn unwatch(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    ctx.engine.unwatch(ctx.key);
    ctx.out.ok();
    Ok(())
}

fn exec(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let multi = ctx.conn().multi.take().ok_or("ERR EXEC without MULTI")?;
    // A watched key may have expired since, without anybody having looked at it.
    for (db, name) in ctx.conn().watched.clone() {
        ctx.engine.expire(db, &name);
    }
    let broken = ctx.conn().watch_broken;
    ctx.engine.unwatch(ctx.key);
    if multi.refused {
        return Err("EXECABORT Transaction discarded because of previous errors.".into());
    }
    if broken {
        ctx.out.null_array();
        return Ok(());
    }
    ctx.out.array(multi.queue.len());
    for queued in &multi.queue {
        let args = queued.as_args();
        let start = ctx.out.buf.len();
        let done = match Lookup::of(args) {
            Lookup::Found(command) => ctx.engine.call(ctx.key, command, args, ctx.out, true),
            Lookup::Refused(fault) => Err(fault),
        };
        if let Err(fault) = done {
            ctx.out.buf.truncate(start);
            ctx.out.error(&fault.0);
        }
    }
    Ok(())
}
