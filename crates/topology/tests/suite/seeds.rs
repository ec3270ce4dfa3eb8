//! Seeds of the wrong kind, on real servers: each says what it is.

use std::{net::SocketAddr, time::Duration};

use evenkeel_protocol::{Endpoint, Machine};
use evenkeel_testkit::launcher::{
    Cluster, ClusterOptions, Feature, SentinelOptions, SentinelTrio, Single, for_each_server_with,
};
use evenkeel_topology::{
    Action, ClusterConfig, ClusterResolver, FixedConfig, FixedResolver, Input, Report, SentinelConfig,
    SentinelResolver,
    driver::{DriverConfig, TopologyEvent, spawn},
};

use crate::tcp::Tcp;

fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint::new(&addr.ip().to_string(), addr.port())
}

/// The first thing that a resolver says is wrong.
async fn complaint<M>(start: impl FnOnce(std::time::Instant) -> M) -> String
where
    M: Machine<Input = Input, Action = Action> + Send + 'static,
{
    let (handle, mut events) = spawn(start, Tcp::default(), DriverConfig::default().name("mymaster"));
    let waiting = async {
        loop {
            match events.recv().await.unwrap() {
                TopologyEvent::Unresolved(error) => return error.to_string(),
                TopologyEvent::Report(report @ Report::IsReplica { .. }) => return format!("{report:?}"),
                _ => {}
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
    handle.shutdown().await;
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_of_the_wrong_kind_is_named() {
    for_each_server_with("topology::a_seed_of_the_wrong_kind", &[Feature::Sentinel], |kind| async move {
        let single = Single::start(&kind).await.unwrap();
        let trio = SentinelTrio::start(&kind, SentinelOptions::default().replicas(1)).await.unwrap();
        let cluster = Cluster::start(&kind, ClusterOptions::default().replicas_per_primary(0)).await.unwrap();
        let primary = trio.primary().await.unwrap();
        let replica = trio.data_nodes().into_iter().find(|node| *node != primary).unwrap();
        let (single, sentinel) = (endpoint(single.addr()), endpoint(trio.sentinels()[0]));
        let (replica, member) = (endpoint(replica), endpoint(cluster.addresses()[0]));

        let as_cluster = |seed: &Endpoint| {
            let config = ClusterConfig::new([seed.clone()]);
            complaint(|now| ClusterResolver::new(config, 1, now))
        };
        let as_sentinel = |seed: &Endpoint, name: &str| {
            let config = SentinelConfig::new(name, [seed.clone()]);
            complaint(|now| SentinelResolver::new(config, 1, now))
        };
        let as_single = |seed: &Endpoint| {
            let config = FixedConfig::new(seed.clone());
            complaint(|now| FixedResolver::new(config, 1, now))
        };
        assert_eq!(as_cluster(&single).await, format!("{single} is a data node, expected a cluster node"));
        assert_eq!(as_cluster(&sentinel).await, format!("{sentinel} is a sentinel, expected a cluster node"));
        assert_eq!(
            as_sentinel(&single, "mymaster").await,
            format!("{single} is a data node, expected a sentinel")
        );
        assert_eq!(as_single(&sentinel).await, format!("{sentinel} is a sentinel, expected a single server"));
        assert_eq!(as_single(&member).await, format!("{member} is a cluster node, expected a single server"));
        let primary = endpoint(primary);
        assert_eq!(
            as_single(&replica).await,
            format!("IsReplica {{ endpoint: {replica}, primary: Some({primary}) }}")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_may_not_ask_for_the_role_find_their_primary_all_the_same() {
    for_each_server_with("topology::users_without_role", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, SentinelOptions::default().replicas(1)).await.unwrap();
        let primary = trio.primary().await.unwrap();
        for node in trio.data_nodes() {
            trio.nodes().command(node, &["ACL", "SETUSER", "default", "-role"]).await.unwrap();
        }
        let config = SentinelConfig::new(trio.name(), trio.sentinels().into_iter().map(endpoint));
        let driver = DriverConfig::default().name(trio.name());
        let (handle, _events) = spawn(|now| SentinelResolver::new(config, 1, now), Tcp::default(), driver);
        let found =
            tokio::time::timeout(Duration::from_secs(20), handle.reader().newer_than(0)).await.unwrap();
        assert_eq!(found.unwrap().primary_of(None), Some(&endpoint(primary)));
        handle.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_seed_is_said() {
    let seed = Endpoint::new("127.0.0.1", 1);
    let config = SentinelConfig::new("m", [seed.clone()]);
    assert_eq!(
        complaint(|now| SentinelResolver::new(config, 1, now)).await,
        "none of 1 seeds answered; 127.0.0.1:1: connection refused"
    );
    let config = ClusterConfig::new([seed]);
    assert_eq!(
        complaint(|now| ClusterResolver::new(config, 1, now)).await,
        "none of 1 seeds answered; 127.0.0.1:1: connection refused"
    );
}
