//! Clusters of real servers.

use std::{net::SocketAddr, time::Duration};

use evenkeel_protocol::{Endpoint, Slot};
use evenkeel_testkit::launcher::{Cluster, ClusterFailover, ClusterOptions, for_each_server};
use evenkeel_topology::{
    Change, ClusterConfig, ClusterResolver,
    driver::{DriverConfig, ResolverHandle, TopologyEvent, spawn},
};
use tokio::sync::mpsc;

use crate::tcp::Tcp;

const LIMIT: Duration = Duration::from_secs(60);

fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint::new(&addr.ip().to_string(), addr.port())
}

async fn follow(cluster: &Cluster, asker: Tcp) -> (ResolverHandle, mpsc::Receiver<TopologyEvent>) {
    let config = ClusterConfig::new(cluster.addresses().into_iter().take(2).map(endpoint));
    let (handle, events) = spawn(|now| ClusterResolver::new(config, 7, now), asker, DriverConfig::default());
    let topology = tokio::time::timeout(LIMIT, handle.reader().newer_than(0)).await.unwrap().unwrap();
    assert!(topology.is_complete(), "{topology}");
    assert_eq!(topology.nodes().len(), 6);
    (handle, events)
}

async fn changes(events: &mut mpsc::Receiver<TopologyEvent>, is_it: impl Fn(&Change) -> bool) {
    let waiting = async {
        loop {
            if let TopologyEvent::Changed(changes) = events.recv().await.unwrap()
                && changes.iter().any(&is_it)
            {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primarys_replica_is_found() {
    for_each_server("topology::a_killed_primarys_replica", |kind| async move {
        let cluster = Cluster::start(&kind, ClusterOptions::default()).await.unwrap();
        let asker = Tcp::default();
        let (handle, mut events) = follow(&cluster, asker.clone()).await;
        let slot = 100;
        let old = cluster.owner(slot).await.unwrap().addr;
        cluster.nodes().kill(old).await.unwrap();
        let views_before = asker.asked("CLUSTER SHARDS");
        handle.reporter().connection_lost(endpoint(old));
        let moved = |change: &Change| {
            matches!(change, Change::SlotsMoved { slots, from, .. } if slots.contains(&slot) && *from == Some(endpoint(old)))
        };
        changes(&mut events, moved).await;
        let new = handle.reader().with(|topology| topology.primary_of(Slot::new(slot)).cloned()).unwrap();
        let agreed = cluster.wait_for_new_owner(slot, old).await.unwrap();
        assert_eq!(new, endpoint(agreed));
        let views = asker.asked("CLUSTER SHARDS") - views_before;
        println!("{} {}: {views} maps read, ROLE {} times", kind.name(), kind.version(), asker.asked("ROLE"));
        assert!(views <= 10, "{views}");
        handle.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_moved_slot_is_enough_to_learn_of_a_failover_and_of_a_reshard() {
    for_each_server("topology::one_moved_slot", |kind| async move {
        let cluster = Cluster::start(&kind, ClusterOptions::default()).await.unwrap();
        let asker = Tcp::default();
        let (handle, mut events) = follow(&cluster, asker.clone()).await;
        let slot = Slot::new(100).unwrap();
        let old = cluster.owner(100).await.unwrap().addr;
        let replica = cluster.replicas_of(old).await.unwrap()[0].addr;
        cluster.failover(replica, ClusterFailover::Graceful).await.unwrap();
        cluster.wait_for_owner(100, replica).await.unwrap();
        handle.reporter().moved(slot, endpoint(replica));
        changes(&mut events, |change| matches!(change, Change::PrimaryChanged { .. })).await;
        assert_eq!(handle.reader().with(|t| t.primary_of(Some(slot)).cloned()), Some(endpoint(replica)));

        let target = cluster.owner(16000).await.unwrap().addr;
        let views_before = asker.asked("CLUSTER SHARDS");
        cluster.wait_until_whole().await.unwrap();
        cluster.reshard(0..=49, replica, target).await.unwrap();
        handle.reporter().moved(Slot::new(7).unwrap(), endpoint(target));
        let learned = async {
            let mut generation = 0;
            loop {
                let topology = handle.reader().newer_than(generation).await.unwrap();
                generation = topology.generation();
                let owner = |number| topology.primary_of(Slot::new(number)).cloned();
                if owner(0) == Some(endpoint(target)) && owner(49) == Some(endpoint(target)) {
                    assert_eq!(owner(50), Some(endpoint(replica)));
                    return;
                }
            }
        };
        tokio::time::timeout(LIMIT, learned).await.unwrap();
        assert!(asker.asked("CLUSTER SHARDS") - views_before <= 3);
        handle.shutdown().await;
    })
    .await;
}
