//! The connection itself: HELLO, AUTH, SELECT, PING, QUIT, RESET.

use super::{Command, Ctx, FAST, IN_MULTI, LOADING, NO_AUTH, NO_SCRIPT, STALE, SUBSCRIBED, number::integer};
use crate::server::{
    conn::{Closing, ReplyMode},
    fault::Fault,
    out::Proto,
    request::Args,
};

const ANYWHERE: u16 = FAST | LOADING | STALE;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("AUTH", -2, ANYWHERE | NO_AUTH | NO_SCRIPT, (0, 0, 0), auth),
    Command::new("ECHO", 2, FAST, (0, 0, 0), |ctx, args| {
        ctx.out.bulk(args.at(1));
        Ok(())
    }),
    Command::new("HELLO", -1, ANYWHERE | NO_AUTH | NO_SCRIPT, (0, 0, 0), hello),
    Command::new("PING", -1, FAST | SUBSCRIBED, (0, 0, 0), ping),
    Command::new("QUIT", -1, ANYWHERE | NO_AUTH | NO_SCRIPT | SUBSCRIBED | IN_MULTI, (0, 0, 0), quit),
    Command::new("RESET", 1, ANYWHERE | NO_AUTH | NO_SCRIPT | SUBSCRIBED | IN_MULTI, (0, 0, 0), reset),
    Command::new("SELECT", 2, ANYWHERE, (0, 0, 0), select),
];

fn ping(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if args.len() > 2 {
        return Err(Fault::arity("ping"));
    }
    if ctx.out.proto == Proto::Resp2 && ctx.conn().is_subscriber() {
        ctx.out.array(2);
        ctx.out.bulk(b"pong");
        ctx.out.bulk(args.at(1));
    } else if let Some(text) = args.get(1) {
        ctx.out.bulk(text);
    } else {
        ctx.out.simple("PONG");
    }
    Ok(())
}

fn quit(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    ctx.out.ok();
    let key = ctx.key;
    ctx.engine.close(key, Closing::Flush);
    Ok(())
}

fn reset(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let key = ctx.key;
    ctx.engine.unwatch(key);
    ctx.engine.unsubscribe_all(key);
    ctx.engine.stop_tracking(key);
    let user = ctx.engine.config.needs_no_password().then(|| "default".to_owned());
    let conn = ctx.conn();
    conn.multi = None;
    conn.db = 0;
    conn.name.clear();
    conn.user = user;
    conn.reply = ReplyMode::On;
    conn.asking = false;
    conn.read_only = false;
    conn.maintenance = None;
    conn.inbox.proto = Proto::Resp2;
    ctx.out.proto = Proto::Resp2;
    ctx.out.simple("RESET");
    Ok(())
}

fn select(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let index = integer(args.at(1)).ok_or(Fault::NOT_INTEGER)?;
    if ctx.engine.config.cluster && index != 0 {
        return Err("ERR SELECT is not allowed in cluster mode".into());
    }
    let index = usize::try_from(index).ok().filter(|&index| index < ctx.engine.databases.len());
    ctx.conn().db = index.ok_or(Fault::DB_INDEX)?;
    ctx.out.ok();
    Ok(())
}

impl Ctx<'_> {
    fn log_in(&mut self, user: &[u8], password: &[u8]) -> Result<(), Fault> {
        let users = &self.engine.config.users;
        let known = users.iter().any(|(name, word)| name.as_bytes() == user && word.as_bytes() == password);
        // Without a password set, the default user takes any.
        let free = user == b"default" && self.engine.config.needs_no_password();
        if !known && !free {
            return Err(Fault::WRONG_PASS);
        }
        self.conn().user = Some(String::from_utf8_lossy(user).into_owned());
        Ok(())
    }
}

fn auth(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    match args.len() {
        2 => {
            if ctx.engine.config.needs_no_password() {
                return Err(
                    "ERR AUTH <password> called without any password configured for the default user. \
                            Are you sure your configuration is correct?"
                        .into(),
                );
            }
            ctx.log_in(b"default", args.at(1))?;
        }
        3 => ctx.log_in(args.at(1), args.at(2))?,
        _ => return Err(Fault::SYNTAX),
    }
    ctx.out.ok();
    Ok(())
}

fn hello(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut proto = ctx.out.proto;
    if let Some(version) = args.get(1) {
        let version = integer(version).ok_or("ERR Protocol version is not an integer or out of range")?;
        proto = match version {
            2 => Proto::Resp2,
            3 => Proto::Resp3,
            _ => return Err("NOPROTO unsupported protocol version".into()),
        };
    }
    let (mut credentials, mut name) = (None, None);
    let mut at = 2;
    while at < args.len() {
        if args.is(at, "AUTH") && at + 2 < args.len() {
            credentials = Some((args.at(at + 1), args.at(at + 2)));
            at += 3;
        } else if args.is(at, "SETNAME") && at + 1 < args.len() {
            name = Some(super::client::valid_name(args.at(at + 1))?);
            at += 2;
        } else {
            return Err(format!("ERR Syntax error in HELLO option '{}'", args.text(at)).into());
        }
    }
    if let Some((user, password)) = credentials {
        ctx.log_in(user, password)?;
    }
    let conn = ctx.conn();
    if conn.user.is_none() {
        return Err("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
                    AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                    version at the same time"
            .into());
    }
    if let Some(name) = name {
        conn.name = name;
    }
    conn.inbox.proto = proto;
    let id = conn.id;
    ctx.out.proto = proto;
    let out = &mut *ctx.out;
    out.map(7);
    for (field, value) in [("server", "redis"), ("version", ctx.engine.config.version.as_str())] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"proto");
    out.integer(if proto == Proto::Resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.integer(i64::try_from(id).unwrap_or(i64::MAX));
    let mode = if ctx.engine.config.cluster { "cluster" } else { "standalone" };
    for (field, value) in [("mode", mode), ("role", "master")] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"modules");
    out.array(0);
    Ok(())
}
