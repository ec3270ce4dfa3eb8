//! Nodes of a cluster that die: what waits for them goes to whoever has their slots.

use std::time::Duration;

use evenkeel_client::{Client, ConnectionState, EndpointHealth};
use evenkeel_protocol::{Slot, maintenance::SlotRanges};
use evenkeel_testkit::server::EmbeddedServer;

/// A key in slot 5061, of the first of three nodes.
const KEY: &str = "bar";

async fn until(client: &Client, is_so: impl Fn(&[EndpointHealth]) -> bool) {
    let so = async {
        while !is_so(&client.health().endpoints) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), so).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_for_a_dead_node_go_where_its_slots_went() {
    let server = EmbeddedServer::builder().addresses(3).cluster().start().await.unwrap();
    assert_eq!(server.slot_owner(Slot::of(KEY.as_bytes())), 0);
    let url = format!("redis+cluster://{},{}", server.address(1), server.address(2));
    let client = Client::connect(url).await.unwrap();
    assert_eq!(client.incr(KEY).await.unwrap(), 1);
    server.retire(0).await;
    let is_ready = |node: &EndpointHealth| node.state == ConnectionState::Ready;
    until(&client, |nodes| !nodes.iter().all(is_ready)).await;
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.incr(KEY).timeout(Duration::from_secs(30)).await })
        })
        .collect();
    until(&client, |nodes| nodes.iter().any(|node| node.in_flight == 4)).await;
    // It stays in the map as a failed primary without slots, and is nobody's replica.
    server.move_slots(&SlotRanges::from_ranges([0..=5461]), 1).unwrap();
    let mut values = Vec::new();
    for waiting in waiting {
        values.push(waiting.await.unwrap().unwrap());
    }
    values.sort_unstable();
    assert_eq!(values, [2, 3, 4, 5]);
    // A command for all nodes goes to the two that serve slots; each counts the data that they share here.
    assert_eq!(client.cmd("DBSIZE").query::<i64>().await.unwrap(), 2);
}
