//! A memory broker that does as a test says: hesitates, or has a gap.

use crate::start::DEADLINE;
use bytes::Bytes;
use evenkeel_gateway::broker::{BoxFuture, BrokerHealth, History, HistoryQuery};
use evenkeel_gateway::{
    Broker, BrokerError, Channel, ChannelOptions, Deliveries, Member, MemoryBroker, Publication, Published,
};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

#[derive(Debug)]
pub(crate) struct Directed {
    broker: Arc<MemoryBroker>,
    deliveries: watch::Sender<Option<Deliveries>>,
    /// A permit for each time that it was read who is there.
    pub(crate) read: Semaphore,
    /// A permit lets it say so once.
    pub(crate) says: Semaphore,
}

impl Default for Directed {
    fn default() -> Self {
        Self {
            broker: Arc::default(),
            deliveries: watch::Sender::new(None),
            read: Semaphore::new(0),
            says: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }
}

impl Directed {
    /// Reads who is there, and says so when it may.
    pub(crate) fn hesitating() -> Self {
        Self { says: Semaphore::new(0), ..Self::default() }
    }

    /// Makes a gap, with these publications right behind it.
    pub(crate) async fn gap(&self, channel: &Channel, behind: std::ops::Range<u32>) {
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

impl Broker for Directed {
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

    fn enter<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        members: &'a [Arc<Member>],
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.broker.enter(channel, options, members)
    }

    fn leave<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        client: &'a str,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.broker.leave(channel, options, client)
    }

    fn members<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Vec<Member>, BrokerError>> {
        Box::pin(async {
            let members = self.broker.members(channel).await;
            self.read.add_permits(1);
            self.says.acquire().await.unwrap().forget();
            members
        })
    }

    fn health(&self) -> BrokerHealth {
        self.broker.health()
    }
}
