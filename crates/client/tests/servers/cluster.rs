//! Cluster: failovers, kills and reshards under load.

use std::time::Duration;

use evenkeel_client::{Client, Executed};
use evenkeel_testkit::launcher::{Cluster, ClusterFailover, ClusterOptions, for_each_server};

use crate::load::Load;

async fn connect(cluster: &Cluster) -> Client {
    let nodes: Vec<String> = cluster.addresses().iter().take(3).map(ToString::to_string).collect();
    Client::connect(format!("redis+cluster://{}", nodes.join(","))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_kills_and_reshards() {
    for_each_server("client::cluster::troubles", |kind| async move {
        let options = ClusterOptions::default().node_timeout(Duration::from_secs(1));
        let cluster = Cluster::start(&kind, options).await.unwrap();
        let client = connect(&cluster).await;
        let load = Load::start(&client, "planned", 12);
        load.goes_on().await;
        let owner = cluster.owner(0).await.unwrap();
        let replica = cluster.replicas_of(owner.addr).await.unwrap().first().map(|node| node.addr).unwrap();
        cluster.failover(replica, ClusterFailover::Graceful).await.unwrap();
        cluster.wait_for_owner(0, replica).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let outcome = load.finish(&client).await;
        println!("failover {outcome:?}");
        assert_eq!(
            (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled),
            (0, 0, 0, 0),
            "{outcome:?}"
        );

        slots_that_go_from_a_primary_that_says_so_late(&client, &cluster).await;

        let load = Load::start(&client, "reshard", 12);
        let to = cluster.owner(16383).await.unwrap().addr;
        let from = cluster.owner(0).await.unwrap().addr;
        cluster.reshard(0..=499, from, to).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcome = load.finish(&client).await;
        println!("reshard {outcome:?}");
        assert_eq!(
            (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled),
            (0, 0, 0, 0),
            "{outcome:?}"
        );

        let load = Load::start(&client, "kill", 12);
        load.goes_on().await;
        let victim = cluster.owner(1000).await.unwrap().addr;
        cluster.nodes().kill(victim).await.unwrap();
        cluster.wait_for_new_owner(1000, victim).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let outcome = load.finish(&client).await;
        println!("kill {outcome:?}");
        assert_eq!((outcome.failed, outcome.doubled), (0, 0), "{outcome:?}");
        assert!(outcome.unknown <= 12, "{outcome:?}");
    })
    .await;
}

/// Its replica takes over while its writes wait, and it answers `MOVED` only when it has been suspect for a while.
async fn slots_that_go_from_a_primary_that_says_so_late(client: &Client, cluster: &Cluster) {
    cluster.settle().await.unwrap();
    let owner = cluster.owner(0).await.unwrap().addr;
    let replica = cluster.replicas_of(owner).await.unwrap().first().map(|node| node.addr).unwrap();
    let load = Load::start(client, "late", 12);
    load.goes_on().await;
    cluster.nodes().command(owner, &["CLIENT", "PAUSE", "1700", "WRITE"]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.failover(replica, ClusterFailover::Takeover).await.unwrap();
    cluster.wait_for_owner(0, replica).await.unwrap();
    // It waits for what is in flight: until the pause is over.
    let outcome = load.finish(client).await;
    assert_eq!((outcome.failed, outcome.unknown, outcome.lost, outcome.doubled), (0, 0, 0, 0), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_follow_their_slot_and_never_run_twice() {
    for_each_server("client::cluster::scripts", |kind| async move {
        let options = ClusterOptions::default().replicas_per_primary(0);
        let cluster = Cluster::start(&kind, options).await.unwrap();
        let client = connect(&cluster).await;
        // It writes, and then says what a server says before anything ran.
        let liar = "redis.call('INCR', KEYS[1]); return redis.error_reply('MOVED 1 127.0.0.1:1')";
        let error = client.cmd("EVAL").arg(liar).arg(1).arg("lied").query::<()>().await.unwrap_err();
        assert_eq!((error.server_code(), error.executed()), (Some("MOVED"), Executed::Maybe), "{error}");
        assert_eq!(client.get::<i64>("lied").await.unwrap(), 1);
        let error =
            client.cmd("EVALSHA").arg("a".repeat(40)).arg(1).arg("k").query::<()>().await.unwrap_err();
        assert_eq!((error.server_code(), error.executed()), (Some("NOSCRIPT"), Executed::No), "{error}");
        let four: Vec<i64> = client.cmd("EVAL").arg("return {1, 2}").arg(1).arg("k").query().await.unwrap();
        assert_eq!(four, [1, 2]);

        let load = Load::start_scripts(&client, "scripts", 12);
        let (from, to) = (cluster.owner(0).await.unwrap().addr, cluster.owner(16383).await.unwrap().addr);
        cluster.reshard(0..=499, from, to).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcome = load.finish(&client).await;
        assert!(outcome.commands > 500, "{outcome:?}");
        assert_eq!(
            (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled),
            (0, 0, 0, 0),
            "{outcome:?}"
        );
    })
    .await;
}
