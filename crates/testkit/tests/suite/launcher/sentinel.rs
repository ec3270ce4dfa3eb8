use std::time::Duration;

use evenkeel_testkit::launcher::{
    Control, Feature, Reply, SentinelFailover, SentinelOptions, SentinelTrio, for_each_server_with, until,
};

#[tokio::test]
async fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
    for_each_server_with("launcher::a_killed_primary_is_replaced", &[Feature::Sentinel], |kind| async move {
        let options = SentinelOptions::default().password("data secret").sentinel_password("sentinel secret");
        let trio = SentinelTrio::start(&kind, options).await.unwrap();
        let old = trio.primary().await.unwrap();
        // WAIT speaks of what its own connection wrote.
        let mut control = trio.nodes().control(old).await.unwrap();
        control.command(&["SET", "k", "v"]).await.unwrap();
        assert_eq!(control.command(&["WAIT", "2", "5000"]).await.unwrap(), Reply::Integer(2));
        let mut stranger = Control::connect(trio.sentinels()[0], None).await.unwrap();
        assert!(stranger.command(&["SENTINEL", "MASTERS"]).await.unwrap_err().is_refused_with("NOAUTH"));

        trio.nodes().kill(old).await.unwrap();
        let new = trio.wait_for_new_primary(old).await.unwrap();
        assert_eq!(trio.nodes().command(new, &["GET", "k"]).await.unwrap(), Reply::Bulk("v".into()));

        trio.nodes().restart(old).await.unwrap();
        until(Duration::from_secs(30), "the old primary to follow", || async {
            // A loaded machine may make a second failover of its own.
            let new = trio.primary().await.ok()?;
            let role = trio.nodes().command(old, &["ROLE"]).await.ok()?;
            let [role, _, port, link, ..] = role.items() else { return None };
            let follows = role.text() == Some("slave")
                && port.integer() == Some(new.port().into())
                && link.text() == Some("connected");
            follows.then_some(())
        })
        .await
        .unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_failover_by_command_moves_the_primary() {
    for_each_server_with("launcher::a_failover_by_command", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, SentinelOptions::default()).await.unwrap();
        let old = trio.primary().await.unwrap();
        trio.failover(SentinelFailover::Plain).await.unwrap();
        assert_ne!(trio.wait_for_new_primary(old).await.unwrap(), old);
    })
    .await;
}

#[tokio::test]
async fn a_coordinated_failover_leaves_one_primary_or_is_refused() {
    for_each_server_with("launcher::a_coordinated_failover", &[Feature::Sentinel], |kind| async move {
        let trio = SentinelTrio::start(&kind, SentinelOptions::default()).await.unwrap();
        let old = trio.primary().await.unwrap();
        let begun = trio.failover(SentinelFailover::Coordinated).await;
        if kind.has(Feature::CoordinatedFailover) {
            begun.unwrap();
            let new = trio.wait_for_new_primary(old).await.unwrap();
            assert!(trio.is_primary(new).await && !trio.is_primary(old).await);
        } else {
            let error = begun.unwrap_err();
            assert!(error.is_refused_with("ERR"), "{error}");
            assert!(trio.is_primary(old).await);
        }
    })
    .await;
}
