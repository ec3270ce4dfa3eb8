//! Sentinel: planned failovers lose nothing, crashes cost the servers' own time.

use std::time::Duration;

use evenkeel_client::Client;
use evenkeel_testkit::launcher::{Feature, SentinelFailover, SentinelOptions, SentinelTrio, for_each_server};

use crate::load::Load;

async fn connect(trio: &SentinelTrio) -> Client {
    let sentinels: Vec<String> = trio.sentinels().iter().map(ToString::to_string).collect();
    Client::connect(format!("redis+sentinel://{}/{}", sentinels.join(","), trio.name())).await.unwrap()
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
        let old = trio.primary().await.unwrap();
        let load = Load::start(&client, "load", 8);
        tokio::time::sleep(Duration::from_millis(500)).await;
        trio.failover(SentinelFailover::Plain).await.unwrap();
        trio.wait_for_new_primary(old).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let outcome = load.finish(&client).await;
        println!("{kind:?}: {outcome:?}");
        assert_eq!(
            (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled),
            (0, 0, 0, 0),
            "{outcome:?}"
        );
        assert_eq!(outcome.disordered, 0);
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
        let client = connect(&trio).await;
        let old = trio.primary().await.unwrap();
        let load = Load::start(&client, "load", 8);
        tokio::time::sleep(Duration::from_millis(500)).await;
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
