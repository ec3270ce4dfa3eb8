use std::time::Duration;

use evenkeel_client::{Delivery, Subscription};
use evenkeel_testkit::launcher::for_each_server;

use super::{eventually, single};

async fn next(subscription: &mut Subscription) -> Delivery {
    tokio::time::timeout(Duration::from_secs(5), subscription.recv()).await.unwrap().unwrap()
}

/// The payload of the next message; other deliveries before it fail the test.
async fn message(subscription: &mut Subscription) -> String {
    match next(subscription).await {
        Delivery::Message { payload, .. } => String::from_utf8(payload.to_vec()).unwrap(),
        other => panic!("expected a message, found {other:?}"),
    }
}

#[tokio::test]
async fn what_is_published_behind_the_await_arrives() {
    for_each_server("client::what_is_published_arrives", |kind| async move {
        let (_server, client) = single(&kind).await;
        let mut news = client.subscribe(["news"]).await.unwrap();
        let mut all = client.psubscribe("n*").await.unwrap();
        let mut shard = client.ssubscribe("news").await.unwrap();
        assert_eq!(client.publish("news", "hello").await.unwrap(), 2);
        assert_eq!(client.spublish("news", "sharded").await.unwrap(), 1);
        assert_eq!(next(&mut news).await, Delivery::Subscribed { channel: "news".into() });
        assert_eq!(message(&mut news).await, "hello");
        assert_eq!(next(&mut all).await, Delivery::Subscribed { channel: "n*".into() });
        let expected =
            Delivery::Message { channel: "news".into(), payload: "hello".into(), pattern: Some("n*".into()) };
        assert_eq!(next(&mut all).await, expected);
        assert_eq!(next(&mut shard).await, Delivery::Subscribed { channel: "news".into() });
        assert_eq!(message(&mut shard).await, "sharded");
    })
    .await;
}

#[tokio::test]
async fn the_server_hears_of_a_channel_once() {
    for_each_server("client::the_server_hears_of_a_channel_once", |kind| async move {
        let (_server, client) = single(&kind).await;
        let mut one = client.subscribe("news").await.unwrap();
        let mut two = client.subscribe("news").await.unwrap();
        assert_eq!(client.publish("news", "x").await.unwrap(), 1);
        for subscription in [&mut one, &mut two] {
            assert_eq!(next(subscription).await, Delivery::Subscribed { channel: "news".into() });
            assert_eq!(message(subscription).await, "x");
        }
        drop(one);
        assert_eq!(client.publish("news", "y").await.unwrap(), 1);
        assert_eq!(message(&mut two).await, "y");
        drop(two);
        eventually("the server delivers no more", async || client.publish("news", "z").await.unwrap() == 0)
            .await;
    })
    .await;
}

#[tokio::test]
async fn channels_come_and_go() {
    for_each_server("client::channels_come_and_go", |kind| async move {
        let (_server, client) = single(&kind).await;
        let mut feed = client.subscribe(["a"]).await.unwrap();
        feed.subscribe(["b", "c"]).await.unwrap();
        for channel in ["a", "b", "c"] {
            assert_eq!(next(&mut feed).await, Delivery::Subscribed { channel: channel.into() });
        }
        client.publish("b", "1").await.unwrap();
        assert_eq!(message(&mut feed).await, "1");
        feed.unsubscribe("b");
        assert_eq!(next(&mut feed).await, Delivery::Unsubscribed { channel: "b".into() });
        client.publish("b", "2").await.unwrap();
        client.publish("c", "3").await.unwrap();
        assert_eq!(message(&mut feed).await, "3");
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_is_a_gap_and_the_subscription_stands_again() {
    for_each_server("client::a_lost_connection_is_a_gap", |kind| async move {
        let (server, client) = single(&kind).await;
        let mut news = client.subscribe("news").await.unwrap();
        assert_eq!(next(&mut news).await, Delivery::Subscribed { channel: "news".into() });
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.unwrap();
        assert_eq!(next(&mut news).await, Delivery::Gap { channel: "news".into(), may_repeat: false });
        client.publish("news", "again").await.unwrap();
        assert_eq!(message(&mut news).await, "again");
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_messages_arrive_in_order() {
    for_each_server("client::ten_thousand_messages_arrive_in_order", |kind| async move {
        let (_server, client) = single(&kind).await;
        let mut news = client.subscribe("news").await.unwrap();
        let publisher = client.clone();
        let publishing = tokio::spawn(async move {
            for chunk in 0..10 {
                let mut batch = publisher.batch();
                for number in 0..1000 {
                    batch.publish("news", chunk * 1000 + number);
                }
                batch.await.unwrap();
            }
        });
        assert_eq!(next(&mut news).await, Delivery::Subscribed { channel: "news".into() });
        for expected in 0..10_000 {
            assert_eq!(message(&mut news).await, expected.to_string());
        }
        publishing.await.unwrap();
    })
    .await;
}
