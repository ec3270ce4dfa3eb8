//! A gap on a channel without history: told once, and nothing lost behind it.

use crate::directed::Directed;
use crate::peer::Peer;
use crate::start::{DEADLINE, config, over};
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn what_comes_right_behind_a_gap_is_held_until_the_client_is_back() {
    let broker = Arc::new(Directed::default());
    let gateway = over(config(), broker.clone()).await;
    let mut peer = Peer::connect(gateway.local_addr()).await;
    peer.subscribe("news").await;
    broker.gap(&"news".into(), 1..201).await;
    let told = peer.json().await;
    assert_eq!(told["push"]["unsubscribe"]["code"], 2500, "{told}");
    assert_eq!(peer.subscribe("news").await["subscribe"], json!({}));
    // Heartbeats come for ever, so one deadline is for all of them.
    let all = tokio::time::timeout(DEADLINE, async {
        for number in 1..201 {
            assert_eq!(peer.json().await, json!({"push":{"channel":"news","pub":{"data":number}}}));
        }
    });
    assert!(all.await.is_ok(), "what came behind the gap is lost");
    gateway.handle().publish("news", "201").await.unwrap();
    assert_eq!(peer.json().await["push"]["pub"]["data"], 201);
    gateway.stop().await;
}
