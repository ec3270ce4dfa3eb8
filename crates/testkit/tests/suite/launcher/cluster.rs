use evenkeel_testkit::launcher::{Cluster, ClusterFailover, ClusterOptions, Reply, for_each_server};

/// `{a}` hashes to slot 15495, which the third of three primaries serves.
const SLOT: u16 = 15_495;

#[tokio::test]
async fn slots_move_with_their_keys_and_everybody_learns() {
    for_each_server("launcher::slots_move_with_their_keys", |kind| async move {
        let options = ClusterOptions::default().replicas_per_primary(0).password("cluster secret");
        let cluster = Cluster::start(&kind, options).await.unwrap();
        let from = cluster.owner(SLOT).await.unwrap().addr;
        let to = cluster.owner(0).await.unwrap().addr;
        let mut control = cluster.nodes().control(from).await.unwrap();
        for n in 0..250 {
            let key = format!("{{a}}{n}");
            control.command(&["SET", &key, "v"]).await.unwrap();
        }
        cluster.reshard(SLOT - 1..=SLOT + 1, from, to).await.unwrap();
        for slot in SLOT - 1..=SLOT + 1 {
            cluster.wait_for_owner(slot, to).await.unwrap();
        }
        assert_eq!(cluster.owner(SLOT + 2).await.unwrap().addr, from);
        let moved = control.command(&["GET", "{a}7"]).await.unwrap_err();
        assert!(moved.is_refused_with("MOVED"), "{moved}");
        let slot = SLOT.to_string();
        let count = cluster.nodes().command(to, &["CLUSTER", "COUNTKEYSINSLOT", &slot]).await.unwrap();
        assert_eq!(count, Reply::Integer(250));
        let error = cluster.reshard(SLOT..=SLOT, from, to).await.unwrap_err();
        assert!(error.is_refused_with("ERR"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_replica_takes_over_when_asked_and_when_its_primary_is_killed() {
    for_each_server("launcher::a_replica_takes_over", |kind| async move {
        let cluster = Cluster::start(&kind, ClusterOptions::default()).await.unwrap();
        assert_eq!(cluster.addresses().len(), 6);
        let old = cluster.owner(SLOT).await.unwrap().addr;
        let mut control = cluster.nodes().control(old).await.unwrap();
        control.command(&["SET", "{a}", "v"]).await.unwrap();
        assert_eq!(control.command(&["WAIT", "1", "5000"]).await.unwrap(), Reply::Integer(1));
        let replicas = cluster.replicas_of(old).await.unwrap();
        assert_eq!(replicas.len(), 1);

        cluster.failover(replicas[0].addr, ClusterFailover::Graceful).await.unwrap();
        cluster.wait_for_owner(SLOT, replicas[0].addr).await.unwrap();
        cluster.wait_until_whole().await.unwrap();

        cluster.nodes().kill(replicas[0].addr).await.unwrap();
        assert_eq!(cluster.wait_for_new_owner(SLOT, replicas[0].addr).await.unwrap(), old);
        assert_eq!(cluster.nodes().command(old, &["GET", "{a}"]).await.unwrap(), Reply::Bulk("v".into()));

        cluster.nodes().restart(replicas[0].addr).await.unwrap();
        cluster.wait_until_whole().await.unwrap();
        assert_eq!(cluster.replicas_of(old).await.unwrap().len(), 1);
    })
    .await;
}
