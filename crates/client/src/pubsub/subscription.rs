//! `Subscription`: what a subscriber holds in its hands.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use evenkeel_protocol::{Command, ToArgs};
use futures_core::Stream;

use super::{
    Delivery, Family, PubSub,
    registry::{Name, SubscriberId},
    subscriber::{Settled, Subscriber},
};
use crate::{
    core::Core,
    error::{Error, Executed, Phase},
    mailbox::Taken,
};

/// A subscription that is awaited: the future waits until the server has confirmed every channel.
///
/// # Cancel safety
/// Dropping the future gives the subscription up.
#[must_use = "a subscription is asked for when it is awaited"]
#[derive(Debug)]
pub struct Subscribing<'a> {
    core: &'a Arc<Core>,
    names: Vec<Name>,
    timeout: Duration,
}

impl<'a> Subscribing<'a> {
    pub(crate) fn new(core: &'a Arc<Core>, family: Family, names: &impl ToArgs) -> Self {
        Self { core, names: named(family, names), timeout: core.config().command_timeout() }
    }

    /// The wait for the confirmations. Default: the configuration's `command_timeout`, 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl<'a> IntoFuture for Subscribing<'a> {
    type Output = Result<Subscription, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut subscription = Subscription::open(self.core.pubsub(), self.timeout);
            subscription.add(self.names, self.timeout).await?;
            Ok(subscription)
        })
    }
}

/// Messages of channels, patterns and shard channels, in the order in which the server sent them.
///
/// A `Stream`, and [`recv`](Self::recv) for those who need no other method of one. It survives lost connections,
/// failovers and moves: where messages may be missing it says [`Delivery::Gap`], where the reader was too slow
/// [`Delivery::Lagged`]. What waits is bounded by `subscriber_bytes` and `subscriber_messages`. Dropping it
/// unsubscribes from what nobody else here is subscribed to.
///
/// Order holds per channel; channels of a cluster may come over different connections.
#[derive(Debug)]
pub struct Subscription {
    pubsub: Arc<PubSub>,
    id: SubscriberId,
    subscriber: Arc<Subscriber>,
    names: BTreeSet<Name>,
    timeout: Duration,
}

impl Subscription {
    pub(crate) fn open(pubsub: &Arc<PubSub>, timeout: Duration) -> Self {
        let (id, subscriber) = pubsub.open();
        Self { pubsub: Arc::clone(pubsub), id, subscriber, names: BTreeSet::new(), timeout }
    }

    /// The next delivery; `None` when the client is closed and everything was read.
    ///
    /// # Cancel safety
    /// Dropping the future loses no delivery.
    pub async fn recv(&mut self) -> Option<Delivery> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next delivery, if there is one by now.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        self.subscriber.mailbox.try_take().map(delivery)
    }

    /// Subscribes to further channels and waits until the server has confirmed them.
    ///
    /// # Errors
    /// A refusal of the server, or no confirmation within the time that the subscription was given.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the channels wanted; their `Subscribed` comes in-band.
    pub async fn subscribe(&mut self, channels: impl ToArgs) -> Result<(), Error> {
        self.add(named(Family::Channel, &channels), self.timeout).await
    }

    /// Subscribes to further patterns and waits until the server has confirmed them.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    ///
    /// # Cancel safety
    /// As [`subscribe`](Self::subscribe).
    pub async fn psubscribe(&mut self, patterns: impl ToArgs) -> Result<(), Error> {
        self.add(named(Family::Pattern, &patterns), self.timeout).await
    }

    /// Subscribes to further shard channels and waits until the server has confirmed them.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    ///
    /// # Cancel safety
    /// As [`subscribe`](Self::subscribe).
    pub async fn ssubscribe(&mut self, channels: impl ToArgs) -> Result<(), Error> {
        self.add(named(Family::Shard, &channels), self.timeout).await
    }

    /// Gives channels up. Nothing from them comes behind their `Unsubscribed`; the server is told in the background.
    pub fn unsubscribe(&mut self, channels: impl ToArgs) {
        self.remove(named(Family::Channel, &channels));
    }

    /// Gives patterns up, as [`unsubscribe`](Self::unsubscribe).
    pub fn punsubscribe(&mut self, patterns: impl ToArgs) {
        self.remove(named(Family::Pattern, &patterns));
    }

    /// Gives shard channels up, as [`unsubscribe`](Self::unsubscribe).
    pub fn sunsubscribe(&mut self, channels: impl ToArgs) {
        self.remove(named(Family::Shard, &channels));
    }

    fn remove(&mut self, names: Vec<Name>) {
        for name in &names {
            self.names.remove(name);
        }
        self.pubsub.leave(self.id, names);
    }

    pub(crate) async fn add(&mut self, names: Vec<Name>, timeout: Duration) -> Result<(), Error> {
        self.names.extend(names.iter().cloned());
        self.pubsub.join(self.id, &self.subscriber, &names);
        let settled = poll_fn(|cx| self.subscriber.poll_settled(cx));
        match tokio::time::timeout(timeout, settled).await {
            Ok(Settled::Confirmed) => Ok(()),
            Ok(Settled::Closed) => Err(Error::closed(Executed::No)),
            Ok(Settled::Refused(error)) => {
                self.remove(names);
                Err(Error::server(error, &Command::new("SUBSCRIBE"), None))
            }
            Err(_elapsed) => Err(Error::timeout(Phase::Subscribe, timeout, None, Executed::Maybe)),
        }
    }

    fn poll_recv(&self, cx: &Context<'_>) -> Poll<Option<Delivery>> {
        Poll::Ready(ready!(self.subscriber.mailbox.poll_take(cx)).map(delivery))
    }
}

fn delivery(taken: Taken<Delivery>) -> Delivery {
    match taken {
        Taken::Item(delivery) => delivery,
        Taken::Missed(missed) => Delivery::Lagged { missed },
    }
}

impl Stream for Subscription {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.poll_recv(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.pubsub.close_one(self.id, std::mem::take(&mut self.names));
    }
}

/// Names from whatever arguments may be; they outlive the call, so they are copied once.
fn named(family: Family, names: &impl ToArgs) -> Vec<Name> {
    let command = Command::new("").args_from(names);
    command.args().skip(1).map(|name| (family, Bytes::copy_from_slice(name))).collect()
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::{Push, ServerError, SubscriptionKind};
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::error::ErrorKind;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn confirm(pubsub: &PubSub) {
        for (family, name) in pubsub.take_changes().subscribe {
            let kind = match family {
                Family::Channel => SubscriptionKind::Subscribed,
                Family::Pattern => SubscriptionKind::PatternSubscribed,
                Family::Shard => SubscriptionKind::ShardSubscribed,
            };
            assert!(pubsub.push(&Push::Subscription { kind, channel: Some(name), count: 1 }));
        }
    }

    fn publish(pubsub: &PubSub, channel: &'static str, payload: Bytes) {
        pubsub.push(&Push::Message { sharded: false, channel: channel.into(), payload });
    }

    async fn subscribed(pubsub: &Arc<PubSub>, channel: &str) -> Subscription {
        let mut subscription = Subscription::open(pubsub, TIMEOUT);
        let asked = subscription.subscribe([channel]);
        let (asked, ()) = tokio::join!(asked, async { confirm(pubsub) });
        asked.unwrap();
        assert_eq!(
            subscription.recv().await,
            Some(Delivery::Subscribed { channel: Bytes::copy_from_slice(channel.as_bytes()) })
        );
        subscription
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_the_servers_word_and_then_delivers() {
        let pubsub = Arc::new(PubSub::new(1 << 20, 100));
        let mut news = subscribed(&pubsub, "news").await;
        publish(&pubsub, "news", "hello".into());
        publish(&pubsub, "other", "no".into());
        let expected = Delivery::Message { channel: "news".into(), payload: "hello".into(), pattern: None };
        assert_eq!(news.next().await, Some(expected));
        assert_eq!(news.try_recv(), None);
        assert!(news.recv().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_confirmation_the_wait_ends_and_says_why() {
        let pubsub = Arc::new(PubSub::new(1 << 20, 100));
        let mut subscription = Subscription::open(&pubsub, TIMEOUT);
        let error = subscription.subscribe("news").await.unwrap_err();
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Timeout, Some(Phase::Subscribe)));
        drop(subscription);
        assert!(pubsub.wanted().is_empty(), "dropping it gives it up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_the_callers_error() {
        let pubsub = Arc::new(PubSub::new(1 << 20, 100));
        let mut subscription = Subscription::open(&pubsub, TIMEOUT);
        let refuse = async {
            let changes = pubsub.take_changes();
            let (family, name) = changes.subscribe.first().unwrap();
            pubsub.refused(*family, name, &ServerError::parse(b"NOPERM no access"));
        };
        let (asked, ()) = tokio::join!(subscription.ssubscribe("secret"), refuse);
        let error = asked.unwrap_err();
        assert_eq!((error.server_code(), error.executed()), (Some("NOPERM"), Executed::No));
        assert!(pubsub.wanted().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_machinery_wakes_when_something_changes() {
        let pubsub = Arc::new(PubSub::new(1 << 20, 100));
        assert!(pubsub.changed().now_or_never().is_none());
        let news = subscribed(&pubsub, "news").await;
        drop(news);
        pubsub.changed().now_or_never().expect("dropping the last subscriber is a change");
        assert_eq!(pubsub.take_changes().unsubscribe.len(), 1);
        assert!(pubsub.changed().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_loses_the_oldest_and_is_told() {
        let pubsub = Arc::new(PubSub::new(1 << 20, 3));
        let mut slow = subscribed(&pubsub, "news").await;
        for number in 0..5u8 {
            publish(&pubsub, "news", vec![number].into());
        }
        assert_eq!(slow.recv().await, Some(Delivery::Lagged { missed: 2 }));
        let Some(Delivery::Message { payload, .. }) = slow.recv().await else { panic!("a message") };
        assert_eq!(payload[..], [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded_too() {
        let pubsub = Arc::new(PubSub::new(10_000, 1_000_000));
        let mut slow = subscribed(&pubsub, "news").await;
        for _ in 0..100 {
            publish(&pubsub, "news", vec![0; 1000].into());
        }
        let Some(Delivery::Lagged { missed }) = slow.recv().await else { panic!("lagged") };
        assert!(missed > 90, "{missed}");
    }

    #[tokio::test(start_paused = true)]
    async fn closing_ends_the_stream_behind_what_it_holds() {
        let pubsub = Arc::new(PubSub::new(1 << 20, 100));
        let mut news = subscribed(&pubsub, "news").await;
        publish(&pubsub, "news", "last".into());
        pubsub.close();
        assert!(matches!(news.recv().await, Some(Delivery::Message { .. })));
        assert_eq!(news.recv().await, None);
        let mut late = Subscription::open(&pubsub, TIMEOUT);
        assert_eq!(late.subscribe("news").await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(late.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn unsubscribing_is_told_in_band_and_nothing_follows() {
        let pubsub = Arc::new(PubSub::new(1 << 20, 100));
        let mut news = subscribed(&pubsub, "news").await;
        publish(&pubsub, "news", "1".into());
        news.unsubscribe("news");
        publish(&pubsub, "news", "2".into());
        assert!(matches!(news.recv().await, Some(Delivery::Message { .. })));
        assert!(matches!(news.recv().await, Some(Delivery::Unsubscribed { .. })));
        assert_eq!(news.try_recv(), None);
    }

    #[test]
    fn nothing_shows_a_payload() {
        let message =
            Delivery::Message { channel: "secret-channel".into(), payload: "hunter2".into(), pattern: None };
        assert_eq!(format!("{message:?}"), "Message(7 bytes)");
    }

    #[test]
    fn it_can_be_sent_to_another_task() {
        fn everywhere<T: Send + Sync + 'static>() {}
        everywhere::<Subscription>();
    }
}
