//! Sentinel trios of real servers.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use evenkeel_protocol::Endpoint;
use evenkeel_testkit::launcher::{
    Control, Feature, SentinelFailover, SentinelOptions, SentinelTrio, for_each_server_with,
};
use evenkeel_topology::{
    ReadPolicy, SentinelConfig, SentinelResolver,
    driver::{DriverConfig, ResolverHandle, TopologyEvent, spawn},
};
use tokio::sync::mpsc;

use crate::tcp::Tcp;

const LIMIT: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "real servers live in real time")]
fn clock() -> Instant {
    Instant::now()
}

fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint::new(&addr.ip().to_string(), addr.port())
}

fn follow(trio: &SentinelTrio, asker: Tcp) -> (ResolverHandle, mpsc::Receiver<TopologyEvent>) {
    let config = SentinelConfig::new(trio.name(), trio.sentinels().into_iter().map(endpoint));
    let driver = DriverConfig::default().name(trio.name());
    spawn(|now| SentinelResolver::new(config, 7, now), asker, driver)
}

/// Waits until the first primary is published and events of all sentinels are seen.
async fn watched(handle: &ResolverHandle) -> Endpoint {
    let waiting = async {
        let mut generation = 0;
        loop {
            let topology = handle.reader().newer_than(generation).await.unwrap();
            generation = topology.generation();
            if topology.sees_every_failover() && topology.replicas_of(None).count() == 2 {
                return topology.primary_of(None).unwrap().clone();
            }
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap()
}

async fn until(
    events: &mut mpsc::Receiver<TopologyEvent>,
    mut is_it: impl FnMut(&TopologyEvent) -> bool,
) -> Instant {
    let waiting = async {
        while !is_it(&events.recv().await.unwrap()) {}
        clock()
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap()
}

/// When one of these replicas first takes a write.
async fn writable(replicas: Vec<SocketAddr>) -> Instant {
    let mut tasks = tokio::task::JoinSet::new();
    for replica in replicas {
        tasks.spawn(async move {
            loop {
                let Ok(mut control) = Control::connect(replica, None).await else { continue };
                loop {
                    match control.command(&["SET", "probe", "1"]).await {
                        Ok(_) => return clock(),
                        Err(error) if error.is_refused_with("READONLY") => {
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                        Err(_) => break,
                    }
                }
            }
        });
    }
    tasks.join_next().await.unwrap().unwrap()
}

fn replicas(trio: &SentinelTrio, primary: SocketAddr) -> Vec<SocketAddr> {
    trio.data_nodes().into_iter().filter(|node| *node != primary).collect()
}

fn millis(from: Instant, to: Instant) -> i64 {
    let ahead = |a: Instant, b: Instant| i64::try_from(b.saturating_duration_since(a).as_millis()).unwrap();
    ahead(from, to) - ahead(to, from)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_is_left_before_the_sentinels_announce_it() {
    for_each_server_with("topology::a_killed_primary", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, SentinelOptions::default()).await.unwrap();
        let old = trio.primary().await.unwrap();
        let asker = Tcp::default();
        let (handle, mut events) = follow(&trio, asker.clone());
        assert_eq!(watched(&handle).await, endpoint(old));
        let replica = handle.reader().with(|topology| {
            topology.plan(None, &ReadPolicy::PreferReplica, 0, |_| None).first().cloned()
        });
        assert_ne!(replica, Some(endpoint(old)));

        let probe = tokio::spawn(writable(replicas(&trio, old)));
        let killed = clock();
        trio.nodes().kill(old).await.unwrap();
        handle.reporter().connection_lost(endpoint(old));
        until(&mut events, |event| matches!(event, TopologyEvent::HoldWrites { .. })).await;
        let released = until(&mut events, |event| matches!(event, TopologyEvent::Release { .. })).await;
        let ready = probe.await.unwrap();
        println!(
            "{} {}: writable {} ms after SIGKILL, released {} ms later; ROLE asked {} times, sentinels {} times",
            kind.name(),
            kind.version(),
            millis(killed, ready),
            millis(ready, released),
            asker.asked("ROLE"),
            asker.asked("SENTINEL MASTER"),
        );
        // The announcement comes 850 to 980 ms after the promotion.
        assert!(millis(ready, released) < 400);
        let now = handle.reader().load().primary_of(None).cloned().unwrap();
        assert_ne!(now, endpoint(old));
        let agreed = trio.wait_for_new_primary(old).await.unwrap();
        assert_eq!(now, endpoint(agreed));
        handle.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_holds_before_the_promotion_and_releases_behind_it() {
    for_each_server_with("topology::a_planned_failover", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, SentinelOptions::default()).await.unwrap();
        let old = trio.primary().await.unwrap();
        let (handle, mut events) = follow(&trio, Tcp::default());
        assert_eq!(watched(&handle).await, endpoint(old));
        let probe = tokio::spawn(writable(replicas(&trio, old)));
        let begun = clock();
        trio.failover(SentinelFailover::Plain).await.unwrap();
        let held = until(&mut events, |event| matches!(event, TopologyEvent::HoldWrites { .. })).await;
        let released = until(&mut events, |event| matches!(event, TopologyEvent::Release { .. })).await;
        let ready = probe.await.unwrap();
        println!(
            "{} {}: held after {} ms, writable after {} ms, released {} ms later",
            kind.name(),
            kind.version(),
            millis(begun, held),
            millis(begun, ready),
            millis(ready, released),
        );
        assert!(held < ready, "held {} ms too late", millis(ready, held));
        assert!(millis(ready, released) < 400);
        assert_ne!(handle.reader().load().primary_of(None).cloned().unwrap(), endpoint(old));
        handle.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinated_failover_and_one_without_sentinel_are_followed() {
    let features = [Feature::Sentinel, Feature::CoordinatedFailover];
    for_each_server_with("topology::a_coordinated_failover", &features, |kind| async move {
        let trio = SentinelTrio::start(&kind, SentinelOptions::default()).await.unwrap();
        let old = trio.primary().await.unwrap();
        let (handle, mut events) = follow(&trio, Tcp::default());
        watched(&handle).await;
        trio.failover(SentinelFailover::Coordinated).await.unwrap();
        // A hold that began before it was known that the primary hands over by itself ends at that primary; when it is
        // replaced, writes are held.
        let mut held = false;
        until(&mut events, |event| {
            match event {
                TopologyEvent::HoldWrites { .. } => held = true,
                TopologyEvent::Release { primary } => {
                    assert!(held);
                    held = false;
                    return *primary != endpoint(old);
                }
                TopologyEvent::PrimaryChanged { to, .. } if *to != endpoint(old) => assert!(held),
                _ => {}
            }
            false
        })
        .await;
        let now = handle.reader().load().primary_of(None).cloned().unwrap();
        assert_ne!(now, endpoint(old));
        assert_eq!(now, endpoint(trio.wait_for_new_primary(old).await.unwrap()));
        handle.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_the_primary_itself_is_followed_when_a_write_is_refused() {
    for_each_server_with("topology::a_failover_by_the_primary", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, SentinelOptions::default()).await.unwrap();
        let old = trio.primary().await.unwrap();
        let (handle, mut events) = follow(&trio, Tcp::default());
        watched(&handle).await;
        let heir = replicas(&trio, old)[0];
        trio.nodes()
            .command(old, &["FAILOVER", "TO", &heir.ip().to_string(), &heir.port().to_string()])
            .await
            .unwrap();
        let refused = async {
            let mut control = trio.nodes().control(old).await.unwrap();
            loop {
                match control.command(&["SET", "k", "v"]).await {
                    Err(error) if error.is_refused_with("READONLY") => return,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, refused).await.unwrap();
        let complaint = evenkeel_topology::Complaint::ReadOnly;
        handle.reporter().refused(endpoint(old), complaint);
        until(&mut events, |event| matches!(event, TopologyEvent::HoldWrites { .. })).await;
        until(&mut events, |event| matches!(event, TopologyEvent::Release { .. })).await;
        assert_eq!(handle.reader().load().primary_of(None), Some(&endpoint(heir)));
        handle.shutdown().await;
    })
    .await;
}
