//! A gap on a channel without history: told once, and nothing lost behind it.

use crate::peer::Peer;
use crate::start::{DEADLINE, config, over};
use bytes::Bytes;
use evenkeel_gateway::broker::{BoxFuture, BrokerHealth, History, HistoryQuery};
use evenkeel_gateway::{
    Broker, BrokerError, Channel, ChannelOptions, Deliveries, MemoryBroker, Publication, Published,
};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;

/// Has gaps when it is told to.
#[derive(Debug)]
struct Leaky {
    broker: Arc<MemoryBroker>,
    deliveries: watch::Sender<Option<Deliveries>>,
}

impl Leaky {
    /// A gap, with these publications right behind it.
    async fn gap(&self, channel: &Channel, behind: std::ops::Range<u32>) {
        let mut deliveries = self.deliveries.subscribe();
        let known = tokio::time::timeout(DEADLINE, deliveries.wait_for(Option::is_some)).await;
        let deliveries = known.unwrap().unwrap().clone().unwrap();
        deliveries.reserve().await.unwrap().gap(channel);
        for number in behind {
            let publication = Publication::new(channel.clone(), Bytes::from(number.to_string()), None);
            deliveries.reserve().await.unwrap().publication(&publication);
        }
    }
}

impl Broker for Leaky {
    fn run(self: Arc<Self>, deliveries: Deliveries) -> BoxFuture<'static, ()> {
        self.deliveries.send_replace(Some(deliveries.clone()));
        self.broker.clone().run(deliveries)
    }

    fn want(&self, channel: &Channel, options: &Arc<ChannelOptions>) {
        self.broker.want(channel, options);
    }

    fn unwant(&self, channel: &Channel) {
        self.broker.unwant(channel);
    }

    fn ready<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.broker.ready(channel)
    }

    fn publish<'a>(
        &'a self,
        channel: &'a Channel,
        data: Bytes,
        options: &'a Arc<ChannelOptions>,
    ) -> BoxFuture<'a, Result<Published, BrokerError>> {
        self.broker.publish(channel, data, options)
    }

    fn history<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        query: HistoryQuery,
    ) -> BoxFuture<'a, Result<History, BrokerError>> {
        self.broker.history(channel, options, query)
    }

    fn health(&self) -> BrokerHealth {
        self.broker.health()
    }
}

#[tokio::test]
async fn what_comes_right_behind_a_gap_is_held_until_the_client_is_back() {
    let broker =
        Arc::new(Leaky { broker: Arc::new(MemoryBroker::new()), deliveries: watch::Sender::new(None) });
    let gateway = over(config(), broker.clone()).await;
    let mut peer = Peer::connect(gateway.local_addr()).await;
    peer.subscribe("news").await;
    broker.gap(&"news".into(), 1..201).await;
    let told = peer.json().await;
    assert_eq!(told["push"]["unsubscribe"]["code"], 2500, "{told}");
    assert_eq!(peer.subscribe("news").await["subscribe"], json!({}));
    for number in 1..201 {
        assert_eq!(peer.json().await, json!({"push":{"channel":"news","pub":{"data":number}}}));
    }
    gateway.handle().publish("news", "201").await.unwrap();
    assert_eq!(peer.json().await["push"]["pub"]["data"], 201);
    gateway.stop().await;
}
