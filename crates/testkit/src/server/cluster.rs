//! Slots and their owners, when the addresses are the nodes of a cluster.
//!
//! All nodes share one data set: slots only decide who answers for a key. While a slot migrates, a set of names says
//! which keys have left already; those, and keys that do not exist, are asked for at the target.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::RangeInclusive,
};

use bytes::Bytes;
use evenkeel_protocol::{
    Endpoint, Slot,
    maintenance::{SlotMove, SlotRanges},
};

use super::{commands::Command, conn::ConnKey, engine::Engine, error::Error, fault::Fault, request::Args};

/// A slot on its way to another node.
///
/// ```text
/// owned -begin-> Migration { left: nothing } -hand over-> Migration { left: all } -finish-> owned by `to`
/// ```
#[derive(Debug)]
pub(super) struct Migration {
    pub(super) to: usize,
    left: BTreeSet<Bytes>,
}

#[derive(Debug)]
pub(super) struct Cluster {
    /// By slot, the address that owns it.
    owners: Vec<usize>,
    pub(super) migrations: BTreeMap<u16, Migration>,
    /// By address, the id of the node.
    pub(super) ids: Vec<String>,
    pub(super) epoch: u64,
}

impl Cluster {
    fn new(nodes: usize) -> Self {
        let mut random = fastrand::Rng::new();
        let nodes = nodes.max(1);
        let share = usize::from(Slot::COUNT).div_ceil(nodes);
        Self {
            owners: (0..usize::from(Slot::COUNT)).map(|slot| (slot / share).min(nodes - 1)).collect(),
            migrations: BTreeMap::new(),
            ids: (0..nodes).map(|_| (0..40).map(|_| random.char('a'..='f')).collect()).collect(),
            epoch: 1,
        }
    }

    pub(super) fn owner(&self, slot: u16) -> usize {
        self.owners.get(usize::from(slot)).copied().unwrap_or_default()
    }

    /// The slots of a node, as ranges in order.
    pub(super) fn slots_of(&self, node: usize) -> Vec<RangeInclusive<u16>> {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for slot in (0..Slot::COUNT).filter(|&slot| self.owner(slot) == node) {
            match ranges.last_mut() {
                Some(last) if *last.end() + 1 == slot => *last = *last.start()..=slot,
                _ => ranges.push(slot..=slot),
            }
        }
        ranges
    }
}

/// What stands in the way of a command at a node.
enum Answer {
    Ask(usize),
    Here,
    Moved(usize),
    TryAgain,
}

impl Engine {
    /// Gives every address its share of the slots.
    pub(super) fn found_cluster(&mut self) {
        if self.config.cluster {
            self.cluster = Some(Cluster::new(self.addresses.len()));
        }
    }

    pub(super) fn node_socket(&self, node: usize) -> SocketAddr {
        self.addresses
            .get(node)
            .map_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)), |address| address.socket)
    }

    /// Refuses a command whose keys another node answers for.
    pub(super) fn route(&mut self, key: ConnKey, command: &Command, args: Args<'_>) -> Result<(), Fault> {
        if self.cluster.is_none() {
            return Ok(());
        }
        let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
        let node = conn.address;
        let asking = std::mem::take(&mut conn.asking);
        let names = command.keys_of(args);
        let Some(first) = names.first() else { return Ok(()) };
        let slot = Slot::of(first).number();
        if names.iter().any(|name| Slot::of(name).number() != slot) {
            return Err("CROSSSLOT Keys in request don't hash to the same slot".into());
        }
        let shard_channel = matches!(command.name(), "SSUBSCRIBE" | "SUNSUBSCRIBE" | "SPUBLISH");
        match self.who_answers(slot, &names, node, asking, shard_channel) {
            Answer::Here => Ok(()),
            Answer::Moved(to) => Err(format!("MOVED {slot} {}", self.node_socket(to)).into()),
            Answer::Ask(to) => Err(format!("ASK {slot} {}", self.node_socket(to)).into()),
            Answer::TryAgain => Err("TRYAGAIN Multiple keys request during rehashing of slot".into()),
        }
    }

    fn who_answers(
        &mut self,
        slot: u16,
        names: &[&[u8]],
        node: usize,
        asking: bool,
        shard_channel: bool,
    ) -> Answer {
        let Some(cluster) = &self.cluster else { return Answer::Here };
        let owner = cluster.owner(slot);
        let Some(migration) = cluster.migrations.get(&slot) else {
            return if owner == node { Answer::Here } else { Answer::Moved(owner) };
        };
        let to = migration.to;
        let at_source = |engine: &mut Self, name: &[u8]| {
            let left = engine
                .cluster
                .as_ref()
                .and_then(|cluster| cluster.migrations.get(&slot))
                .is_some_and(|migration| migration.left.contains(name));
            !left && engine.entry(0, name).is_some()
        };
        if node == owner {
            if shard_channel {
                return Answer::Here;
            }
            let present = names.iter().filter(|name| at_source(self, name)).count();
            return match present {
                all if all == names.len() => Answer::Here,
                0 => Answer::Ask(to),
                _ => Answer::TryAgain,
            };
        }
        if node != to || !asking {
            return Answer::Moved(owner);
        }
        if names.len() > 1 && names.iter().any(|name| at_source(self, name)) {
            return Answer::TryAgain;
        }
        // What is written here belongs here from now on.
        if let Some(migration) = self.cluster.as_mut().and_then(|cluster| cluster.migrations.get_mut(&slot)) {
            migration.left.extend(names.iter().map(|name| Bytes::copy_from_slice(name)));
        }
        Answer::Here
    }

    pub(super) fn check_node(&self, to: usize) -> Result<(), Error> {
        if to >= self.addresses.len() {
            return Err(Error::NoSuchAddress { index: to, count: self.addresses.len() });
        }
        if self.cluster.is_none() { Err(Error::NoCluster) } else { Ok(()) }
    }

    /// Slots begin to leave their owners for `to`; no key has left yet.
    pub(super) fn begin_migration(&mut self, slots: &SlotRanges, to: usize) -> Result<(), Error> {
        self.check_node(to)?;
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        for slot in slots.ranges().iter().cloned().flatten() {
            if cluster.owner(slot) != to {
                cluster.migrations.insert(slot, Migration { to, left: BTreeSet::new() });
            }
        }
        Ok(())
    }

    /// The keys of migrating slots have left; gives their number.
    pub(super) fn hand_over_keys(&mut self, slots: &SlotRanges) -> usize {
        let names: Vec<(u16, Bytes)> = self
            .database(0)
            .keys()
            .keys()
            .map(|name| (Slot::of(name).number(), name.clone()))
            .filter(|(slot, _)| Slot::new(*slot).is_some_and(|slot| slots.contains(slot)))
            .collect();
        let Some(cluster) = &mut self.cluster else { return 0 };
        let mut moved = 0;
        for (slot, name) in names {
            if let Some(migration) = cluster.migrations.get_mut(&slot) {
                moved += usize::from(migration.left.insert(name));
            }
        }
        moved
    }

    /// Slots belong to `to` from now on, whether they were migrating or not. Gives what moved, by former owner.
    pub(super) fn move_slots(&mut self, slots: &SlotRanges, to: usize) -> Result<Vec<SlotMove>, Error> {
        self.check_node(to)?;
        let mut gone: BTreeMap<usize, Vec<RangeInclusive<u16>>> = BTreeMap::new();
        let Some(cluster) = &mut self.cluster else { return Ok(Vec::new()) };
        cluster.epoch += 1;
        for slot in slots.ranges().iter().cloned().flatten() {
            cluster.migrations.remove(&slot);
            let Some(owner) = cluster.owners.get_mut(usize::from(slot)).filter(|owner| **owner != to) else {
                continue;
            };
            let ranges = gone.entry(std::mem::replace(owner, to)).or_default();
            match ranges.last_mut() {
                Some(last) if *last.end() + 1 == slot => *last = *last.start()..=slot,
                _ => ranges.push(slot..=slot),
            }
        }
        let endpoint = |socket: SocketAddr| Endpoint::new(&socket.ip().to_string(), socket.port());
        let mut moves = Vec::new();
        for (from, ranges) in gone {
            let ranges = SlotRanges::from_ranges(ranges);
            self.drop_shard_channels(&ranges, from);
            let source = Some(endpoint(self.node_socket(from)));
            moves.push(SlotMove::new(source, endpoint(self.node_socket(to)), ranges));
        }
        Ok(moves)
    }

    /// Ends subscriptions to shard channels of slots that have left a node, unasked, as real nodes do.
    fn drop_shard_channels(&mut self, slots: &SlotRanges, node: usize) {
        let names: Vec<Bytes> =
            self.pubsub.shard_channels().filter(|name| slots.contains(Slot::of(name))).cloned().collect();
        for name in names {
            self.drop_shard_channel(&name, node);
        }
    }
}
