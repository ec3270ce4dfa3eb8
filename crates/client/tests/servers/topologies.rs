//! What only some servers can do, and what a failover costs them in questions.

use std::{net::SocketAddr, time::Duration};

use evenkeel_client::Client;
use evenkeel_testkit::launcher::{Cluster, ClusterOptions, Feature, for_each_server, for_each_server_with};

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
