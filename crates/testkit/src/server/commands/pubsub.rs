//! Publish and subscribe: channels, patterns, shard channels.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Command, Ctx, FAST, MAY_REPLICATE, NO_SCRIPT, PUBSUB, SUBSCRIBED};
use crate::server::{
    conn::{Conn, ConnKey},
    engine::Engine,
    fault::Fault,
    glob,
    out::{Out, Proto},
    request::Args,
};

const LISTEN: u16 = PUBSUB | NO_SCRIPT | SUBSCRIBED;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("PSUBSCRIBE", -2, LISTEN, (0, 0, 0), |ctx, args| subscribe(ctx, args, Family::Pattern)),
    Command::new("PUBLISH", 3, PUBSUB | FAST | MAY_REPLICATE, (0, 0, 0), publish),
    Command::container("PUBSUB", INTROSPECTION),
    Command::new("PUNSUBSCRIBE", -1, LISTEN, (0, 0, 0), |ctx, args| unsubscribe(ctx, args, Family::Pattern)),
    Command::new("SPUBLISH", 3, PUBSUB | FAST | MAY_REPLICATE, (1, 1, 1), spublish),
    Command::new("SSUBSCRIBE", -2, LISTEN, (1, -1, 1), |ctx, args| subscribe(ctx, args, Family::Shard)),
    Command::new("SUBSCRIBE", -2, LISTEN, (0, 0, 0), |ctx, args| subscribe(ctx, args, Family::Channel)),
    Command::new("SUNSUBSCRIBE", -1, LISTEN, (1, -1, 1), |ctx, args| unsubscribe(ctx, args, Family::Shard)),
    Command::new("UNSUBSCRIBE", -1, LISTEN, (0, 0, 0), |ctx, args| unsubscribe(ctx, args, Family::Channel)),
];

const INTROSPECTION: &[Command] = &[
    Command::sub("PUBSUB", "CHANNELS", -2, PUBSUB, |ctx, args| channels(ctx, args, Family::Channel)),
    Command::sub("PUBSUB", "NUMPAT", 2, PUBSUB, numpat),
    Command::sub("PUBSUB", "NUMSUB", -2, PUBSUB, |ctx, args| numsub(ctx, args, Family::Channel)),
    Command::sub("PUBSUB", "SHARDCHANNELS", -2, PUBSUB, |ctx, args| channels(ctx, args, Family::Shard)),
    Command::sub("PUBSUB", "SHARDNUMSUB", -2, PUBSUB, |ctx, args| numsub(ctx, args, Family::Shard)),
];

/// Which kind of name is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Family {
    Channel,
    Pattern,
    Shard,
}

impl Family {
    fn subscribed(self) -> &'static str {
        match self {
            Self::Channel => "subscribe",
            Self::Pattern => "psubscribe",
            Self::Shard => "ssubscribe",
        }
    }

    fn unsubscribed(self) -> &'static str {
        match self {
            Self::Channel => "unsubscribe",
            Self::Pattern => "punsubscribe",
            Self::Shard => "sunsubscribe",
        }
    }
}

type Listeners = BTreeMap<Bytes, BTreeSet<ConnKey>>;

/// Who listens to what.
#[derive(Debug, Default)]
pub(in crate::server) struct PubSub {
    channels: Listeners,
    patterns: Listeners,
    shard_channels: Listeners,
}

impl PubSub {
    fn of(&mut self, family: Family) -> &mut Listeners {
        match family {
            Family::Channel => &mut self.channels,
            Family::Pattern => &mut self.patterns,
            Family::Shard => &mut self.shard_channels,
        }
    }

    pub(in crate::server) fn counts(&self) -> (usize, usize, usize) {
        (self.channels.len(), self.patterns.len(), self.shard_channels.len())
    }

    /// Shard channels that somebody listens to.
    pub(in crate::server) fn shard_channels(&self) -> impl Iterator<Item = &Bytes> {
        self.shard_channels.keys()
    }
}

impl Conn {
    fn names(&mut self, family: Family) -> &mut BTreeSet<Bytes> {
        match family {
            Family::Channel => &mut self.channels,
            Family::Pattern => &mut self.patterns,
            Family::Shard => &mut self.shard_channels,
        }
    }

    /// The count that confirmations carry: shard channels are counted apart.
    fn count(&self, family: Family) -> usize {
        match family {
            Family::Channel | Family::Pattern => self.subscriptions(),
            Family::Shard => self.shard_channels.len(),
        }
    }
}

fn confirm(out: &mut Out, word: &str, name: Option<&[u8]>, count: usize) {
    out.push(3);
    out.bulk(word.as_bytes());
    out.bulk_or_null(name);
    out.count(count);
}

fn subscribe(ctx: &mut Ctx<'_>, args: Args<'_>, family: Family) -> Result<(), Fault> {
    if ctx.at_once && ctx.out.proto == Proto::Resp2 {
        return Err(format!(
            "ERR {} isn't allowed for a DENY BLOCKING client",
            family.subscribed().to_ascii_uppercase()
        )
        .into());
    }
    for name in args.from(1) {
        let name = Bytes::copy_from_slice(name);
        ctx.engine.pubsub.of(family).entry(name.clone()).or_default().insert(ctx.key);
        ctx.conn().names(family).insert(name.clone());
        let count = ctx.conn().count(family);
        confirm(ctx.out, family.subscribed(), Some(&name), count);
    }
    Ok(())
}

fn unsubscribe(ctx: &mut Ctx<'_>, args: Args<'_>, family: Family) -> Result<(), Fault> {
    let names: Vec<Bytes> = if args.len() > 1 {
        args.from(1).map(Bytes::copy_from_slice).collect()
    } else {
        ctx.conn().names(family).iter().cloned().collect()
    };
    if names.is_empty() {
        let count = ctx.conn().count(family);
        confirm(ctx.out, family.unsubscribed(), None, count);
    }
    for name in names {
        ctx.engine.forget(ctx.key, family, &name);
        let count = ctx.conn().count(family);
        confirm(ctx.out, family.unsubscribed(), Some(&name), count);
    }
    Ok(())
}

fn publish(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let receivers = ctx.engine.publish(args.at(1), args.at(2));
    ctx.out.count(receivers);
    Ok(())
}

fn spublish(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<(), Fault> {
    let receivers = ctx.engine.deliver(Family::Shard, args.at(1), &[b"smessage", args.at(1), args.at(2)]);
    ctx.out.count(receivers);
    Ok(())
}

impl Engine {
    /// Publishes to a channel and to the patterns that fit; gives the number of receivers.
    pub(in crate::server) fn publish(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        let direct = self.deliver(Family::Channel, channel, &[b"message", channel, payload]);
        let fitting: Vec<Bytes> =
            self.pubsub.patterns.keys().filter(|pattern| glob::matches(pattern, channel)).cloned().collect();
        let by_pattern: usize = fitting
            .iter()
            .map(|pattern| self.deliver(Family::Pattern, pattern, &[b"pmessage", pattern, channel, payload]))
            .sum();
        direct + by_pattern
    }

    /// Encodes a message once for each protocol and puts it into every listener's inbox.
    fn deliver(&mut self, family: Family, name: &[u8], parts: &[&[u8]]) -> usize {
        let Some(listeners) = self.pubsub.of(family).get(name) else { return 0 };
        let listeners: Vec<ConnKey> = listeners.iter().copied().collect();
        let encode = |proto| {
            let mut out = Out::new(proto);
            out.push(parts.len());
            for part in parts {
                out.bulk(part);
            }
            out.buf
        };
        let (mut resp2, mut resp3) = (None, None);
        for &key in &listeners {
            self.send(key, |inbox| {
                let encoded = match inbox.proto {
                    Proto::Resp2 => resp2.get_or_insert_with(|| encode(Proto::Resp2)),
                    Proto::Resp3 => resp3.get_or_insert_with(|| encode(Proto::Resp3)),
                };
                inbox.buf.extend_from_slice(encoded);
            });
        }
        listeners.len()
    }

    fn forget(&mut self, key: ConnKey, family: Family, name: &Bytes) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.names(family).remove(name);
        }
        let listeners = self.pubsub.of(family);
        if let Some(keys) = listeners.get_mut(name) {
            keys.remove(&key);
            if keys.is_empty() {
                listeners.remove(name);
            }
        }
    }

    /// Ends all subscriptions of a connection without a word.
    pub(in crate::server) fn unsubscribe_all(&mut self, key: ConnKey) {
        for family in [Family::Channel, Family::Pattern, Family::Shard] {
            let Some(conn) = self.conns.get_mut(key) else { return };
            for name in std::mem::take(conn.names(family)) {
                self.forget(key, family, &name);
            }
        }
    }

    /// Ends everybody's subscription to a shard channel, with the confirmation that listeners did not ask for.
    pub(in crate::server) fn drop_shard_channel(&mut self, name: &Bytes, address: usize) {
        let Some(listeners) = self.pubsub.shard_channels.get(name) else { return };
        for key in listeners.iter().copied().collect::<Vec<_>>() {
            if self.conns.get(key).is_none_or(|conn| conn.address != address) {
                continue;
            }
            self.forget(key, Family::Shard, name);
            let count = self.conns.get(key).map_or(0, |conn| conn.shard_channels.len());
            self.send(key, |inbox| confirm(inbox, Family::Shard.unsubscribed(), Some(name), count));
        }
    }
}

fn channels(ctx: &mut Ctx<'_>, args: Args<'_>, family: Family) -> Result<(), Fault> {
    if args.len() > 3 {
        return Err(super::unknown_subcommand(args));
    }
    let found: Vec<Bytes> = ctx
        .engine
        .pubsub
        .of(family)
        .keys()
        .filter(|name| args.get(2).is_none_or(|pattern| glob::matches(pattern, name)))
        .cloned()
        .collect();
    ctx.out.array(found.len());
    for name in &found {
        ctx.out.bulk(name);
    }
    Ok(())
}

fn numsub(ctx: &mut Ctx<'_>, args: Args<'_>, family: Family) -> Result<(), Fault> {
    ctx.out.array((args.len() - 2) * 2);
    for name in args.from(2) {
        ctx.out.bulk(name);
        let count = ctx.engine.pubsub.of(family).get(name).map_or(0, BTreeSet::len);
        ctx.out.count(count);
    }
    Ok(())
}

fn numpat(ctx: &mut Ctx<'_>, _args: Args<'_>) -> Result<(), Fault> {
    let (_, patterns, _) = ctx.engine.pubsub.counts();
    ctx.out.count(patterns);
    Ok(())
}
