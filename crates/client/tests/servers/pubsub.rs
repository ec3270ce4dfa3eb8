//! Subscriptions on real servers.

use std::time::Duration;

use evenkeel_client::{Client, Delivery};
use evenkeel_testkit::launcher::{Single, for_each_server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_and_come_back_after_a_restart() {
    for_each_server("client::pubsub::restart", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let client = Client::connect(format!("redis://{}", server.addr())).await.unwrap();
        let mut news = client.subscribe(["news"]).await.unwrap();
        client.publish("news", "one").await.unwrap();
        assert_eq!(next_message(&mut news).await, b"one");
        server.nodes().kill(server.addr()).await.unwrap();
        server.nodes().restart(server.addr()).await.unwrap();
        let gap = async {
            loop {
                if let Some(Delivery::Gap { .. }) = news.recv().await {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gap).await.unwrap();
        client.publish("news", "two").await.unwrap();
        assert_eq!(next_message(&mut news).await, b"two");
    })
    .await;
}

async fn next_message(subscription: &mut evenkeel_client::Subscription) -> Vec<u8> {
    let wait = async {
        loop {
            if let Some(Delivery::Message { payload, .. }) = subscription.recv().await {
                return payload.to_vec();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.unwrap()
}
