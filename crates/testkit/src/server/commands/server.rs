//! The server: INFO, ROLE, TIME, WAIT, DEBUG, CONFIG.

use std::{fmt::Write, time::Duration};

use super::{
    ADMIN, BLOCKING, Command, Ctx, FAST, LOADING, NO_SCRIPT, STALE,
    number::{float, integer, need_integer},
};
use crate::server::{
    conn::{Blocked, Wait},
    engine::Engine,
    fault::Fault,
    glob,
    out::{Out, Proto},
    request::Args,
};

pub(super) const COMMANDS: &[Command] = &[
    Command::container("CONFIG", CONFIG),
    Command::container("DEBUG", DEBUG),
    Command::new("INFO", -1, LOADING | STALE, (0, 0, 0), info),
    Command::container("MEMORY", MEMORY),
    Command::new("READONLY", 1, FAST | LOADING | STALE, (0, 0, 0), |ctx, _| read_only(ctx, true)),
    Command::new("READWRITE", 1, FAST | LOADING | STALE, (0, 0, 0), |ctx, _| read_only(ctx, false)),
    Command::new("ROLE", 1, FAST | LOADING | STALE | NO_SCRIPT, (0, 0, 0), role),
    Command::new("TIME", 1, FAST | LOADING | STALE, (0, 0, 0), time),
    Command::new("WAIT", 3, BLOCKING, (0, 0, 0), wait),
];

const CONFIG: &[Command] = &[
    Command::sub("CONFIG", "GET", -3, ADMIN | NO_SCRIPT, config_get),
    Command::sub("CONFIG", "RESETSTAT", 2, ADMIN | NO_SCRIPT, |ctx, _| {
        ctx.engine.totals = crate::server::engine::Totals::default();
        ctx.out.ok();
        Ok(())
    }),
];

const DEBUG: &[Command] = &[
    Command::sub("DEBUG", "PROTOCOL", 3, ADMIN | NO_SCRIPT, protocol),
    Command::sub("DEBUG", "SLEEP", 3, ADMIN | NO_SCRIPT, sleep),
];

const MEMORY: &[Command] = &[Command::sub("MEMORY", "USAGE", -3, 0, memory_usage).on_keys(2, 2, 1)];

const ROLE: &str = "master";

fn role(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    ctx.out.array(3);
    ctx.out.bulk(ROLE.as_bytes());
    ctx.out.integer(0);
    ctx.out.array(0);
    Ok(())
}

fn time(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let micros = ctx.engine.clock.unix_micros(ctx.engine.now);
    ctx.out.array(2);
    ctx.out.bulk(itoa::Buffer::new().format(micros / 1_000_000).as_bytes());
    ctx.out.bulk(itoa::Buffer::new().format(micros % 1_000_000).as_bytes());
    Ok(())
}

fn read_only(ctx: &mut Ctx<'_>, on: bool) -> Result<(), Fault> {
    if !ctx.engine.config.cluster {
        return Err("ERR This instance has cluster support disabled".into());
    }
    ctx.conn().read_only = on;
    ctx.out.ok();
    Ok(())
}

/// There are no replicas: who waits for one waits the whole time.
fn wait(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let replicas = need_integer(args.at(1))?;
    let ms = integer(args.at(2)).ok_or("ERR timeout is not an integer or out of range")?;
    let ms = u64::try_from(ms).map_err(|_negative| Fault::from("ERR timeout is negative"))?;
    if replicas <= 0 || ctx.at_once {
        ctx.out.integer(0);
        return Ok(());
    }
    let until = (ms > 0).then(|| ctx.engine.now + Duration::from_millis(ms.min(u64::from(u32::MAX))));
    let (key, db) = (ctx.key, ctx.db);
    ctx.engine.block(key, Blocked { db, wait: Wait::Replicas, until });
    Ok(())
}

/// Everybody waits, as in a real server, whose one thread sleeps.
fn sleep(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let seconds = float(args.at(2)).filter(|seconds| *seconds > 0.0).unwrap_or(0.0);
    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default().min(Duration::from_secs(3600));
    if time.is_zero() || ctx.at_once {
        ctx.out.ok();
        return Ok(());
    }
    let until = ctx.engine.now + time;
    let (key, db) = (ctx.key, ctx.db);
    ctx.engine.pause_until(until, false);
    ctx.engine.block(key, Blocked { db, wait: Wait::Sleep, until: Some(until) });
    Ok(())
}

fn protocol(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let push_first = ctx.engine.config.push_first;
    let out = &mut *ctx.out;
    match args.text(2).to_ascii_lowercase().as_str() {
        "string" => out.bulk(b"Hello World"),
        "integer" => out.integer(12345),
        #[expect(clippy::approx_constant, reason = "the number that real servers send")]
        "double" => out.double(3.141),
        "null" => out.null(),
        "array" => {
            out.array(3);
            (0..3).for_each(|value| out.integer(value));
        }
        "set" => {
            out.set(3);
            (0..3).for_each(|value| out.integer(value));
        }
        "map" => {
            out.map(3);
            for value in 0..3 {
                out.integer(value);
                out.boolean(value == 1);
            }
        }
        "bignum" => match out.proto {
            Proto::Resp3 => {
                out.buf.extend_from_slice(b"(1234567999999999999999999999999999999\r\n");
            }
            Proto::Resp2 => out.bulk(b"1234567999999999999999999999999999999"),
        },
        "true" => out.boolean(true),
        "false" => out.boolean(false),
        "verbatim" => out.verbatim("This is a verbatim\nstring"),
        "attrib" => {
            if out.proto == Proto::Resp3 {
                out.buf.extend_from_slice(b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n");
            }
            out.bulk(b"Some real reply following the attribute");
        }
        "push" => {
            if out.proto == Proto::Resp2 {
                return Err("ERR RESP2 is not supported by this command".into());
            }
            let push = |out: &mut Out| {
                out.push(2);
                out.bulk(b"server-cpu-usage");
                out.integer(42);
            };
            if push_first {
                push(out);
                out.bulk(b"Some real reply following the push reply");
            } else {
                out.bulk(b"Some real reply following the push reply");
                push(out);
            }
        }
        _ => {
            return Err("ERR Wrong protocol type name. Please use one of the following: \
                        string|integer|double|null|array|set|map|attrib|push|verbatim|true|false"
                .into());
        }
    }
    Ok(())
}

fn memory_usage(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    match ctx.engine.entry(ctx.db, args.at(2)) {
        Some(_) => ctx.out.integer(64),
        None => ctx.out.null(),
    }
    Ok(())
}

fn config_get(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let databases = ctx.engine.config.databases.to_string();
    let known = [
        ("appendonly", "no"),
        ("cluster-enabled", if ctx.engine.config.cluster { "yes" } else { "no" }),
        ("databases", databases.as_str()),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("save", ""),
        ("timeout", "0"),
    ];
    let found: Vec<_> = known
        .into_iter()
        .filter(|(name, _)| {
            args.from(2).any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
        })
        .collect();
    ctx.out.map(found.len());
    for (name, value) in found {
        ctx.out.bulk(name.as_bytes());
        ctx.out.bulk(value.as_bytes());
    }
    Ok(())
}

fn info(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    ctx.engine.expire_all();
    let asked: Vec<String> =
        args.from(1).map(|arg| String::from_utf8_lossy(arg).to_ascii_lowercase()).collect();
    let everything = asked.is_empty()
        || asked.iter().any(|word| matches!(word.as_str(), "all" | "default" | "everything"));
    let mut text = String::new();
    for (name, write) in SECTIONS {
        if everything || asked.iter().any(|word| word == name) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let title: String = name
                .chars()
                .enumerate()
                .map(|(at, c)| if at == 0 { c.to_ascii_uppercase() } else { c })
                .collect();
            // Writing to a string does not fail.
            let _written = write!(text, "# {}\r\n", if *name == "cpu" { "CPU" } else { &title });
            write(ctx.engine, &mut |name, value| {
                let _written = write!(text, "{name}:{value}\r\n");
            });
        }
    }
    ctx.out.verbatim(&text);
    Ok(())
}

type Put<'a> = &'a mut dyn FnMut(&str, &str);

type Section = fn(&Engine, Put<'_>);

const SECTIONS: &[(&str, Section)] = &[
    ("server", about_server),
    ("clients", about_clients),
    ("memory", about_memory),
    ("persistence", about_persistence),
    ("stats", about_stats),
    ("replication", about_replication),
    ("cluster", |engine, put| put("cluster_enabled", if engine.config.cluster { "1" } else { "0" })),
    ("keyspace", about_keyspace),
];

fn about_server(engine: &Engine, put: Put<'_>) {
    put("redis_version", &engine.config.version);
    put("redis_git_sha1", "00000000");
    put("redis_mode", if engine.config.cluster { "cluster" } else { "standalone" });
    put("os", std::env::consts::OS);
    put("arch_bits", "64");
    put("multiplexing_api", "tokio");
    put("process_id", &std::process::id().to_string());
    put("run_id", &engine.run_id);
    let port = engine.addresses.first().map_or(0, |address| address.socket.port());
    put("tcp_port", &port.to_string());
    put("server_time_usec", &engine.clock.unix_micros(engine.now).to_string());
    let uptime = engine.clock.uptime(engine.now).as_secs();
    put("uptime_in_seconds", &uptime.to_string());
    put("uptime_in_days", &(uptime / 86_400).to_string());
    put("hz", "10");
    put("config_file", "");
}

fn about_clients(engine: &Engine, put: Put<'_>) {
    let count = |fits: fn(&crate::server::conn::Conn) -> bool| {
        engine.conns.iter().filter(|(_, conn)| fits(conn)).count().to_string()
    };
    put("connected_clients", &engine.conns.len().to_string());
    put("cluster_connections", "0");
    put("maxclients", "10000");
    put("blocked_clients", &count(|conn| conn.blocked.is_some()));
    put("tracking_clients", &count(|conn| conn.tracking.is_some()));
    put("pubsub_clients", &count(crate::server::conn::Conn::is_subscriber));
}

fn about_memory(_engine: &Engine, put: Put<'_>) {
    put("used_memory", "0");
    put("maxmemory", "0");
    put("maxmemory_policy", "noeviction");
}

fn about_persistence(_engine: &Engine, put: Put<'_>) {
    put("loading", "0");
    put("rdb_bgsave_in_progress", "0");
    put("aof_enabled", "0");
}

fn about_stats(engine: &Engine, put: Put<'_>) {
    let totals = &engine.totals;
    let (channels, patterns, shard_channels) = engine.pubsub.counts();
    for (name, value) in [
        ("total_connections_received", totals.connections),
        ("total_commands_processed", totals.commands),
        ("expired_keys", totals.expired),
        ("evicted_keys", 0),
        ("keyspace_hits", totals.hits),
        ("keyspace_misses", totals.misses),
        ("pubsub_channels", channels as u64),
        ("pubsub_patterns", patterns as u64),
        ("pubsubshard_channels", shard_channels as u64),
        ("total_error_replies", totals.error_replies),
    ] {
        put(name, &value.to_string());
    }
}

fn about_replication(engine: &Engine, put: Put<'_>) {
    put("role", ROLE);
    put("connected_slaves", "0");
    put("master_failover_state", "no-failover");
    put("master_replid", &engine.run_id);
    put("master_repl_offset", "0");
}

fn about_keyspace(engine: &Engine, put: Put<'_>) {
    for (index, database) in engine.databases.iter().enumerate().filter(|(_, database)| database.len() > 0) {
        let (keys, expiring) = (database.len(), database.expiring());
        put(&format!("db{index}"), &format!("keys={keys},expires={expiring},avg_ttl=0"));
    }
}
