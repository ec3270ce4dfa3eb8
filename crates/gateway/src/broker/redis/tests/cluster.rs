//! The broker over a real cluster: where publications go, and what slots that change hands cost.

use super::{DEADLINE, client, direct, gateway, over_client, until};
use crate::broker::Published;
use crate::gateway::GatewayHandle;
use evenkeel_client::Slot;
use evenkeel_testkit::launcher::{Cluster, ClusterFailover, ClusterOptions, ServerKind, for_each_server};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

async fn start(kind: &ServerKind, options: ClusterOptions) -> (Cluster, String) {
    let cluster = Cluster::start(kind, options).await.expect("a cluster");
    let nodes: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    (cluster, format!("redis+cluster://{}", nodes.join(",")))
}

/// How many subscribers a shard channel has at a node; `None` where servers know none.
async fn shard_subscribers(cluster: &Cluster, node: SocketAddr, channel: &str) -> Option<i64> {
    let reply = cluster.nodes().command(node, &["PUBSUB", "SHARDNUMSUB", channel]).await.ok()?;
    reply.items().iter().find_map(evenkeel_testkit::launcher::Reply::integer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_publications_stay_at_the_node_of_their_slot() {
    for_each_server("gateway: sharded pub/sub", |kind| async move {
        let (cluster, url) = start(&kind, ClusterOptions::default().replicas_per_primary(0)).await;
        let (near, far) = (gateway(over_client(&url).await).await, gateway(over_client(&url).await).await);
        let mut peer = direct::Subscriber::connect(near.local_addr()).await;
        // Every primary has some of these, and the last two cannot have their history in their own slot.
        let mut channels: Vec<String> = (0..12).map(|n| format!("kept:{n}")).collect();
        channels.extend(["kept:a}b", "kept:a{}b"].map(str::to_owned));
        for channel in &channels {
            peer.subscribe(channel).await;
        }
        for n in 1..=3 {
            for channel in &channels {
                let published = far.handle().publish(channel, n.to_string()).await;
                assert!(matches!(published, Ok(Published::Delivered(Some(_)))), "{channel}: {published:?}");
                assert_eq!(peer.publication().await, (channel.clone(), json!({"data":n,"offset":n})));
            }
        }
        // Several at once go in one call.
        peer.subscribe("news").await;
        let handle = far.handle();
        let many =
            futures_util::future::join_all((0..50).map(|n| handle.publish("news", n.to_string()))).await;
        assert!(many.iter().all(Result::is_ok), "{many:?}");
        for n in 0..50 {
            assert_eq!(peer.publication().await, ("news".to_owned(), json!({"data":n})));
        }
        let knows =
            cluster.nodes().command(cluster.addresses()[0], &["PUBSUB", "SHARDCHANNELS"]).await.is_ok();
        for channel in channels.iter().filter(|_| knows) {
            let owner = cluster.owner(Slot::of(channel.as_bytes()).number()).await.expect("an owner");
            for node in cluster.addresses() {
                let expected = i64::from(node == owner.addr);
                assert_eq!(shard_subscribers(&cluster, node, channel).await, Some(expected), "{channel}");
            }
        }
        // Other programs publish as they like, on whichever node.
        for node in cluster.addresses() {
            cluster.nodes().command(node, &["PUBLISH", "news", "plain"]).await.expect("published");
            assert_eq!(peer.publication().await, ("news".to_owned(), json!({"data":"plain"})));
        }
        if knows {
            let other = client(&url).await;
            other.spublish("news", "sharded").await.expect("published");
            assert_eq!(peer.publication().await, ("news".to_owned(), json!({"data":"sharded"})));
        }
        until("both are ready", || near.handle().is_ready() && far.handle().is_ready()).await;
        near.stop().await;
        far.stop().await;
    })
    .await;
}

/// Publishes numbers from 1 on, one every 2 ms, until told to stop; gives the last one.
fn publish(handle: GatewayHandle, stop: watch::Receiver<bool>, done: Arc<AtomicU64>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let mut n = 0;
        while !*stop.borrow() {
            n += 1;
            let published = handle.publish("kept:a", n.to_string()).await;
            assert!(matches!(published, Ok(Published::Delivered(Some(_)))), "{n}: {published:?}");
            done.store(n, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        n
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_change_hands_by_command_cost_nothing() {
    for_each_server("gateway: reshards and cluster failovers", |kind| async move {
        let (cluster, url) = start(&kind, ClusterOptions::default()).await;
        let (near, far) = (gateway(over_client(&url).await).await, gateway(over_client(&url).await).await);
        let mut peers = Vec::new();
        for gateway in [&near, &far] {
            let mut peer = direct::Subscriber::connect(gateway.local_addr()).await;
            peer.subscribe("kept:a").await;
            peers.push(peer);
        }
        let (stop, stopped) = watch::channel(false);
        let done = Arc::new(AtomicU64::new(0));
        let ended = AtomicBool::new(false);
        let publisher = publish(far.handle(), stopped, done.clone());
        let more = async || {
            let before = done.load(Ordering::Relaxed);
            until("more publications", || done.load(Ordering::Relaxed) >= before + 60).await;
        };
        let slot = Slot::of(b"kept:a").number();
        let trouble = async {
            more().await;
            let old = cluster.owner(slot).await.expect("an owner").addr;
            let view = cluster.view(old).await.expect("a view");
            let new = view.iter().find(|node| node.is_primary() && node.addr != old).expect("another").addr;
            cluster.reshard(slot..=slot, old, new).await.expect("a reshard");
            more().await;
            let replica = cluster.replicas_of(new).await.expect("replicas").remove(0).addr;
            cluster.failover(replica, ClusterFailover::Graceful).await.expect("a failover");
            cluster.wait_for_owner(slot, replica).await.expect("the replica serves it");
            more().await;
            stop.send_replace(true);
            let last = publisher.await.expect("every publication is answered") + 1;
            done.store(last, Ordering::Relaxed);
            ended.store(true, Ordering::Release);
            // What comes last has nothing behind it that would show its absence.
            let handle = far.handle();
            let (moved, published) = tokio::join!(
                cluster.reshard(slot..=slot, replica, old),
                handle.publish("kept:a", last.to_string())
            );
            moved.expect("a reshard back");
            published.expect("published");
            last
        };
        let heard = futures_util::future::join_all(peers.iter_mut().map(async |peer| {
            for n in 1.. {
                // Any word but the next publication, as that the subscription ended, is a failure.
                assert_eq!(peer.publication().await, ("kept:a".to_owned(), json!({"data":n,"offset":n})));
                if ended.load(Ordering::Acquire) && n == done.load(Ordering::Relaxed) {
                    return n;
                }
            }
            0
        }));
        let (last, heard) = tokio::join!(trouble, tokio::time::timeout(DEADLINE, heard));
        assert_eq!(heard.expect("all in time"), [last, last]);
        near.stop().await;
        far.stop().await;
    })
    .await;
}
