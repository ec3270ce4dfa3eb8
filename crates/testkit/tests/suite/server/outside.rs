//! Clients of other makers, with maintenance notifications on: they hear everything, follow and lose nothing.
//!
//! | notice | redis-py | node-redis |
//! |---|---|---|
//! | MOVING | `Redis` | client |
//! | MIGRATING, MIGRATED, FAILING_OVER, FAILED_OVER | `Redis`, `RedisCluster` | client, cluster |
//! | SMIGRATING, SMIGRATED | `RedisCluster` | cluster |
//!
//! Each is driven where its own source handles it. They come from the package registries once and are kept in the
//! target folder. Without registry, python or node the tests say why they tried nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use evenkeel_protocol::{Notice, Slot, maintenance::SlotRanges};
use evenkeel_testkit::server::{Audience, ConnectionInfo, EmbeddedServer, Move};
use tokio::process::{Child, Command};

use super::peer::Peer;

const PATIENCE: Duration = Duration::from_secs(60);

/// Commands that a client must have done in a state before the next thing happens.
const ENOUGH: u64 = 20;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("outside").join(name)
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suite/server/outside").join(name)
}

/// Runs a command to its end; what speaks against it is an error.
async fn run(command: &mut Command) -> Result<(), String> {
    let done =
        command.stdin(Stdio::null()).output().await.map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim()))
    }
}

/// One installation at a time: several tests want the same one.
static INSTALLING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A client of another maker, installed; `None` where that cannot be, after saying why.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maker {
    NodeRedis,
    RedisPy,
}

impl Maker {
    #[expect(clippy::print_stdout, reason = "a skipped test must say so")]
    async fn command(self) -> Option<Command> {
        let _alone = INSTALLING.lock().await;
        let home = folder(match self {
            Self::NodeRedis => "node",
            Self::RedisPy => "python",
        });
        // Written last: what was cut short is begun anew.
        let whole = home.join("whole");
        let python = home.join("bin/python");
        if !whole.exists() {
            let made = async {
                let words = |error: std::io::Error| error.to_string();
                std::fs::create_dir_all(&home).map_err(words)?;
                match self {
                    Self::NodeRedis => {
                        std::fs::write(home.join("package.json"), "{\"private\":true}").map_err(words)?;
                        let mut npm = Command::new("npm");
                        run(npm.args(["install", "--silent", "redis@6.3.1"]).current_dir(&home)).await?;
                    }
                    Self::RedisPy => {
                        run(Command::new("python3").args(["-m", "venv"]).arg(&home)).await?;
                        let mut pip = Command::new(&python);
                        run(pip.args(["-m", "pip", "install", "--quiet", "redis==8.1.0"])).await?;
                    }
                }
                std::fs::write(&whole, "").map_err(words)
            };
            if let Err(reason) = made.await {
                std::fs::remove_dir_all(&home).ok();
                println!("skipped: {reason}");
                return None;
            }
        }
        let mut command = match self {
            Self::NodeRedis => Command::new("node"),
            Self::RedisPy => Command::new(python),
        };
        match self {
            Self::NodeRedis => command.arg(script("client.cjs")).env("NODE_PATH", home.join("node_modules")),
            Self::RedisPy => command.arg(script("client.py")),
        };
        Some(command)
    }
}

/// Waits until `holds`, or shows what the client had to say when it ended or took too long.
async fn wait_until(client: &mut Child, what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            let ended = client.try_wait().unwrap();
            assert!(ended.is_none(), "the client ended before {what}: {ended:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

/// Waits until a connection that asked for notices and is as wanted has done enough commands, from now on.
async fn wait_for_work(
    server: &EmbeddedServer,
    client: &mut Child,
    what: &str,
    wanted: impl Fn(&ConnectionInfo) -> bool,
) {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    wait_until(client, what, || {
        server.connections().iter().filter(|conn| conn.maintenance.is_some() && wanted(conn)).any(|conn| {
            let start = *seen.entry(conn.id).or_insert(conn.commands);
            conn.commands >= start + ENOUGH
        })
    })
    .await;
}

fn start(mut command: Command, mode: &str, addr: SocketAddr, endpoint_type: &str, keys: &[String]) -> Child {
    command
        .args([mode, &addr.ip().to_string(), &addr.port().to_string(), endpoint_type])
        .args(keys)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

type Heard = BTreeSet<(String, u64)>;

/// The owner of a key, by its index; the front door leads to it where there is no cluster.
fn home(server: &EmbeddedServer, key: &str) -> SocketAddr {
    let node = server.slot_owner(Slot::of(key.as_bytes()));
    if server.addr() == server.address(0) { server.address(node) } else { server.addr() }
}

/// Ends the client, and compares what it heard and did with what was announced and is stored.
async fn settle(server: &EmbeddedServer, client: Child, announced: &Heard, keys: &[String]) {
    Peer::connect(home(server, "stop")).await.ask(&["SET", "stop", "1"]).await;
    let output = tokio::time::timeout(PATIENCE, client.wait_with_output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let lines_of = |kind: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(word, _)| *word == kind).map(|(_, rest)| rest.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(lines_of("error"), Vec::<String>::new());
    let pair = |line: String| {
        let (name, number) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), number.parse::<u64>().unwrap())
    };
    let heard: Heard = lines_of("heard").into_iter().map(pair).collect();
    assert_eq!(&heard, announced, "it hears each notice, and no other");
    let done: Vec<_> = lines_of("done").into_iter().map(pair).collect();
    assert_eq!(done.len(), keys.len());
    for (key, count) in done {
        let stored = Peer::connect(home(server, &key)).await.next_integer(&["GET", &key]).await;
        assert_eq!(count, stored, "every increment of {key} stands once");
    }
}

/// What is announced to every client that opted in, in whatever mode.
fn announce_windows(server: &EmbeddedServer, announced: &mut Heard) {
    let shards = || vec!["1".to_owned()];
    let within = Some(Duration::from_secs(2));
    for notice in [
        Notice::Migrating { seq: None, within, shards: shards() },
        Notice::Migrated { seq: None, shards: shards() },
        Notice::FailingOver { seq: None, within, shards: shards() },
        Notice::FailedOver { seq: None, shards: shards() },
    ] {
        let told = server.announce(&notice, Audience::All);
        assert!(told.connections > 0, "nobody listens");
        announced.insert((notice.name().to_owned(), told.seq));
    }
}

/// Three moves of a client with one connection: it goes where it is sent while the old address still serves it.
async fn sail(maker: Maker) {
    for endpoint_type in ["internal-ip", "none"] {
        let Some(command) = maker.command().await else { return };
        let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
        let keys = ["n".to_owned()];
        let mut client = start(command, "standalone", server.addr(), endpoint_type, &keys);
        wait_for_work(&server, &mut client, "it opted in and worked", |conn| conn.address == 0).await;
        let mut announced = Heard::new();
        announce_windows(&server, &mut announced);
        for (from, to) in [(0, 1), (1, 0), (0, 1)] {
            let plan = Move::new(from, to, Duration::from_secs(2)).flip_at(0.25);
            let moving = server.move_endpoint(plan).await.unwrap();
            announced.insert(("MOVING".to_owned(), moving.announced().seq));
            // Named targets are dialled themselves; without one the configured address is asked again.
            let dialled = if endpoint_type == "none" { server.addr() } else { server.address(to) };
            let what = format!("its commands go through {dialled} to address {to}");
            wait_for_work(&server, &mut client, &what, |conn| conn.address == to && conn.local == dialled)
                .await;
            let report = moving.finished().await.unwrap();
            assert_eq!(report.closed, 0, "the client did not leave in time: {report:?}");
            wait_for_work(&server, &mut client, "it works on after the grace", |conn| conn.address == to)
                .await;
        }
        settle(&server, client, &announced, &keys).await;
    }
}

/// Slots that move between the nodes of a cluster, there and back, with commands of both nodes under way.
async fn sail_in_a_cluster(maker: Maker) {
    let Some(command) = maker.command().await else { return };
    let server = EmbeddedServer::builder().addresses(2).cluster().start().await.unwrap();
    let keys: Vec<String> = (0..16).map(|number| format!("k{number}")).collect();
    let mut client = start(command, "cluster", server.address(0), "internal-ip", &keys);
    for node in [0, 1] {
        wait_for_work(&server, &mut client, "it works on both nodes", |conn| conn.address == node).await;
    }
    let mut announced = Heard::new();
    announce_windows(&server, &mut announced);
    let slots = SlotRanges::from_ranges([0..=5000]);
    let moving: Vec<&String> = keys.iter().filter(|key| slots.contains(Slot::of(key.as_bytes()))).collect();
    assert!(!moving.is_empty());
    // The latest commands, some rounds of them.
    server.record(keys.len() * 12);
    for to in [1, 0] {
        let seq = server.reshard(&slots, to, Duration::from_millis(300)).await.unwrap();
        // The end carries the next id of the same row.
        announced.insert(("SMIGRATING".to_owned(), seq - 1));
        announced.insert(("SMIGRATED".to_owned(), seq));
        // Each key of the slots is asked for at its new owner, and in the end at no other.
        wait_until(&mut client, &format!("the keys are asked for at node {to} alone"), || {
            let recorded = server.recorded();
            // By the keys alone: one client counts by INCR, another by INCRBY.
            let at: Vec<_> = recorded
                .iter()
                .filter(|ran| moving.iter().any(|key| ran.args.get(1).is_some_and(|arg| arg == key.as_str())))
                .map(|ran| ran.address)
                .collect();
            at.len() >= moving.len() * 2 && at.iter().all(|&node| node == to)
        })
        .await;
    }
    settle(&server, client, &announced, &keys).await;
}

#[tokio::test]
async fn redis_py_hears_everything_follows_and_loses_nothing() {
    sail(Maker::RedisPy).await;
}

#[tokio::test]
async fn redis_py_in_a_cluster_hears_everything_follows_its_slots_and_loses_nothing() {
    sail_in_a_cluster(Maker::RedisPy).await;
}

#[tokio::test]
async fn node_redis_hears_everything_follows_and_loses_nothing() {
    sail(Maker::NodeRedis).await;
}

#[tokio::test]
async fn node_redis_in_a_cluster_hears_everything_follows_its_slots_and_loses_nothing() {
    sail_in_a_cluster(Maker::NodeRedis).await;
}
