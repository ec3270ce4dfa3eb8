//! Real servers, each behind a front that announces moves between two addresses of it.
//!
//! Clients of Sentinel and Cluster learn addresses from the servers themselves, so a proxy before each of them writes the
//! fronts' addresses in the place of the real ones.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel::protocol::Slot;
use evenkeel_testkit::launcher::{
    Cluster, ClusterFailover, ClusterOptions, SentinelFailover, SentinelOptions, SentinelTrio, ServerKind,
    Servers, Single, SingleOptions,
};
use evenkeel_testkit::proxy::{Direction, Front, Proxy, Rules};

use super::{Mode, Outcome, Trouble, kill_clients};
use crate::demo::load;

/// The grace of a move.
const GRACE: Duration = Duration::from_secs(2);
/// Beyond the grace, until its end is looked at.
const GRACE_SLACK: Duration = Duration::from_millis(50);
/// How long a killed single server is away.
const DOWN: Duration = Duration::from_millis(500);
/// How long a node of a cluster or a primary of Sentinel is silent before the others hold it for dead: long enough for a
/// crowded machine to make no failovers of its own.
const PATIENCE: Duration = Duration::from_secs(2);
/// Slots that a reshard moves, where the source has so many in a row.
const RESHARDED: u16 = 40;

#[derive(Debug)]
enum Servants {
    // One server keeps one address: its data outlive a SIGKILL.
    Single(Single),
    Sentinel(SentinelTrio),
    Cluster(Cluster),
}

/// A server behind two addresses.
#[derive(Debug)]
struct Gate {
    real: SocketAddr,
    rewriter: Proxy,
    front: Front,
}

/// Running servers and what stands before them.
#[derive(Debug)]
pub(in crate::demo) struct Real {
    /// Before everything: for a single server its door, for Sentinel the way to each sentinel.
    doors: Vec<(SocketAddr, Proxy)>,
    gates: Vec<Gate>,
    servants: Servants,
    kind: ServerKind,
    /// The name under which the load's keys are.
    run: u64,
}

impl Real {
    pub(super) async fn start(mode: Mode, run: u64) -> Outcome<Self> {
        let kind = Servers::discover().preferred().cloned().ok_or(
            "no redis-server was found: install one (apt-get install redis-server), or name it in EVENKEEL_REDIS_SERVER",
        )?;
        let servants = match mode {
            Mode::Sentinel => {
                let options = SentinelOptions::default().down_after(PATIENCE).failover_timeout(PATIENCE * 2);
                Servants::Sentinel(SentinelTrio::start(&kind, options).await?)
            }
            Mode::Cluster => {
                let options = ClusterOptions::default().node_timeout(PATIENCE);
                Servants::Cluster(Cluster::start(&kind, options).await?)
            }
            _ => {
                let options = SingleOptions::default().append_only(true);
                Servants::Single(Single::start_with(&kind, options).await?)
            }
        };
        let mut real = Self { doors: Vec::new(), gates: Vec::new(), servants, kind, run };
        real.put_gates().await?;
        Ok(real)
    }

    async fn put_gates(&mut self) -> Outcome<()> {
        let (nodes, sentinels) = match &self.servants {
            Servants::Single(server) => (vec![server.addr()], Vec::new()),
            Servants::Sentinel(trio) => (trio.data_nodes(), trio.sentinels()),
            Servants::Cluster(cluster) => (cluster.addresses(), Vec::new()),
        };
        for real in nodes {
            let rewriter = Proxy::start(real).await?;
            let front = Front::start(rewriter.addr(), 2).await?;
            self.gates.push(Gate { real, rewriter, front });
        }
        for sentinel in sentinels {
            self.doors.push((sentinel, Proxy::start(sentinel).await?));
        }
        let mut names = Vec::new();
        for gate in &self.gates {
            names.push((gate.real.port(), gate.address(0)?.port()));
        }
        names.extend(self.doors.iter().map(|(real, door)| (real.port(), door.addr().port())));
        if let Servants::Single(_) = self.servants {
            let gate = self.gates.first().ok_or("there is no server")?;
            self.doors.push((gate.real, Proxy::start(gate.address(0)?).await?));
            return Ok(());
        }
        // A length stands before each address in a reply.
        if names.iter().any(|(real, shown)| real.to_string().len() != shown.to_string().len()) {
            return Err("the ports of servers and proxies differ in length; start again".into());
        }
        for gate in &self.gates {
            gate.rewriter.handle().set(Direction::ToClient, rewrites(&names, false));
        }
        for (_, door) in &self.doors {
            door.handle().set(Direction::ToClient, rewrites(&names, true));
        }
        Ok(())
    }

    pub(super) fn url(&self) -> String {
        let list = |addresses: Vec<SocketAddr>| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let doors = list(self.doors.iter().map(|(_, door)| door.addr()).collect());
        match &self.servants {
            Servants::Single(_) => format!("redis://{doors}"),
            Servants::Sentinel(trio) => format!("redis+sentinel://{doors}/{}", trio.name()),
            Servants::Cluster(_) => {
                let gates = self.gates.iter().filter_map(|gate| gate.address(0).ok()).collect();
                format!("redis+cluster://{}", list(gates))
            }
        }
    }

    pub(super) fn describe(&self) -> String {
        let what = match &self.servants {
            Servants::Single(_) => "one server",
            Servants::Sentinel(_) => "three sentinels, a primary, two replicas",
            Servants::Cluster(_) => "three primaries with a replica each",
        };
        format!("{}: {what}", self.kind)
    }

    /// The primary that has a key.
    pub(super) async fn primary(&self, key: &str) -> Outcome<SocketAddr> {
        Ok(match &self.servants {
            Servants::Single(server) => server.addr(),
            Servants::Sentinel(trio) => trio.primary().await?,
            Servants::Cluster(cluster) => cluster.owner(slot(key)).await?.addr,
        })
    }

    /// The primary whose trouble the load feels.
    async fn victim(&self) -> Outcome<(SocketAddr, &Gate)> {
        let primary = self.primary(&load::key(self.run, 0)).await?;
        let gate = self.gates.iter().find(|gate| gate.real == primary).ok_or("an unknown primary")?;
        Ok((primary, gate))
    }

    pub(super) async fn prepare(&self, trouble: Trouble) -> Outcome<()> {
        match &self.servants {
            Servants::Sentinel(trio) if matches!(trouble, Trouble::Failover | Trouble::Sigkill) => {
                trio.wait_until_formed().await?;
            }
            Servants::Cluster(cluster) => cluster.wait_until_whole().await?,
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn make(&self, trouble: Trouble) -> Outcome<String> {
        let (primary, gate) = self.victim().await?;
        match (trouble, &self.servants) {
            (Trouble::Moving, _) => self.announce_moves(gate).await,
            (Trouble::ClientKill, _) => {
                let killed = kill_clients(primary).await?;
                Ok(format!("CLIENT KILL closed {killed} connections of {primary}"))
            }
            (Trouble::Cut, _) => {
                let fronts = [gate.front.proxy(0), gate.front.proxy(1)].into_iter().flatten();
                let cut: usize = fronts.map(|front| front.reset_all()).sum();
                if cut == 0 {
                    Err("no connection to cut".into())
                } else {
                    Ok(format!("{cut} connections cut"))
                }
            }
            (Trouble::Failover, Servants::Sentinel(trio)) => {
                trio.failover(SentinelFailover::Plain).await?;
                let new = trio.wait_for_new_primary(primary).await?;
                Ok(format!("SENTINEL FAILOVER from {primary} to {new}"))
            }
            (Trouble::Failover, Servants::Cluster(cluster)) => {
                let replicas = cluster.replicas_of(primary).await?;
                let replica = replicas.iter().find(|node| node.is_replica()).ok_or("no replica")?.addr;
                cluster.failover(replica, ClusterFailover::Graceful).await?;
                cluster.wait_for_owner(self.load_slot(), replica).await?;
                Ok(format!("CLUSTER FAILOVER from {primary} to {replica}"))
            }
            (Trouble::Reshard, Servants::Cluster(cluster)) => self.reshard(cluster, primary).await,
            (Trouble::Sigkill, Servants::Single(server)) => {
                server.nodes().kill(primary).await?;
                tokio::time::sleep(DOWN).await;
                server.nodes().restart(primary).await?;
                Ok(format!("SIGKILL of {primary}, back after {DOWN:?}"))
            }
            (Trouble::Sigkill, Servants::Sentinel(trio)) => {
                trio.nodes().kill(primary).await?;
                let new = trio.wait_for_new_primary(primary).await?;
                trio.nodes().restart(primary).await?;
                Ok(format!("SIGKILL of {primary}, {new} took over"))
            }
            (Trouble::Sigkill, Servants::Cluster(cluster)) => {
                cluster.nodes().kill(primary).await?;
                let new = cluster.wait_for_new_owner(self.load_slot(), primary).await?;
                cluster.nodes().restart(primary).await?;
                cluster.wait_until_whole().await?;
                Ok(format!("SIGKILL of {primary}, {new} took over"))
            }
            (other, _) => Err(format!("this deployment has no {}", other.name()).into()),
        }
    }

    /// Moves everybody to the second address and back, so that what servers tell of themselves stays true.
    async fn announce_moves(&self, gate: &Gate) -> Outcome<String> {
        let mut reached = Vec::new();
        for (from, to) in [(0, 1), (1, 0)] {
            let announced = gate.front.announce_move(from, to, GRACE).await?;
            reached.push(announced.ok_or("a front without a second address")?.connections);
            tokio::time::sleep(GRACE / 2).await;
            if let (Servants::Single(_), Some((_, door))) = (&self.servants, self.doors.first()) {
                door.handle().set_upstream(gate.address(to)?);
            }
            tokio::time::sleep(GRACE / 2 + GRACE_SLACK).await;
        }
        if reached.contains(&0) {
            return Err("nobody had opted in to announcements".into());
        }
        Ok(format!("MOVING before {} and back reached {reached:?} connections", gate.real))
    }

    async fn reshard(&self, cluster: &Cluster, from: SocketAddr) -> Outcome<String> {
        let slot = self.load_slot();
        let view = cluster.view(from).await?;
        let source = view.iter().find(|node| node.addr == from).ok_or("the source is unknown")?;
        let range = source.slots.iter().find(|range| range.contains(&slot)).ok_or("the slot has moved")?;
        let last = (*range.end()).min(slot.saturating_add(RESHARDED - 1));
        let is_target =
            |node: &&evenkeel_testkit::launcher::ClusterNode| node.is_primary() && node.addr != from;
        let target = view.iter().filter(is_target).find(|node| !node.slots.is_empty());
        let target = target.ok_or("no other primary")?.addr;
        cluster.reshard(slot..=last, from, target).await?;
        cluster.wait_for_owner(slot, target).await?;
        Ok(format!("slots {slot} to {last} moved from {from} to {target}"))
    }

    fn load_slot(&self) -> u16 {
        slot(&load::key(self.run, 0))
    }
}

impl Gate {
    fn address(&self, index: usize) -> Outcome<SocketAddr> {
        self.front.addresses().get(index).copied().ok_or_else(|| "a front without that address".into())
    }
}

fn slot(key: &str) -> u16 {
    Slot::of(key.as_bytes()).number()
}

/// Puts the ports that clients see in the place of the real ones.
fn rewrites(names: &[(u16, u16)], sentinel: bool) -> Rules {
    let mut rules = Rules::new();
    for (real, shown) in names {
        let mut replace = |before: &str, after: &str| {
            rules = std::mem::take(&mut rules)
                .rewrite(format!("{before}{real}{after}"), format!("{before}{shown}{after}"));
        };
        // MOVED, ASK and names of replicas; CLUSTER SHARDS and ROLE. No pattern begins as a reply ends: it would be held back.
        replace("127.0.0.1:", "");
        replace(":", "\r\n");
        if sentinel {
            // Events, and answers with host and port apart. Data nodes may send such a number as data.
            replace("127.0.0.1 ", "");
            replace("$5\r\n", "\r\n");
        }
    }
    rules
}
