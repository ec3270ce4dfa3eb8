//! Trouble that comes together, and operators who do what nobody foresaw: nothing fails that a server did not lose.

use std::{net::SocketAddr, time::Duration};

use evenkeel_client::Client;
use evenkeel_testkit::launcher::{
    Cluster, ClusterOptions, Feature, SentinelFailover, SentinelOptions, SentinelTrio, for_each_server,
    for_each_server_with,
};

use crate::{
    load::{Load, Outcome},
    seeds::until,
};

async fn sentinels(trio: &SentinelTrio, seeds: &[SocketAddr]) -> Client {
    let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
    // Sentinels on a machine that hardly runs stand still for half a minute and more: that is their outage.
    let url = format!("redis+sentinel://{}/{}?command_timeout=120s", seeds.join(","), trio.name());
    let client = Client::connect(url).await.unwrap();
    all_are_heard(&client).await;
    client
}

async fn all_are_heard(client: &Client) {
    until("every sentinel is heard", async || {
        client.topology().sentinels().len() == 3 && client.health().unheard_sentinels.is_empty()
    })
    .await;
}

async fn follows(client: &Client, primary: SocketAddr) {
    goes_to(client, |port| port == primary.port()).await;
}

/// Waits for as long as sentinels may take that do not agree at once whom to elect.
async fn goes_to(client: &Client, is_it: impl Fn(u16) -> bool) {
    let waiting = async {
        while !client.topology().primary_of(None).is_some_and(|known| is_it(known.port())) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(100), waiting).await.unwrap();
}

fn options() -> SentinelOptions {
    SentinelOptions::default().down_after(Duration::from_millis(500))
}

/// Nothing failed, was done twice, or changed its order.
fn is_sound(outcome: &Outcome) {
    let bad = (outcome.failed, outcome.doubled, outcome.disordered);
    assert_eq!(bad, (0, 0, 0), "{outcome:?}");
    assert!(outcome.commands > 100, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sentinels_restart_at_once_and_the_next_planned_failover_loses_nothing() {
    for_each_server_with("client::adversity::restart", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, options()).await.unwrap();
        let client = sentinels(&trio, &trio.sentinels()).await;
        let load = Load::start(&client, "restart", 8);
        for sentinel in trio.sentinels() {
            trio.nodes().kill(sentinel).await.unwrap();
        }
        until("no sentinel is heard", async || client.health().unheard_sentinels.len() == 3).await;
        for sentinel in trio.sentinels() {
            trio.nodes().restart(sentinel).await.unwrap();
        }
        trio.wait_until_formed().await.unwrap();
        all_are_heard(&client).await;
        let old = trio.primary().await.unwrap();
        trio.failover(SentinelFailover::Plain).await.unwrap();
        let new = trio.wait_for_new_primary(old).await.unwrap();
        follows(&client, new).await;
        let outcome = load.finish(&client).await;
        is_sound(&outcome);
        assert_eq!((outcome.lost, outcome.unknown), (0, 0), "{outcome:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_seed_is_dead_and_the_primary_is_replaced() {
    for_each_server_with("client::adversity::seed", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, options()).await.unwrap();
        let seed = trio.sentinels()[0];
        // The two others are learned from it.
        let client = sentinels(&trio, &[seed]).await;
        let load = Load::start(&client, "seed", 8);
        load.goes_on().await;
        trio.nodes().kill(seed).await.unwrap();
        let old = trio.primary().await.unwrap();
        // By command: two sentinels may need several elections.
        trio.failover(SentinelFailover::Plain).await.unwrap();
        let new = trio.wait_for_new_primary(old).await.unwrap();
        follows(&client, new).await;
        let outcome = load.finish(&client).await;
        is_sound(&outcome);
        assert_eq!((outcome.lost, outcome.unknown), (0, 0), "{outcome:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_while_it_is_replaced() {
    for_each_server_with("client::adversity::dies", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, options()).await.unwrap();
        let client = sentinels(&trio, &trio.sentinels()).await;
        let load = Load::start(&client, "dies", 8);
        load.goes_on().await;
        let old = trio.primary().await.unwrap();
        trio.failover(SentinelFailover::Plain).await.unwrap();
        trio.nodes().kill(old).await.unwrap();
        let new = trio.wait_for_new_primary(old).await.unwrap();
        follows(&client, new).await;
        let outcome = load.finish(&client).await;
        is_sound(&outcome);
        assert!(outcome.unknown <= 8, "{outcome:?}");
    })
    .await;
}

/// It comes back, says that it is the primary, and takes whatever it is given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_was_away_gets_nothing_when_it_is_back() {
    for_each_server_with("client::adversity::back", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, options()).await.unwrap();
        let client = sentinels(&trio, &trio.sentinels()).await;
        let load = Load::start(&client, "back", 8);
        load.goes_on().await;
        let old = trio.primary().await.unwrap();
        trio.nodes().stop(old).unwrap();
        goes_to(&client, |port| port != old.port()).await;
        trio.nodes().cont(old).unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let new = trio.wait_for_new_primary(old).await.unwrap();
        follows(&client, new).await;
        let outcome = load.finish(&client).await;
        is_sound(&outcome);
        assert_eq!(outcome.lost, 0, "{outcome:?}");
        assert!(outcome.unknown <= 8, "{outcome:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_nobody_owns_for_a_while() {
    for_each_server("client::adversity::unowned", |kind| async move {
        let cluster = Cluster::start(&kind, ClusterOptions::default()).await.unwrap();
        let client = Client::connect(format!("redis+cluster://{}", cluster.addresses()[0])).await.unwrap();
        let load = Load::start(&client, "unowned", 12);
        load.goes_on().await;
        let owner = cluster.owner(0).await.unwrap();
        let (first, last) = (owner.slots[0].start().to_string(), owner.slots[0].end().to_string());
        for node in cluster.addresses() {
            // A replica has none to give away.
            drop(cluster.nodes().command(node, &["CLUSTER", "DELSLOTSRANGE", &first, &last]).await);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let add = ["CLUSTER", "ADDSLOTSRANGE", &first, &last];
        until("the slots are owned again", async || {
            cluster.nodes().command(owner.addr, &add).await.is_ok()
                || cluster.owner(0).await.is_ok_and(|node| node.addr == owner.addr)
        })
        .await;
        cluster.wait_for_owner(0, owner.addr).await.unwrap();
        let outcome = load.finish(&client).await;
        is_sound(&outcome);
        assert_eq!((outcome.lost, outcome.unknown), (0, 0), "{outcome:?}");
    })
    .await;
}

/// A replica is thrown out, emptied, met again and made a replica again: nobody who writes notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_reset_forgotten_and_met_again() {
    for_each_server("client::adversity::reset", |kind| async move {
        let cluster = Cluster::start(&kind, ClusterOptions::default()).await.unwrap();
        let client = Client::connect(format!("redis+cluster://{}", cluster.addresses()[0])).await.unwrap();
        let load = Load::start(&client, "reset", 12);
        load.goes_on().await;
        let owner = cluster.owner(0).await.unwrap();
        let replica = cluster.replicas_of(owner.addr).await.unwrap().remove(0);
        let others: Vec<SocketAddr> =
            cluster.addresses().into_iter().filter(|node| *node != replica.addr).collect();
        for node in &others {
            cluster.nodes().command(*node, &["CLUSTER", "FORGET", &replica.id]).await.unwrap();
        }
        cluster.nodes().command(replica.addr, &["CLUSTER", "RESET", "HARD"]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let port = owner.addr.port().to_string();
        cluster.nodes().command(replica.addr, &["CLUSTER", "MEET", "127.0.0.1", &port]).await.unwrap();
        until("it follows again", async || {
            cluster.nodes().command(replica.addr, &["CLUSTER", "REPLICATE", &owner.id]).await.is_ok()
        })
        .await;
        load.goes_on().await;
        let outcome = load.finish(&client).await;
        is_sound(&outcome);
        assert_eq!((outcome.lost, outcome.unknown), (0, 0), "{outcome:?}");
    })
    .await;
}
