//! Cluster: commands that concern several slots or nodes, the scan of everything, reads from replicas.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use bytes::Bytes;
use evenkeel_client::{Client, ErrorKind, Executed, ReadPolicy};
use evenkeel_protocol::{ServerError, Slot};
use evenkeel_testkit::launcher::{
    Cluster, ClusterFailover, ClusterOptions, SentinelOptions, SentinelTrio, for_each_server,
};

async fn connect(cluster: &Cluster, more: &str) -> Client {
    let nodes: Vec<String> = cluster.addresses().iter().take(3).map(ToString::to_string).collect();
    Client::connect(format!("redis+cluster://{}{more}", nodes.join(","))).await.unwrap()
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}:{number}")).collect()
}

async fn many_keys_at_once(client: &Client) {
    let keys = names("many", 200);
    let pairs: Vec<String> = keys.iter().flat_map(|key| [key.clone(), format!("value of {key}")]).collect();
    client.cmd("MSET").args(pairs).query::<()>().await.unwrap();
    let asked: Vec<String> = keys.iter().rev().cloned().chain(["missing".into()]).collect();
    let values: Vec<Option<String>> = client.mget(&asked).await.unwrap();
    for (key, value) in keys.iter().rev().zip(&values) {
        assert_eq!(value.as_deref(), Some(format!("value of {key}").as_str()));
    }
    assert_eq!((values.len(), values.last().unwrap()), (201, &None));
    assert_eq!(client.exists(&asked).await.unwrap(), 200);
    assert_eq!(client.cmd("TOUCH").args(&asked).query::<i64>().await.unwrap(), 200);
    assert_eq!(client.dbsize().await.unwrap(), 200);
    let found: BTreeSet<String> = client.keys::<Vec<String>>("many:*").await.unwrap().into_iter().collect();
    assert_eq!(found, keys.iter().cloned().collect());
    assert_eq!(client.del(&keys[..50]).await.unwrap(), 50);
    assert_eq!(client.cmd("UNLINK").args(&keys).query::<i64>().await.unwrap(), 150);
    assert_eq!(client.cmd("RANDOMKEY").query::<Option<String>>().await.unwrap(), None);
}

async fn pipelines_over_nodes(client: &Client) {
    let mut batch = client.batch();
    for number in 0..300 {
        batch.push(evenkeel_client::Command::new("SET").key(format!("pipe:{number}")).arg(number));
    }
    batch.push(evenkeel_client::Command::new("MGET").arg("pipe:7").arg("pipe:8").arg("pipe:9"));
    let replies = batch.await.unwrap();
    assert_eq!(replies.len(), 301);
    let values: Vec<i64> = replies.last().unwrap().as_ref().unwrap().decode().unwrap();
    assert_eq!(values, [7, 8, 9]);
}

async fn refused_before_it_is_sent(client: &Client) {
    let error = client.cmd("RENAME").arg("one").arg("two").query::<()>().await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (ErrorKind::Misused, Executed::No));
    assert!(error.to_string().contains("\"one\"") && error.to_string().contains("\"two\""), "{error}");
    let error = client.transaction().set("one", 1).set("two", 2).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (ErrorKind::Misused, Executed::No));
    let script = "return redis.call('EXISTS', KEYS[1], KEYS[2])";
    let error = client.cmd("EVAL").arg(script).arg(2).arg("one").arg("two").query::<i64>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misused);
}

async fn every_node_knows_the_script(client: &Client, cluster: &Cluster) {
    let sha: String = client.cmd("SCRIPT").arg("LOAD").arg("return 42").query().await.unwrap();
    for node in cluster.addresses() {
        let known = cluster.nodes().command(node, &["SCRIPT", "EXISTS", &sha]).await.unwrap();
        assert_eq!(known.items()[0].integer(), Some(1), "{node}");
    }
    client.set("gone", 1).await.unwrap();
    client.flushall().await.unwrap();
    assert_eq!(client.dbsize().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_slots_and_several_nodes() {
    for_each_server("client::whole_cluster::commands", |kind| async move {
        let cluster = Cluster::start(&kind, ClusterOptions::default()).await.unwrap();
        let client = connect(&cluster, "").await;
        many_keys_at_once(&client).await;
        pipelines_over_nodes(&client).await;
        refused_before_it_is_sent(&client).await;
        every_node_knows_the_script(&client, &cluster).await;
        errors_stay_with_their_keys(&client, &cluster).await;
        scan_through_trouble(&client, &cluster).await;
    })
    .await;
}

async fn errors_stay_with_their_keys(client: &Client, cluster: &Cluster) {
    for node in cluster.addresses() {
        let user = ["ACL", "SETUSER", "half", "on", ">secret", "+@all", "~open:*"];
        cluster.nodes().command(node, &user).await.unwrap();
    }
    client.set("open:1", "seen").await.unwrap();
    let seeds: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let half = Client::connect(format!("redis+cluster://half:secret@{}", seeds.join(","))).await.unwrap();
    let values: Vec<Result<Option<String>, ServerError>> =
        half.cmd("MGET").arg("open:1").arg("shut:1").query().await.unwrap();
    assert_eq!(values[0], Ok(Some("seen".to_owned())));
    assert_eq!(values[1].as_ref().unwrap_err().code(), "NOPERM");
}

async fn scan_through_trouble(client: &Client, cluster: &Cluster) {
    let keys = names("scan", 3000);
    for chunk in keys.chunks(500) {
        let mut batch = client.batch();
        for key in chunk {
            batch.push(evenkeel_client::Command::new("SET").key(key).arg(1));
        }
        batch.await.unwrap();
    }
    let from = cluster.owner(0).await.unwrap();
    let view = cluster.view(from.addr).await.unwrap();
    let back = cluster.owner(16_383).await.unwrap().addr;
    // Not the shard that is promoted next: a replica that has not heard of its new slots yet can give them up (`Cluster::settle`).
    let to =
        view.iter().find(|node| node.is_primary() && ![from.addr, back].contains(&node.addr)).unwrap().addr;
    let mut found: BTreeSet<Bytes> = BTreeSet::new();
    let mut scan = client.scan_all().matching("scan:*").count(50);
    let trouble = async {
        cluster.reshard(0..=150, from.addr, to).await.unwrap();
        let replica: SocketAddr = cluster.replicas_of(back).await.unwrap().first().unwrap().addr;
        cluster.failover(replica, ClusterFailover::Graceful).await.unwrap();
        cluster.wait_for_owner(16_383, replica).await.unwrap();
    };
    let all = async {
        while let Some(keys) = scan.next().await.unwrap() {
            found.extend(keys);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(trouble, all);
    let missed: Vec<&String> = keys.iter().filter(|key| !found.contains(key.as_bytes())).collect();
    assert!(missed.is_empty(), "{} missed, {:?}", missed.len(), missed.first());
}

async fn reads_of(nodes: &evenkeel_testkit::launcher::Nodes, node: SocketAddr) -> u64 {
    let stats = nodes.command(node, &["INFO", "commandstats"]).await.unwrap();
    let line = stats.text().unwrap().lines().find(|line| line.starts_with("cmdstat_get:")).map(str::to_owned);
    line.and_then(|line| line.split(['=', ',']).nth(1)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_to_replicas_when_asked() {
    for_each_server("client::whole_cluster::replicas", |kind| async move {
        let cluster = Cluster::start(&kind, ClusterOptions::default()).await.unwrap();
        crate::seeds::of_a_cluster(&cluster).await;
        let client = connect(&cluster, "?read_policy=prefer_replica").await;
        let key = "read:me";
        client.set(key, "here").await.unwrap();
        let owner = cluster.owner(Slot::of(key.as_bytes()).number()).await.unwrap().addr;
        let replica = cluster.replicas_of(owner).await.unwrap().first().unwrap().addr;
        let seen = |policy: Option<ReadPolicy>| {
            let call = client.get::<Option<String>>(key);
            match policy {
                Some(policy) => call.read_policy(policy),
                None => call,
            }
        };
        // Replication takes its time, and until a connection to the replica stands reads go to the primary.
        let until = tokio::time::sleep(Duration::from_secs(5));
        tokio::pin!(until);
        loop {
            tokio::select! {
                biased;
                () = &mut until => panic!("the replica was never asked, or never had the value"),
                value = seen(None) => {
                    let is_there = value.unwrap().as_deref() == Some("here");
                    if is_there && reads_of(cluster.nodes(), replica).await > 0 {
                        break;
                    }
                }
            }
        }
        let (primary_before, replica_before) =
            (reads_of(cluster.nodes(), owner).await, reads_of(cluster.nodes(), replica).await);
        for _ in 0..50 {
            assert_eq!(seen(None).await.unwrap().as_deref(), Some("here"));
        }
        assert_eq!(reads_of(cluster.nodes(), owner).await, primary_before);
        assert_eq!(reads_of(cluster.nodes(), replica).await, replica_before + 50);
        seen(Some(ReadPolicy::Primary)).await.unwrap();
        assert_eq!(reads_of(cluster.nodes(), owner).await, primary_before + 1);
        // Without the replica reads go on at the primary.
        cluster.nodes().kill(replica).await.unwrap();
        for _ in 0..50 {
            assert_eq!(seen(None).await.unwrap().as_deref(), Some("here"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_under_sentinel() {
    for_each_server("client::whole_cluster::sentinel_replicas", |kind| async move {
        let trio = SentinelTrio::start(&kind, SentinelOptions::default()).await.unwrap();
        let sentinels: Vec<String> = trio.sentinels().iter().map(ToString::to_string).collect();
        let url =
            format!("redis+sentinel://{}/{}?read_policy=prefer_replica", sentinels.join(","), trio.name());
        let client = Client::connect(url).await.unwrap();
        let primary = trio.primary().await.unwrap();
        client.set("k", 1).await.unwrap();
        let before = reads_of(trio.nodes(), primary).await;
        for _ in 0..60 {
            client.get::<Option<i64>>("k").await.unwrap();
        }
        assert_eq!(reads_of(trio.nodes(), primary).await, before);
        let mut replicas = 0;
        for node in trio.data_nodes().into_iter().filter(|node| *node != primary) {
            let reads = reads_of(trio.nodes(), node).await;
            assert!(reads > 5, "{reads} of 60 at one of two replicas");
            replicas += reads;
        }
        assert_eq!(replicas, 60);
    })
    .await;
}
