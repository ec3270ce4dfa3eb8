//! One race: servers, client, prober, fault, and the look at every write.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use evenkeel_protocol::Slot;
use evenkeel_testkit::launcher::{
    Cluster, ClusterFailover, ClusterNode, ClusterOptions, LaunchError, Nodes, SentinelFailover,
    SentinelOptions, SentinelTrio,
};
use tokio::time::{sleep, timeout};

use super::Race;
use super::fault::{Fault, Mode};
use super::judge::{Evidence, Line, Window, judge};
use super::probe::{Prober, micros};
use super::racer::Racer;
use super::show::blank;
use crate::failure::{Failure, Outcome};

/// Keys that are counted, and as many of other shards in a cluster.
const KEYS: usize = 8;
/// Load before the fault.
const BEFORE: Duration = Duration::from_millis(1500);
/// What belongs to a fault begins so long before it.
const LEAD: u64 = 500_000;
/// Longest wait for what a fault brings about.
const LIMIT: Duration = Duration::from_secs(60);
/// A node that is in order answers sooner.
const ANSWER: Duration = Duration::from_millis(500);
/// Keys of 100 bytes that a reshard takes along.
const LUGGAGE: u32 = 5_000;

/// The servers of a race.
enum Scene {
    Sentinel(SentinelTrio),
    Cluster(Cluster),
}

impl Scene {
    async fn start(race: &Race) -> Outcome<Self> {
        let period = Duration::from_millis(race.timeout);
        let started = match race.mode {
            Mode::Sentinel => {
                let options = SentinelOptions::default().down_after(period);
                SentinelTrio::start(&race.kind, options).await.map(Self::Sentinel)
            }
            Mode::Cluster => {
                let options = ClusterOptions::default().node_timeout(period);
                Cluster::start(&race.kind, options).await.map(Self::Cluster)
            }
        };
        started.map_err(said("the servers"))
    }

    fn nodes(&self) -> &Nodes {
        match self {
            Self::Sentinel(trio) => trio.nodes(),
            Self::Cluster(cluster) => cluster.nodes(),
        }
    }

    /// Who serves a slot, or everything.
    async fn owner(&self, slot: u16) -> Outcome<SocketAddr> {
        match self {
            Self::Sentinel(trio) => trio.primary().await,
            Self::Cluster(cluster) => {
                // A node that is stopped does not answer: the others are asked.
                let serves = |node: &ClusterNode| node.is_primary() && node.serves(slot);
                for addr in cluster.addresses() {
                    let view = timeout(ANSWER, cluster.view(addr)).await;
                    if let Some(owner) =
                        view.ok().and_then(Result::ok).and_then(|v| v.into_iter().find(serves))
                    {
                        return Ok(owner.addr);
                    }
                }
                return Err(Failure::new(format!("nobody serves slot {slot}")));
            }
        }
        .map_err(said("the owner"))
    }

    /// Who has what was written to a slot, or to everything, once the fault is over.
    async fn keeper(&self, fault: Fault, slot: u16) -> Outcome<SocketAddr> {
        let Self::Sentinel(trio) = self else { return self.owner(slot).await };
        if fault != Fault::PlannedServer {
            return self.owner(slot).await;
        }
        // The servers did it without the sentinels, which name the old one until they have made up their minds.
        for node in trio.data_nodes() {
            if trio.is_primary(node).await {
                return Ok(node);
            }
        }
        Err(Failure::new("no server says that it is the primary"))
    }

    fn seeds(&self) -> String {
        let seeds = match self {
            Self::Sentinel(trio) => trio.sentinels(),
            Self::Cluster(cluster) => cluster.addresses(),
        };
        seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    fn name(&self) -> &str {
        match self {
            Self::Sentinel(trio) => trio.name(),
            Self::Cluster(_) => "-",
        }
    }
}

fn said(what: &str) -> impl FnOnce(LaunchError) -> Failure {
    Failure::of(what)
}

/// Runs one race and gives a line for each fault in it.
pub(crate) async fn race(race: &Race) -> Outcome<Vec<Line>> {
    let scene = Scene::start(race).await?;
    let home = scene.owner(0).await?;
    let moved = moved_slots(&scene, race, home).await?;
    let mut keys = keys(KEYS, |slot| moved.contains(&slot));
    let probe = format!("{{{}}}:probe", keys.first().map_or("race", String::as_str));
    if let Scene::Cluster(cluster) = &scene {
        let served = cluster.owner(0).await.map_err(said("the owner"))?;
        keys.extend(self::keys(KEYS, |slot| !served.serves(slot)));
    }
    let target = pack(&scene, race, home, &keys).await?;
    let mode = race.mode.to_string();
    let racer =
        Racer::start(&race.client, &mode, &scene.seeds(), scene.name(), race.rate, &keys.join(",")).await?;
    let prober = Prober::start(&probed(&scene, home, target).await?, &probe);
    sleep(BEFORE).await;
    let mut windows: Vec<Window> = Vec::new();
    let mut stopped = Vec::new();
    for _ in 0..race.runs {
        let old = scene.owner(*moved.start()).await?;
        let fault = micros();
        windows.push(Window {
            from: fault - LEAD,
            fault,
            to: u64::MAX,
            old: race.fault.changes_primary().then_some(old),
        });
        let done = timeout(LIMIT, strike(&scene, race, old, target, moved.clone())).await;
        done.map_err(|_elapsed| Failure::new(format!("{} did not end", race.fault)))??;
        if race.fault == Fault::Sigstop {
            stopped.push(old);
        }
        if race.fault.changes_primary() {
            let elsewhere = timeout(LIMIT, prober.elsewhere(old, fault)).await;
            elsewhere.map_err(|_elapsed| Failure::new("nobody took over"))?;
        }
        sleep(settle(race)).await;
    }
    let end = micros();
    for next in (0..windows.len()).rev() {
        let to = windows.get(next + 1).map_or(end, |window| window.from);
        if let Some(window) = windows.get_mut(next) {
            window.to = to;
        }
    }
    let told = racer.finish().await?;
    let taken = prober.taken().await;
    drop(prober);
    let stands = stands(&scene, race.fault, &keys).await?;
    for node in stopped {
        scene.nodes().cont(node).map_err(said("SIGCONT"))?;
    }
    let counted = keys.len().min(KEYS);
    let evidence = Evidence { told, taken, stands, counted };
    let lines = windows.into_iter().zip(1..).map(|(window, run)| {
        let line = Line {
            mode: mode.clone(),
            fault: race.fault.to_string(),
            server: race.kind.to_string(),
            client: race.client.clone(),
            run,
            ..blank()
        };
        judge(&evidence, window, line)
    });
    Ok(lines.collect())
}

/// Long enough to see what a client does that goes on with the old primary, or only follows announcements.
fn settle(race: &Race) -> Duration {
    Duration::from_millis(match (race.mode, race.fault) {
        (Mode::Sentinel, _) | (_, Fault::Sigstop) => 3000,
        // Asked again within half a second, a Redis 7.0 may promote a replica that its peers then demote.
        (Mode::Cluster, Fault::PlannedFailover) => 1200,
        (Mode::Cluster, _) => 1500,
    })
}

/// The slots that are counted: those that move, or all of the first primary.
async fn moved_slots(scene: &Scene, race: &Race, home: SocketAddr) -> Outcome<RangeInclusive<u16>> {
    let Scene::Cluster(cluster) = scene else { return Ok(0..=16_383) };
    let served = cluster.owner(0).await.map_err(said("the owner"))?;
    debug_assert_eq!(served.addr, home);
    let all = served.slots.first().cloned().unwrap_or(0..=0);
    Ok(match race.fault {
        Fault::Reshard | Fault::Migrateslots | Fault::MigrationImport => {
            *all.start()..=(*all.start() + race.slots.max(1) - 1).min(*all.end())
        }
        _ => all,
    })
}

/// Keys whose slots fit.
fn keys(count: usize, fits: impl Fn(u16) -> bool) -> Vec<String> {
    let names = (0_u32..).map(|number| format!("race:{number}"));
    names.filter(|name| fits(Slot::of(name.as_bytes()).number())).take(count).collect()
}

/// Chooses where slots go, and puts something into them.
async fn pack(scene: &Scene, race: &Race, home: SocketAddr, keys: &[String]) -> Outcome<Option<SocketAddr>> {
    let Scene::Cluster(cluster) = scene else { return Ok(None) };
    if !matches!(race.fault, Fault::Reshard | Fault::Migrateslots | Fault::MigrationImport) {
        return Ok(None);
    }
    let mut control = cluster.nodes().control(home).await.map_err(said("the source"))?;
    let value = "x".repeat(100);
    for number in 0..LUGGAGE {
        let tag = keys.get(number as usize % KEYS).map_or("", String::as_str);
        control
            .command(&["SET", &format!("{{{tag}}}:{number}"), &value])
            .await
            .map_err(said("the luggage"))?;
    }
    let view = cluster.view(home).await.map_err(said("the view"))?;
    let target = view.iter().find(|node| node.is_primary() && node.addr != home).map(|node| node.addr);
    target.map(Some).ok_or_else(|| Failure::new("there is no second primary"))
}

/// Who could take the counted writes.
async fn probed(scene: &Scene, home: SocketAddr, target: Option<SocketAddr>) -> Outcome<Vec<SocketAddr>> {
    match scene {
        Scene::Sentinel(trio) => Ok(trio.data_nodes()),
        Scene::Cluster(cluster) => {
            let replicas = cluster.replicas_of(home).await.map_err(said("the replicas"))?;
            let replicas = replicas.into_iter().map(|node| node.addr).filter(|_| target.is_none());
            Ok([home].into_iter().chain(target).chain(replicas).collect())
        }
    }
}

/// Does the fault, and waits for what the servers make of it.
async fn strike(
    scene: &Scene,
    race: &Race,
    old: SocketAddr,
    target: Option<SocketAddr>,
    slots: RangeInclusive<u16>,
) -> Outcome {
    let nodes = scene.nodes();
    match (race.fault, scene) {
        (Fault::Sigkill, _) => nodes.kill(old).await.map_err(said("SIGKILL"))?,
        // It answers by crashing.
        (Fault::Segfault, _) => drop(nodes.command(old, &["DEBUG", "SEGFAULT"]).await),
        (Fault::Sigstop, _) => nodes.stop(old).map_err(said("SIGSTOP"))?,
        (Fault::Pause, _) => {
            nodes.command(old, &["CLIENT", "PAUSE", "3000", "ALL"]).await.map_err(said("CLIENT PAUSE"))?;
            sleep(Duration::from_secs(3)).await;
        }
        (Fault::PlannedFailover, Scene::Sentinel(trio)) => {
            trio.failover(SentinelFailover::Plain).await.map_err(said("SENTINEL FAILOVER"))?;
        }
        (Fault::PlannedCoordinated, Scene::Sentinel(trio)) => {
            trio.failover(SentinelFailover::Coordinated).await.map_err(said("SENTINEL FAILOVER"))?;
        }
        (Fault::PlannedServer, _) => {
            nodes.command(old, &["FAILOVER"]).await.map_err(said("FAILOVER"))?;
        }
        (Fault::PlannedFailover, Scene::Cluster(cluster)) => {
            let replica = follower(cluster, old).await?;
            cluster.failover(replica, ClusterFailover::Graceful).await.map_err(said("CLUSTER FAILOVER"))?;
            cluster.wait_for_owner(*slots.start(), replica).await.map_err(said("CLUSTER FAILOVER"))?;
        }
        (_, Scene::Cluster(cluster)) => {
            let target = target.ok_or_else(|| Failure::new("there is no target"))?;
            migrate(cluster, race.fault, slots, old, target).await?;
        }
        (fault, Scene::Sentinel(_)) => return Err(Failure::new(format!("no {fault} with sentinels"))),
    }
    Ok(())
}

/// A replica that its primary knows as its own: a primary does not hand over to one that it has not heard of.
async fn follower(cluster: &Cluster, primary: SocketAddr) -> Outcome<SocketAddr> {
    loop {
        let view = cluster.view(primary).await.map_err(said("the view"))?;
        let id = view.iter().find(|node| node.addr == primary).map(|node| &node.id);
        let follows =
            |node: &&ClusterNode| node.is_replica() && node.is_linked && node.follows.as_ref() == id;
        if let Some(replica) = view.iter().find(follows) {
            return Ok(replica.addr);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn migrate(
    cluster: &Cluster,
    fault: Fault,
    slots: RangeInclusive<u16>,
    from: SocketAddr,
    to: SocketAddr,
) -> Outcome {
    let (first, last) = (slots.start().to_string(), slots.end().to_string());
    match fault {
        Fault::Migrateslots => {
            let id = cluster.nodes().command(to, &["CLUSTER", "MYID"]).await.map_err(said("CLUSTER MYID"))?;
            let id = id.text().unwrap_or_default();
            let command = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", &first, &last, "NODE", id];
            cluster.nodes().command(from, &command).await.map_err(said("CLUSTER MIGRATESLOTS"))?;
        }
        Fault::MigrationImport => {
            let command = ["CLUSTER", "MIGRATION", "IMPORT", &first, &last];
            cluster.nodes().command(to, &command).await.map_err(said("CLUSTER MIGRATION"))?;
        }
        _ => cluster.reshard(slots.clone(), from, to).await.map_err(said("the reshard"))?,
    }
    cluster.wait_for_owner(*slots.end(), to).await.map_err(said("the move of slots"))
}

/// How often each number stands in the servers.
async fn stands(scene: &Scene, fault: Fault, keys: &[String]) -> Outcome<BTreeMap<u64, u64>> {
    let mut stands = BTreeMap::new();
    for key in keys {
        let owner = scene.keeper(fault, Slot::of(key.as_bytes()).number()).await?;
        let list = scene.nodes().command(owner, &["LRANGE", key, "0", "-1"]).await.map_err(said("LRANGE"))?;
        for item in list.items() {
            let number = item.text().and_then(|text| text.parse().ok());
            let number = number.ok_or_else(|| Failure::new("something else than numbers stands there"))?;
            *stands.entry(number).or_default() += 1;
        }
    }
    Ok(stands)
}
