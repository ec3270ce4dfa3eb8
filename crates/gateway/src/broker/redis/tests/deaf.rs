//! A subscription that is dead while its connection lives: the probes find it.

use super::direct::{Direct, Subscriber};
use super::{gateway, outage, until};
use crate::broker::redis::RedisBroker;
use crate::broker::redis::link::{LinkError, LinkEvent, LinkReply, RedisLink, RedisListener};
use crate::broker::{BoxFuture, Published};
use crate::publication::Channel;
use bytes::Bytes;
use evenkeel_testkit::launcher::{Single, for_each_server};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A link whose subscriptions hear nothing while it is deaf; its commands go on.
#[derive(Debug)]
struct Link {
    direct: Direct,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    deaf: AtomicBool,
    renewed: AtomicUsize,
}

impl RedisLink for Link {
    fn command(&self, args: Vec<Bytes>) -> BoxFuture<'_, Result<LinkReply, LinkError>> {
        self.direct.command(args)
    }

    fn listen(&self, sharded: bool) -> BoxFuture<'_, Result<Box<dyn RedisListener>, LinkError>> {
        Box::pin(async move {
            let listener = self.direct.listen(sharded).await?;
            Ok(Box::new(Listener { listener, state: self.state.clone() }) as Box<dyn RedisListener>)
        })
    }
}

#[derive(Debug)]
struct Listener {
    listener: Box<dyn RedisListener>,
    state: Arc<State>,
}

impl RedisListener for Listener {
    fn subscribe(&mut self, channels: Vec<Channel>) {
        self.listener.subscribe(channels);
    }

    fn unsubscribe(&mut self, channels: Vec<Channel>) {
        self.listener.unsubscribe(channels);
    }

    fn next<'a>(&'a mut self, events: &'a mut Vec<LinkEvent>) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let goes_on = self.listener.next(events).await;
            if self.state.deaf.load(Ordering::Relaxed) {
                events.retain(|event| !matches!(event, LinkEvent::Message { .. }));
            }
            goes_on
        })
    }

    fn renew(&mut self) {
        self.state.renewed.fetch_add(1, Ordering::Relaxed);
        self.listener.renew();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_dead_on_a_living_connection_is_found_and_readiness_says_so() {
    for_each_server("gateway: a dead subscription", |kind| async move {
        let server = Single::start(&kind).await.expect("a server");
        let state: Arc<State> = Arc::default();
        let link = Link { direct: Direct::new(server.addr()), state: state.clone() };
        let gateway = gateway(Arc::new(RedisBroker::new(Arc::new(link), outage()))).await;
        let handle = gateway.handle();
        until("ready", || handle.is_ready()).await;
        let mut peer = Subscriber::connect(gateway.local_addr()).await;
        assert!(peer.subscribe("news").await["subscribe"].is_object());
        state.deaf.store(true, Ordering::Relaxed);
        // Redis takes it, and nobody hears it.
        assert_eq!(handle.publish("news", "1").await, Ok(Published::Delivered(None)));
        until("the subscription made anew", || state.renewed.load(Ordering::Relaxed) > 0).await;
        until("not ready", || !handle.is_ready()).await;
        assert!(handle.metrics().contains("evenkeel_gateway_ready 0"));
        state.deaf.store(false, Ordering::Relaxed);
        until("ready again", || handle.is_ready()).await;
        handle.publish("news", "2").await.expect("published");
        assert_eq!(peer.publication().await.1["data"], 2);
        gateway.stop().await;
    })
    .await;
}
