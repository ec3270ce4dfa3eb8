//! `CLIENT`: names, lists, kills, pauses, and the opt-in to maintenance notifications.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use super::{Command, Ctx, NO_SCRIPT, number::integer, tracking, unknown_subcommand};
use crate::server::{
    conn::{Closing, Conn, ConnKey, ReplyMode, Wait},
    engine::{Engine, Pause},
    fault::Fault,
    maintenance::{EndpointType, MaintenanceSupport},
    out::Proto,
    request::Args,
};

pub(super) const COMMANDS: &[Command] = &[Command::container("CLIENT", CLIENT)];

const CLIENT: &[Command] = &[
    Command::sub("CLIENT", "CACHING", 3, NO_SCRIPT, tracking::caching),
    Command::sub("CLIENT", "GETNAME", 2, NO_SCRIPT, getname),
    Command::sub("CLIENT", "GETREDIR", 2, NO_SCRIPT, tracking::getredir),
    Command::sub("CLIENT", "HELP", 2, NO_SCRIPT, help),
    Command::sub("CLIENT", "ID", 2, NO_SCRIPT, id),
    Command::sub("CLIENT", "INFO", 2, NO_SCRIPT, info),
    Command::sub("CLIENT", "KILL", -3, NO_SCRIPT, kill),
    Command::sub("CLIENT", "LIST", -2, NO_SCRIPT, list),
    Command::sub("CLIENT", "MAINT_NOTIFICATIONS", -2, NO_SCRIPT, maintenance),
    Command::sub("CLIENT", "NO-EVICT", 3, NO_SCRIPT, no_evict),
    Command::sub("CLIENT", "NO-TOUCH", 3, NO_SCRIPT, no_touch),
    Command::sub("CLIENT", "PAUSE", -3, NO_SCRIPT, pause),
    Command::sub("CLIENT", "REPLY", 3, NO_SCRIPT, reply),
    Command::sub("CLIENT", "SETINFO", 4, NO_SCRIPT, setinfo),
    Command::sub("CLIENT", "SETNAME", 3, NO_SCRIPT, setname),
    Command::sub("CLIENT", "TRACKING", -3, NO_SCRIPT, tracking::tracking),
    Command::sub("CLIENT", "TRACKINGINFO", 2, NO_SCRIPT, tracking::trackinginfo),
    Command::sub("CLIENT", "UNBLOCK", -3, NO_SCRIPT, unblock),
    Command::sub("CLIENT", "UNPAUSE", 2, NO_SCRIPT, unpause),
];

/// A name without spaces, line ends and other bytes that would break the list of clients.
pub(super) fn valid_name(name: &[u8]) -> Result<String, Fault> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        Ok(String::from_utf8_lossy(name).into_owned())
    } else {
        Err("ERR Client names cannot contain spaces, newlines or special characters.".into())
    }
}

pub(super) fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

fn id(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let id = signed(ctx.conn().id);
    ctx.out.integer(id);
    Ok(())
}

fn help(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    ctx.out.array(CLIENT.len() + 1);
    ctx.out.simple("CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    for command in CLIENT {
        ctx.out.simple(command.name());
    }
    Ok(())
}

fn getname(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let name = ctx.conn().name.clone();
    ctx.out.bulk_or_null((!name.is_empty()).then_some(name.as_bytes()));
    Ok(())
}

fn setname(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    ctx.conn().name = valid_name(args.at(2))?;
    ctx.out.ok();
    Ok(())
}

fn setinfo(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let option = args.text(2).to_ascii_lowercase();
    let valid = |what: &str| {
        valid_name(args.at(3)).map_err(|_fault| {
            Fault::from(format!("ERR {what} cannot contain spaces, newlines or special characters."))
        })
    };
    match option.as_str() {
        "lib-name" => ctx.conn().library = valid("lib-name")?,
        "lib-ver" => ctx.conn().library_version = valid("lib-ver")?,
        _ => return Err(format!("ERR Unrecognized option '{}'", args.text(2)).into()),
    }
    ctx.out.ok();
    Ok(())
}

pub(super) fn on_off(args: Args<'_>, at: usize) -> Result<bool, Fault> {
    if args.is(at, "ON") {
        Ok(true)
    } else if args.is(at, "OFF") {
        Ok(false)
    } else {
        Err(Fault::SYNTAX)
    }
}

fn no_evict(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    ctx.conn().no_evict = on_off(args, 2)?;
    ctx.out.ok();
    Ok(())
}

fn no_touch(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    on_off(args, 2)?;
    ctx.out.ok();
    Ok(())
}

fn reply(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if args.is(2, "ON") {
        ctx.conn().reply = ReplyMode::On;
        ctx.out.ok();
    } else if args.is(2, "OFF") {
        ctx.conn().reply = ReplyMode::Off;
    } else if args.is(2, "SKIP") {
        let conn = ctx.conn();
        if conn.reply != ReplyMode::Off {
            conn.reply = ReplyMode::SkipNext;
        }
    } else {
        return Err(Fault::SYNTAX);
    }
    Ok(())
}

// --- lists and kills

impl Engine {
    fn describe(&self, conn: &Conn) -> String {
        let mut flags = String::new();
        for (flag, set) in [
            ('P', conn.is_subscriber()),
            ('x', conn.multi.is_some()),
            ('b', conn.blocked.is_some()),
            ('t', conn.tracking.is_some()),
            ('d', conn.watch_broken),
            ('e', conn.no_evict),
            ('r', conn.read_only),
        ] {
            if set {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let seconds = |at: tokio::time::Instant| self.now.saturating_duration_since(at).as_secs();
        let multi =
            conn.multi.as_ref().map_or(-1, |multi| i64::try_from(multi.queue.len()).unwrap_or(i64::MAX));
        let redirect = conn.tracking.as_ref().map_or(-1, |tracking| tracking.redirect.map_or(0, signed));
        let mut line = String::new();
        // Writing to a string does not fail.
        let _written = write!(
            line,
            "id={} addr={} laddr={} fd=8 name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} \
             multi={multi} watch={} qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=1024 rbp=0 obl={} oll=0 omem=0 \
             tot-mem=0 events=r cmd={} user={} redir={redirect} resp={} lib-name={} lib-ver={}",
            conn.id,
            conn.peer,
            conn.local,
            conn.name,
            seconds(conn.accepted),
            seconds(conn.last_used),
            conn.db,
            conn.channels.len(),
            conn.patterns.len(),
            conn.shard_channels.len(),
            conn.watched.len(),
            conn.inbox.buf.len(),
            conn.last_command.to_ascii_lowercase(),
            conn.user.as_deref().unwrap_or("(superuser)"),
            if conn.proto() == Proto::Resp3 { 3 } else { 2 },
            conn.library,
            conn.library_version,
        );
        line
    }
}

fn info(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let mut line = String::new();
    if let Some(conn) = ctx.engine.conns.get(ctx.key) {
        line = ctx.engine.describe(conn);
    }
    line.push('\n');
    ctx.out.verbatim(&line);
    Ok(())
}

/// The kind that LIST and KILL call a connection by.
fn kind(conn: &Conn) -> &'static str {
    if conn.is_subscriber() && conn.proto() == Proto::Resp2 { "pubsub" } else { "normal" }
}

fn known_kind(word: &str) -> Result<&'static str, Fault> {
    match word.to_ascii_lowercase().as_str() {
        "normal" => Ok("normal"),
        "pubsub" => Ok("pubsub"),
        "master" => Ok("master"),
        "replica" | "slave" => Ok("replica"),
        _ => Err(format!("ERR Unknown client type '{word}'").into()),
    }
}

fn client_id(text: &[u8]) -> Result<u64, Fault> {
    integer(text)
        .and_then(|id| u64::try_from(id).ok())
        .filter(|&id| id > 0)
        .ok_or_else(|| "ERR Invalid client ID".into())
}

fn list(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mut wanted, mut ids) = (None, None);
    match args.len() {
        2 => {}
        4 if args.is(2, "TYPE") => wanted = Some(known_kind(&args.text(3))?),
        4.. if args.is(2, "ID") => {
            ids = Some(args.from(3).map(client_id).collect::<Result<BTreeSet<u64>, _>>()?);
        }
        _ => return Err(Fault::SYNTAX),
    }
    let mut conns: Vec<&Conn> = ctx.engine.conns.iter().map(|(_, conn)| conn).collect();
    conns.sort_by_key(|conn| conn.id);
    let mut text = String::new();
    for conn in conns {
        if wanted.is_none_or(|wanted| kind(conn) == wanted)
            && ids.as_ref().is_none_or(|ids| ids.contains(&conn.id))
        {
            text.push_str(&ctx.engine.describe(conn));
            text.push('\n');
        }
    }
    ctx.out.verbatim(&text);
    Ok(())
}

#[derive(Default)]
struct KillFilter {
    id: Option<u64>,
    addr: Option<String>,
    laddr: Option<String>,
    kind: Option<&'static str>,
    user: Option<String>,
    skip_me: bool,
}

impl KillFilter {
    fn fits(&self, conn: &Conn) -> bool {
        self.id.is_none_or(|id| conn.id == id)
            && self.addr.as_ref().is_none_or(|addr| conn.peer.to_string() == *addr)
            && self.laddr.as_ref().is_none_or(|addr| conn.local.to_string() == *addr)
            && self.kind.is_none_or(|wanted| kind(conn) == wanted)
            && self.user.as_ref().is_none_or(|user| conn.user.as_ref() == Some(user))
    }
}

fn kill(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    if args.len() == 3 {
        let filter = KillFilter { addr: Some(args.text(2).into_owned()), ..KillFilter::default() };
        return if kill_all(ctx, &filter) > 0 {
            ctx.out.ok();
            Ok(())
        } else {
            Err("ERR No such client".into())
        };
    }
    let mut filter = KillFilter { skip_me: true, ..KillFilter::default() };
    let mut at = 2;
    while at < args.len() {
        let value = args.get(at + 1).ok_or(Fault::SYNTAX)?;
        let text = args.text(at + 1).into_owned();
        match args.text(at).to_ascii_uppercase().as_str() {
            "ID" => {
                let id = integer(value).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
                filter.id = Some(id.ok_or("ERR client-id should be greater than 0")?);
            }
            "ADDR" => filter.addr = Some(text),
            "LADDR" => filter.laddr = Some(text),
            "TYPE" => filter.kind = Some(known_kind(&text)?),
            "USER" => filter.user = Some(text),
            "SKIPME" => {
                filter.skip_me = match text.to_ascii_lowercase().as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(Fault::SYNTAX),
                }
            }
            _ => return Err(Fault::SYNTAX),
        }
        at += 2;
    }
    let killed = kill_all(ctx, &filter);
    ctx.out.count(killed);
    Ok(())
}

fn kill_all(ctx: &mut Ctx<'_>, filter: &KillFilter) -> usize {
    let mine = ctx.key;
    let keys: Vec<ConnKey> = ctx
        .engine
        .conns
        .iter()
        .filter(|&(key, conn)| filter.fits(conn) && !(filter.skip_me && key == mine))
        .map(|(key, _)| key)
        .collect();
    for &key in &keys {
        // Who kills itself still reads the answer.
        ctx.engine.close(key, if key == mine { Closing::Flush } else { Closing::Now });
    }
    keys.len()
}

fn unblock(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let id = integer(args.at(2)).ok_or(Fault::NOT_INTEGER)?;
    let with_error = match args.len() {
        3 => false,
        4 if args.is(3, "TIMEOUT") => false,
        4 if args.is(3, "ERROR") => true,
        4 => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into()),
        _ => return Err(Fault::SYNTAX),
    };
    let key = u64::try_from(id).ok().and_then(|id| ctx.engine.by_id(id));
    // What sleeps cannot be woken up, here as in real servers.
    let key = key.filter(|&key| {
        let blocked = ctx.engine.conns.get(key).and_then(|conn| conn.blocked.as_ref());
        blocked.is_some_and(|blocked| !matches!(blocked.wait, Wait::Sleep))
    });
    let blocked = key.and_then(|key| ctx.engine.unblock(key).map(|blocked| (key, blocked)));
    ctx.out.integer(i64::from(blocked.is_some()));
    if let Some((key, blocked)) = blocked {
        ctx.engine.send(key, |out| {
            if with_error {
                out.error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
            } else {
                blocked.wait.time_out(out);
            }
        });
    }
    Ok(())
}

fn pause(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let ms = integer(args.at(2)).ok_or("ERR timeout is not an integer or out of range")?;
    let ms = u64::try_from(ms).map_err(|_negative| Fault::from("ERR timeout is negative"))?;
    let writes_only = match args.len() {
        3 => false,
        4 if args.is(3, "ALL") => false,
        4 if args.is(3, "WRITE") => true,
        4 => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".into()),
        _ => return Err(Fault::SYNTAX),
    };
    let until = ctx.engine.now + Duration::from_millis(ms.min(u64::from(u32::MAX) * 1000));
    ctx.engine.pause_until(until, writes_only);
    ctx.out.ok();
    Ok(())
}

fn unpause(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    ctx.engine.unpause();
    ctx.out.ok();
    Ok(())
}

impl Engine {
    /// Holds commands back; a pause that is in force only gets longer and stricter.
    pub(in crate::server) fn pause_until(&mut self, until: tokio::time::Instant, writes_only: bool) {
        let before = self.pause;
        self.pause = Some(Pause {
            until: before.map_or(until, |before| before.until.max(until)),
            writes_only: writes_only && before.is_none_or(|before| before.writes_only),
        });
    }

    pub(in crate::server) fn unpause(&mut self) {
        self.pause = None;
        for (_, conn) in &self.conns {
            conn.wake.notify_one();
        }
    }
}

// --- maintenance

fn maintenance(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    match ctx.engine.maintenance.support {
        MaintenanceSupport::Unknown => return Err(unknown_subcommand(args)),
        MaintenanceSupport::Disabled => {
            return Err("ERR maintenance notifications are disabled on this server".into());
        }
        MaintenanceSupport::Enabled | MaintenanceSupport::Silent => {}
    }
    if args.len() < 3 {
        return Err(Fault::arity("client|maint_notifications"));
    }
    if !on_off(args, 2)? {
        if args.len() > 3 {
            return Err(Fault::SYNTAX);
        }
        ctx.conn().maintenance = None;
        ctx.out.ok();
        return Ok(());
    }
    let wanted = match args.len() {
        3 => EndpointType::None,
        5 if args.is(3, "moving-endpoint-type") => EndpointType::read(args.at(4)).ok_or(Fault::SYNTAX)?,
        _ => return Err(Fault::SYNTAX),
    };
    ctx.out.ok();
    let key = ctx.key;
    ctx.engine.opt_in(key, wanted);
    Ok(())
}
