//! `CLUSTER` and `ASKING`: what a node tells of its cluster.

use std::fmt::Write;

use evenkeel_protocol::Slot;

use super::{
    Command, Ctx, FAST,
    number::{need_integer, unsigned},
};
use crate::server::{cluster::Cluster, engine::Engine, fault::Fault, request::Args};

pub(super) const COMMANDS: &[Command] =
    &[Command::new("ASKING", 1, FAST, (0, 0, 0), asking), Command::container("CLUSTER", CLUSTER)];

const CLUSTER: &[Command] = &[
    Command::sub("CLUSTER", "COUNTKEYSINSLOT", 3, 0, count_keys),
    Command::sub("CLUSTER", "GETKEYSINSLOT", 4, 0, keys),
    Command::sub("CLUSTER", "INFO", 2, 0, info),
    Command::sub("CLUSTER", "KEYSLOT", 3, 0, keyslot),
    Command::sub("CLUSTER", "MYID", 2, 0, myid),
    Command::sub("CLUSTER", "NODES", 2, 0, nodes),
    Command::sub("CLUSTER", "SHARDS", 2, 0, shards),
    Command::sub("CLUSTER", "SLOTS", 2, 0, slots),
];

fn cluster(engine: &Engine) -> Result<&Cluster, Fault> {
    engine.cluster.as_ref().ok_or_else(|| "ERR This instance has cluster support disabled".into())
}

fn asking(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    cluster(ctx.engine)?;
    ctx.conn().asking = true;
    ctx.out.ok();
    Ok(())
}

fn myid(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let node = ctx.conn().address;
    let id = cluster(ctx.engine)?.ids.get(node).cloned().unwrap_or_default();
    ctx.out.bulk(id.as_bytes());
    Ok(())
}

fn keyslot(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    cluster(ctx.engine)?;
    ctx.out.integer(i64::from(Slot::of(args.at(2)).number()));
    Ok(())
}

fn slot(text: &[u8]) -> Result<u16, Fault> {
    let slot = u16::try_from(need_integer(text)?).ok().and_then(Slot::new);
    slot.map(Slot::number).ok_or_else(|| "ERR Invalid slot".into())
}

fn keys_of(ctx: &mut Ctx<'_>, slot: u16) -> Vec<bytes::Bytes> {
    let names = ctx.engine.database(0).keys().keys();
    names.filter(|name| Slot::of(name).number() == slot).cloned().collect()
}

fn count_keys(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    cluster(ctx.engine)?;
    let slot = slot(args.at(2))?;
    let count = keys_of(ctx, slot).len();
    ctx.out.count(count);
    Ok(())
}

fn keys(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    cluster(ctx.engine)?;
    let slot = slot(args.at(2))?;
    let most = unsigned(args.at(3)).ok_or("ERR Invalid number of keys")?;
    let names = keys_of(ctx, slot);
    let names: Vec<_> = names.iter().take(usize::try_from(most).unwrap_or(usize::MAX)).collect();
    ctx.out.array(names.len());
    for name in names {
        ctx.out.bulk(name);
    }
    Ok(())
}

fn info(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let cluster = cluster(ctx.engine)?;
    let (nodes, epoch) = (cluster.ids.len(), cluster.epoch);
    let text = format!(
        "cluster_enabled:1\r\ncluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:{nodes}\r\ncluster_size:{nodes}\r\n\
         cluster_current_epoch:{epoch}\r\ncluster_my_epoch:{epoch}\r\ncluster_stats_messages_sent:0\r\n\
         cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n"
    );
    ctx.out.verbatim(&text);
    Ok(())
}

fn nodes(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let myself = ctx.conn().address;
    let cluster = cluster(ctx.engine)?;
    let mut text = String::new();
    for (node, id) in cluster.ids.iter().enumerate() {
        let socket = ctx.engine.node_socket(node);
        let flags = if node == myself { "myself,master" } else { "master" };
        // Writing to a string does not fail.
        let _written = write!(text, "{id} {socket}@{} {flags} - 0 0 1 connected", bus_port(socket.port()));
        for range in cluster.slots_of(node) {
            let _written = match (range.start(), range.end()) {
                (first, last) if first == last => write!(text, " {first}"),
                (first, last) => write!(text, " {first}-{last}"),
            };
        }
        if node == myself {
            for (slot, migration) in &cluster.migrations {
                let other = |node: usize| cluster.ids.get(node).cloned().unwrap_or_default();
                let _written = if cluster.owner(*slot) == node {
                    write!(text, " [{slot}->-{}]", other(migration.to))
                } else if migration.to == node {
                    write!(text, " [{slot}-<-{}]", other(cluster.owner(*slot)))
                } else {
                    Ok(())
                };
            }
        }
        text.push('\n');
    }
    ctx.out.verbatim(&text);
    Ok(())
}

/// The bus is only a number here: nobody listens there.
fn bus_port(port: u16) -> u16 {
    port.checked_add(10_000).unwrap_or(port)
}

fn slots(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let cluster = cluster(ctx.engine)?;
    let mut rows: Vec<_> = (0..cluster.ids.len())
        .flat_map(|node| cluster.slots_of(node).into_iter().map(move |range| (range, node)))
        .collect();
    rows.sort_by_key(|(range, _)| *range.start());
    ctx.out.array(rows.len());
    for (range, node) in rows {
        let socket = ctx.engine.node_socket(node);
        ctx.out.array(3);
        ctx.out.integer(i64::from(*range.start()));
        ctx.out.integer(i64::from(*range.end()));
        ctx.out.array(4);
        ctx.out.bulk(socket.ip().to_string().as_bytes());
        ctx.out.integer(i64::from(socket.port()));
        ctx.out.bulk(cluster.ids.get(node).map_or("", String::as_str).as_bytes());
        ctx.out.map(0);
    }
    Ok(())
}

fn shards(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let cluster = cluster(ctx.engine)?;
    let out = &mut *ctx.out;
    out.array(cluster.ids.len());
    for (node, id) in cluster.ids.iter().enumerate() {
        let socket = ctx.engine.node_socket(node);
        let ranges = cluster.slots_of(node);
        out.map(2);
        out.bulk(b"slots");
        out.array(ranges.len() * 2);
        for range in ranges {
            out.integer(i64::from(*range.start()));
            out.integer(i64::from(*range.end()));
        }
        out.bulk(b"nodes");
        out.array(1);
        out.map(7);
        let ip = socket.ip().to_string();
        out.bulk(b"id");
        out.bulk(id.as_bytes());
        out.bulk(b"port");
        out.integer(i64::from(socket.port()));
        let listening = ctx.engine.addresses.get(node).is_some_and(|address| address.listening);
        for (field, value) in [("ip", ip.as_str()), ("endpoint", ip.as_str()), ("role", "master")] {
            out.bulk(field.as_bytes());
            out.bulk(value.as_bytes());
        }
        out.bulk(b"replication-offset");
        out.integer(0);
        out.bulk(b"health");
        out.bulk(if listening { b"online" } else { b"fail" });
    }
    Ok(())
}
