//! Servers that answer nothing for 3 s and are in order: no command fails, and no connection is made anew.

use std::{net::SocketAddr, time::Duration};

use evenkeel_client::{Client, Event};
use evenkeel_testkit::launcher::{
    Cluster, ClusterOptions, Feature, Nodes, SentinelOptions, SentinelTrio, Single, for_each_server,
    for_each_server_with,
};

use crate::load::Load;

/// Longer than the pause, so that nobody takes the server for down.
const PATIENCE: Duration = Duration::from_secs(15);

async fn pauses(client: &Client, nodes: &Nodes, node: SocketAddr) {
    let mut events = client.events();
    let load = Load::start(client, "load", 8);
    for pause in [&["DEBUG", "SLEEP", "3"][..], &["CLIENT", "PAUSE", "3000", "ALL"][..]] {
        load.goes_on().await;
        nodes.command(node, pause).await.unwrap();
        // Answered as soon as the pause is over.
        nodes.command(node, &["PING"]).await.unwrap();
    }
    load.goes_on().await;
    let outcome = load.finish(client).await;
    let bad = (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled, outcome.disordered);
    assert_eq!(bad, (0, 0, 0, 0, 0), "{outcome:?}");
    assert!(outcome.longest_gap > Duration::from_secs(1), "it has not paused: {outcome:?}");
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(100), events.recv()).await {
        let is_new = matches!(event, Some(Event::Connected { again: true, .. } | Event::Reconnecting { .. }));
        assert!(!is_new, "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_server_that_pauses_costs_nothing() {
    for_each_server("client::pause::single", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let client = Client::connect(format!("redis://{}", server.addr())).await.unwrap();
        pauses(&client, server.nodes(), server.addr()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_with_sentinels_that_pauses_costs_nothing() {
    for_each_server_with("client::pause::sentinel", &[Feature::Sentinel], |kind| async move {
        let options = SentinelOptions::default().replicas(1).down_after(PATIENCE);
        let trio = SentinelTrio::start(&kind, options).await.unwrap();
        let seeds: Vec<String> = trio.sentinels().iter().map(ToString::to_string).collect();
        let url = format!("redis+sentinel://{}/{}", seeds.join(","), trio.name());
        let client = Client::connect(url).await.unwrap();
        let primary = trio.primary().await.unwrap();
        pauses(&client, trio.nodes(), primary).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_of_a_cluster_that_pauses_costs_nothing() {
    for_each_server("client::pause::cluster", |kind| async move {
        let options = ClusterOptions::default().node_timeout(PATIENCE);
        let cluster = Cluster::start(&kind, options).await.unwrap();
        let client = Client::connect(format!("redis+cluster://{}", cluster.addresses()[0])).await.unwrap();
        let primary = cluster.owner(0).await.unwrap().addr;
        pauses(&client, cluster.nodes(), primary).await;
    })
    .await;
}
