//! What only some servers can do, and what a failover costs them in questions.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use evenkeel_client::Client;
use evenkeel_testkit::{
    launcher::{
        Cluster, ClusterOptions, Feature, SentinelOptions, SentinelTrio, for_each_server,
        for_each_server_with,
    },
    proxy::{Direction, Proxy, Rules},
};

use crate::{load::Load, seeds::until};

async fn connect(cluster: &Cluster) -> Client {
    let nodes: Vec<String> = cluster.addresses().iter().take(3).map(ToString::to_string).collect();
    Client::connect(format!("redis+cluster://{}", nodes.join(","))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hands_over_when_it_shuts_down() {
    for_each_server_with(
        "client::topologies::shutdown",
        &[Feature::AtomicSlotMigration],
        |kind| async move {
            let cluster = Cluster::start(&kind, ClusterOptions::default()).await.unwrap();
            let client = connect(&cluster).await;
            let load = Load::start(&client, "shutdown", 12);
            load.goes_on().await;
            let old = cluster.owner(0).await.unwrap().addr;
            // It closes the connection instead of answering.
            drop(cluster.nodes().command(old, &["SHUTDOWN", "FAILOVER"]).await);
            cluster.nodes().ended(old).await.unwrap();
            let new = cluster.wait_for_new_owner(0, old).await.unwrap();
            until("the client follows", async || {
                let slot = evenkeel_client::Slot::new(0);
                client.topology().primary_of(slot).unwrap().port() == new.port()
            })
            .await;
            let outcome = load.finish(&client).await;
            println!("{kind}: {outcome:?}");
            let bad = (outcome.failed, outcome.lost, outcome.doubled, outcome.disordered);
            assert_eq!(bad, (0, 0, 0, 0), "{outcome:?}");
            // What was on its way when the primary closed its connections is unknown, at most once for each writer.
            assert!(outcome.unknown <= 12, "{outcome:?}");
        },
    )
    .await;
}

/// How often a node was asked for the cluster's map.
async fn maps_read(cluster: &Cluster, node: SocketAddr) -> u64 {
    let stats = cluster.nodes().command(node, &["INFO", "commandstats"]).await.unwrap();
    let calls = |line: &str| {
        let maps = ["cmdstat_cluster|shards:", "cmdstat_cluster|slots:"];
        let rest = maps.iter().find_map(|name| line.strip_prefix(name))?;
        rest.split(['=', ',']).nth(1)?.parse::<u64>().ok()
    };
    stats.text().unwrap_or_default().lines().filter_map(calls).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tasks_ask_for_few_maps_through_a_failover() {
    for_each_server("client::topologies::few_maps", |kind| async move {
        let options = ClusterOptions::default().node_timeout(Duration::from_secs(1));
        let cluster = Cluster::start(&kind, options).await.unwrap();
        let client = connect(&cluster).await;
        let load = Load::start(&client, "crowd", 1000);
        load.goes_on().await;
        let victim = cluster.owner(0).await.unwrap().addr;
        let others: Vec<SocketAddr> =
            cluster.addresses().into_iter().filter(|node| *node != victim).collect();
        let mut before = 0;
        for node in &others {
            before += maps_read(&cluster, *node).await;
        }
        assert!(before > 0, "the client read a map to begin with");
        cluster.nodes().kill(victim).await.unwrap();
        cluster.wait_for_new_owner(0, victim).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut after = 0;
        for node in &others {
            after += maps_read(&cluster, *node).await;
        }
        let outcome = load.finish(&client).await;
        println!("{kind}: {} maps read, {} commands", after - before, outcome.commands);
        assert!(after - before <= 10, "{} maps read", after - before);
        assert_eq!((outcome.failed, outcome.doubled), (0, 0), "{outcome:?}");
    })
    .await;
}

/// What a client asked of sentinels, in questions; each is two or three commands in one write.
#[derive(Default)]
struct Asked {
    /// Where the primary is.
    primary: AtomicUsize,
    /// Which replicas and sentinels there are.
    members: AtomicUsize,
}

impl Asked {
    fn count(&self, bytes: &[u8]) {
        let times = |word: &[u8]| bytes.windows(word.len()).filter(|found| *found == word).count();
        self.primary.fetch_add(times(b"$6\r\nMASTER\r\n"), Ordering::Relaxed);
        self.members.fetch_add(times(b"$9\r\nSENTINELS\r\n"), Ordering::Relaxed);
    }

    fn read(&self) -> (usize, usize) {
        (self.primary.load(Ordering::Relaxed), self.members.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tasks_ask_sentinels_little_through_a_failover() {
    for_each_server("client::topologies::few_questions", |kind| async move {
        if !kind.has(Feature::Sentinel) {
            return;
        }
        let options = SentinelOptions::default().down_after(Duration::from_millis(500));
        let trio = SentinelTrio::start(&kind, options).await.unwrap();
        let asked = Arc::new(Asked::default());
        let mut proxies = Vec::new();
        for sentinel in trio.sentinels() {
            let (proxy, asked) = (Proxy::start(sentinel).await.unwrap(), Arc::clone(&asked));
            proxy.handle().set(Direction::ToServer, Rules::new().edit(move |_, bytes| asked.count(bytes)));
            proxies.push(proxy);
        }
        let fronts: Vec<String> = proxies.iter().map(|proxy| proxy.addr().to_string()).collect();
        let url = format!("redis+sentinel://{}/{}", fronts.join(","), trio.name());
        let client = Client::connect(url).await.unwrap();
        until("every sentinel is heard", async || client.health().unheard_sentinels.is_empty()).await;
        let load = Load::start(&client, "crowd", 1000);
        load.goes_on().await;
        let before = asked.read();
        assert!(before.0 > 0 && before.1 > 0, "the client asked to begin with");
        let old = trio.primary().await.unwrap();
        trio.nodes().kill(old).await.unwrap();
        trio.wait_for_new_primary(old).await.unwrap();
        // The last that a failover makes it ask.
        until("the lists are read again", async || asked.read().1 > before.1).await;
        let after = asked.read();
        let outcome = load.finish(&client).await;
        let questions = (after.0 - before.0) + (after.1 - before.1);
        println!("{kind}: {questions} questions, {} commands", outcome.commands);
        // While an election drags on, one sentinel is asked each second.
        let seconds = usize::try_from(outcome.longest_gap.as_secs()).unwrap();
        assert!(questions <= 10 + seconds, "{questions} questions in {seconds} s");
        assert_eq!((outcome.failed, outcome.doubled), (0, 0), "{outcome:?}");
    })
    .await;
}
