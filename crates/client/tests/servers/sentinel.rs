//! Sentinel: planned failovers lose nothing, crashes cost the servers' own time.

use std::time::Duration;

use evenkeel_client::{
    Client,
    topology::{Change, Role},
};
use evenkeel_testkit::{
    launcher::{
        Feature, SentinelFailover, SentinelOptions, SentinelTrio, for_each_server, for_each_server_with,
    },
    proxy::Proxy,
};

use crate::{
    load::Load,
    seeds::{self, until},
};

async fn connect(trio: &SentinelTrio) -> Client {
    let sentinels: Vec<String> = trio.sentinels().iter().map(ToString::to_string).collect();
    Client::connect(format!("redis+sentinel://{}/{}", sentinels.join(","), trio.name())).await.unwrap()
}

/// What "nothing lost" rests on: every sentinel is known and heard.
async fn heard(client: &Client) {
    until("every sentinel is heard", async || {
        let topology = client.topology();
        topology.sentinels().len() == 3 && client.health().unheard_sentinels.is_empty()
    })
    .await;
}

fn options() -> SentinelOptions {
    SentinelOptions::default().down_after(Duration::from_millis(500))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_nothing() {
    for_each_server("client::sentinel::planned", |kind| async move {
        if !kind.has(Feature::Sentinel) {
            return;
        }
        let trio = SentinelTrio::start(&kind, options()).await.unwrap();
        let client = connect(&trio).await;
        heard(&client).await;
        let old = trio.primary().await.unwrap();
        let mut changes = client.topology_changes();
        let load = Load::start(&client, "load", 8);
        load.goes_on().await;
        trio.failover(SentinelFailover::Plain).await.unwrap();
        let new = trio.wait_for_new_primary(old).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let outcome = load.finish(&client).await;
        println!("{kind:?}: {outcome:?}");
        assert_eq!(
            (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled),
            (0, 0, 0, 0),
            "{outcome:?}"
        );
        assert_eq!(outcome.disordered, 0);
        // The stream tells of the change, and the snapshot shows it.
        let is_it = |change: &Change| {
            matches!(change, Change::PrimaryChanged { from: Some(from), to: Some(to) }
                if from.port() == old.port() && to.port() == new.port())
        };
        let told = async {
            while let Some(update) = changes.recv().await {
                if update.changes.iter().any(is_it) {
                    return update.topology.epoch();
                }
            }
            0
        };
        let epoch = tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
        assert!(epoch > 0);
        let topology = client.topology();
        let primary = topology.nodes().iter().find(|node| node.role == Role::Primary).unwrap();
        assert_eq!(primary.endpoint.port(), new.port());
        assert!(topology.to_string().contains(&format!("{} Primary Online", primary.endpoint)), "{topology}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_costs_the_outage() {
    for_each_server("client::sentinel::crash", |kind| async move {
        if !kind.has(Feature::Sentinel) {
            return;
        }
        let trio = SentinelTrio::start(&kind, options()).await.unwrap();
        seeds::of_a_trio(&trio).await;
        let client = connect(&trio).await;
        let old = trio.primary().await.unwrap();
        let load = Load::start(&client, "load", 8);
        load.goes_on().await;
        trio.nodes().kill(old).await.unwrap();
        trio.wait_for_new_primary(old).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let outcome = load.finish(&client).await;
        println!("{kind:?}: {outcome:?}");
        assert_eq!((outcome.failed, outcome.doubled, outcome.disordered), (0, 0, 0), "{outcome:?}");
        assert!(outcome.unknown <= 8, "{outcome:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_is_given_up_and_one_that_nobody_hears() {
    // It is the client that is tried: one kind of server is enough.
    let features = [Feature::Sentinel, Feature::CoordinatedFailover];
    for_each_server_with("client::sentinel::unheard", &features, |kind| async move {
        let options = SentinelOptions::default().failover_timeout(Duration::from_secs(1));
        let trio = SentinelTrio::start(&kind, options).await.unwrap();
        let mut proxies = Vec::new();
        for sentinel in trio.sentinels() {
            proxies.push(Proxy::start(sentinel).await.unwrap());
        }
        let fronts: Vec<String> = proxies.iter().map(|proxy| proxy.addr().to_string()).collect();
        let url = format!("redis+sentinel://{}/{}", fronts.join(","), trio.name());
        let client = Client::connect(url).await.unwrap();
        heard(&client).await;
        let old = trio.primary().await.unwrap();

        // The replicas cannot be promoted: the sentinel gives up, and everything is as it was.
        let replicas: Vec<_> = trio.data_nodes().into_iter().filter(|node| *node != old).collect();
        let load = Load::start(&client, "given-up", 8);
        for replica in &replicas {
            trio.nodes().stop(*replica).unwrap();
        }
        trio.failover(SentinelFailover::Plain).await.unwrap();
        let leader = trio.sentinels()[0];
        let is_under_way = async || {
            let view = trio.nodes().command(leader, &["SENTINEL", "MASTER", trio.name()]).await.unwrap();
            view.items().iter().any(|item| item.text().unwrap_or_default().contains("failover_in_progress"))
        };
        until("the failover begins", async || is_under_way().await).await;
        until("the failover is given up", async || !is_under_way().await).await;
        for replica in &replicas {
            trio.nodes().cont(*replica).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcome = load.finish(&client).await;
        let bad = (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled, outcome.disordered);
        assert_eq!(bad, (0, 0, 0, 0, 0), "{outcome:?}");
        assert_eq!(client.topology().primary_of(None).unwrap().port(), old.port());
        println!("given up: longest gap {:?}", outcome.longest_gap);

        // Nobody hears the leader: health says so, and writes go on to the old primary until the others tell.
        let deaf = proxies.remove(0);
        deaf.handle().refuse().await.unwrap();
        deaf.handle().reset_all();
        let front = deaf.addr().port();
        until("health tells", async || client.health().unheard_sentinels.iter().any(|s| s.port() == front))
            .await;
        let load = Load::start(&client, "unheard", 8);
        let again = async || trio.failover(SentinelFailover::Plain).await.is_ok();
        until("the replicas are in order again", again).await;
        let new = trio.wait_for_new_primary(old).await.unwrap();
        until("the client follows", async || {
            client.topology().primary_of(None).unwrap().port() == new.port()
        })
        .await;
        let outcome = load.finish(&client).await;
        println!("unheard leader: {} of {} lost", outcome.lost, outcome.commands);
        assert_eq!((outcome.failed, outcome.doubled), (0, 0), "{outcome:?}");
        assert!(client.health().unheard_sentinels.iter().any(|sentinel| sentinel.port() == front));
        deaf.handle().accept().await.unwrap();
        heard(&client).await;
    })
    .await;
}
