//! Who is on a channel: members, and the registry of those that this gateway answers for.
//!
//! The broker keeps members with an expiry, and the gateway that has their sessions says again and again that they are
//! there; so nobody stays for longer than [`LIFE`] after a gateway was killed.

use crate::broker::Broker;
use crate::namespace::ChannelOptions;
use crate::publication::Channel;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a member stays without word from its gateway.
pub const LIFE: Duration = Duration::from_secs(30);
/// Seconds between two such words.
pub(crate) const REFRESH: u64 = 10;

/// One session on a channel.
#[derive(Clone, Deserialize, Serialize)]
pub struct Member {
    /// The session.
    pub client: Box<str>,
    /// Its user; empty for nobody in particular.
    #[serde(default)]
    pub user: Box<str>,
    /// What the application says of it: JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Box<RawValue>>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Member {
    pub(crate) fn new(client: &str, user: &str, info: Option<Box<RawValue>>) -> Self {
        Self { client: client.into(), user: user.into(), info }
    }

    /// The member as JSON on one line.
    pub fn to_json(&self) -> Bytes {
        // Strings and JSON that was read already always serialize.
        let text = serde_json::to_vec(self).unwrap_or_default();
        crate::publication::json_line(Bytes::from(text))
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

/// Members by their clients, channel by channel.
pub(crate) type Members = HashMap<Channel, BTreeMap<Box<str>, Arc<Member>>>;

/// The members whose sessions are here.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    members: Mutex<Members>,
    /// The channel whose members are being said again.
    telling: watch::Sender<Option<Channel>>,
}

impl Registry {
    pub(crate) fn add(&self, channel: &Channel, member: Arc<Member>) {
        self.members.lock().entry(channel.clone()).or_default().insert(member.client.clone(), member);
    }

    pub(crate) fn remove(&self, channel: &Channel, client: &str) -> Option<Arc<Member>> {
        let mut all = self.members.lock();
        let members = all.get_mut(channel)?;
        let member = members.remove(client);
        if members.is_empty() {
            all.remove(channel);
        }
        member
    }

    /// Says again who is here, before the broker forgets them, and gives up for now when the broker is away.
    ///
    /// # Cancel safety
    /// When dropped some were said and some not; the next round says it all again.
    pub(crate) async fn say_again(
        &self,
        broker: &dyn Broker,
        options: impl Fn(&Channel) -> Option<Arc<ChannelOptions>>,
    ) {
        for channel in self.channels() {
            let Some(options) = options(&channel) else { continue };
            // Before the members are read: who goes after that waits until they were said, and goes then.
            let _telling = Telling::begin(&self.telling, &channel);
            let members = self.on(&channel);
            if !members.is_empty() && broker.enter(&channel, &options, &members).await.is_err() {
                return;
            }
        }
    }

    /// Waits while [`say_again`](Self::say_again) is at a channel: one that was removed may be among those whom it
    /// says to be there, and would come back after it had left.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn told(&self, channel: &Channel) {
        let mut telling = self.telling.subscribe();
        // The sender is this registry's own, so it cannot be gone.
        drop(telling.wait_for(|now| now.as_ref() != Some(channel)).await);
    }

    fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<_> = self.members.lock().keys().cloned().collect();
        channels.sort();
        channels
    }

    fn on(&self, channel: &Channel) -> Vec<Arc<Member>> {
        self.members
            .lock()
            .get(channel)
            .map(|members| members.values().cloned().collect())
            .unwrap_or_default()
    }
}

/// While it lives, what is said of its channel may be older than who has left it.
struct Telling<'a>(&'a watch::Sender<Option<Channel>>);

impl<'a> Telling<'a> {
    fn begin(now: &'a watch::Sender<Option<Channel>>, channel: &Channel) -> Self {
        now.send_replace(Some(channel.clone()));
        Self(now)
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::{Member, Registry};
    use crate::broker::{BoxFuture, Broker, BrokerHealth, History, HistoryQuery, Published};
    use crate::error::BrokerError;
    use crate::hub::Deliveries;
    use crate::namespace::ChannelOptions;
    use crate::publication::Channel;
    use bytes::Bytes;
    use futures_util::FutureExt;
    use parking_lot::Mutex;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::Notify;

    #[test]
    fn members_are_written_and_read() {
        let info = serde_json::value::RawValue::from_string("{\"name\":\n\"A\"}".to_owned()).unwrap();
        let member = Member::new("c1", "u1", Some(info));
        let json = member.to_json();
        assert_eq!(json, r#"{"client":"c1","user":"u1","info":{"name":"A"}}"#);
        let read = Member::from_json(&json).unwrap();
        assert_eq!((&*read.client, &*read.user, read.info.unwrap().get()), ("c1", "u1", r#"{"name":"A"}"#));
        assert!(Member::from_json(b"{}").is_none());
        assert!(!format!("{member:?}").contains("name"));
    }

    #[test]
    fn a_registry_forgets_who_left() {
        let registry = Registry::default();
        registry.add(&"a".into(), Arc::new(Member::new("c1", "", None)));
        assert!(registry.remove(&"a".into(), "c2").is_none());
        assert!(registry.remove(&"b".into(), "c1").is_none());
        assert_eq!(registry.on(&"a".into()).len(), 1);
        assert!(registry.remove(&"a".into(), "c1").is_some());
        assert!(registry.channels().is_empty());
    }

    /// A broker that takes its time to write down who is there.
    #[derive(Debug, Default)]
    struct Slow {
        there: Mutex<BTreeSet<Box<str>>>,
        asked: Notify,
        goes_on: Notify,
        fails: AtomicBool,
    }

    impl Broker for Slow {
        fn run(self: Arc<Self>, _deliveries: Deliveries) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }

        fn want(&self, _channel: &Channel, _options: &Arc<ChannelOptions>) {}

        fn unwant(&self, _channel: &Channel) {}

        fn ready<'a>(&'a self, _channel: &'a Channel) -> BoxFuture<'a, Result<(), BrokerError>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn publish<'a>(
            &'a self,
            _channel: &'a Channel,
            _data: Bytes,
            _options: &'a Arc<ChannelOptions>,
        ) -> BoxFuture<'a, Result<Published, BrokerError>> {
            Box::pin(std::future::ready(Err(BrokerError::Unsupported)))
        }

        fn history<'a>(
            &'a self,
            _channel: &'a Channel,
            _options: &'a Arc<ChannelOptions>,
            _query: HistoryQuery,
        ) -> BoxFuture<'a, Result<History, BrokerError>> {
            Box::pin(std::future::ready(Err(BrokerError::Unsupported)))
        }

        fn enter<'a>(
            &'a self,
            _channel: &'a Channel,
            _options: &'a Arc<ChannelOptions>,
            members: &'a [Arc<Member>],
        ) -> BoxFuture<'a, Result<(), BrokerError>> {
            Box::pin(async move {
                self.asked.notify_one();
                self.goes_on.notified().await;
                self.there.lock().extend(members.iter().map(|member| member.client.clone()));
                if self.fails.load(Ordering::Relaxed) { Err(BrokerError::Unavailable) } else { Ok(()) }
            })
        }

        fn leave<'a>(
            &'a self,
            _channel: &'a Channel,
            _options: &'a Arc<ChannelOptions>,
            client: &'a str,
        ) -> BoxFuture<'a, Result<(), BrokerError>> {
            self.there.lock().remove(client);
            Box::pin(std::future::ready(Ok(())))
        }

        fn health(&self) -> BrokerHealth {
            BrokerHealth { probe_age: None, waiting: 0 }
        }
    }

    /// What a session does that leaves.
    async fn go(registry: &Registry, broker: &Slow, channel: &Channel, client: &str) {
        assert!(registry.remove(channel, client).is_some());
        registry.told(channel).await;
        broker.leave(channel, &Arc::default(), client).await.unwrap();
    }

    #[tokio::test]
    async fn who_leaves_while_all_are_said_again_stays_away() {
        for fails in [false, true] {
            let (registry, broker) = (Registry::default(), Slow::default());
            broker.fails.store(fails, Ordering::Relaxed);
            let (channel, other) = (Channel::from("a"), Channel::from("b"));
            for client in ["stays", "goes"] {
                registry.add(&channel, Arc::new(Member::new(client, "", None)));
            }
            let said = registry.say_again(&broker, |_| Some(Arc::default()));
            let leaves = async {
                broker.asked.notified().await;
                let mut goes = std::pin::pin!(go(&registry, &broker, &channel, "goes"));
                assert!(goes.as_mut().now_or_never().is_none(), "it would come back after it has left");
                // Who leaves another channel need not wait.
                registry.add(&other, Arc::new(Member::new("elsewhere", "", None)));
                go(&registry, &broker, &other, "elsewhere").await;
                broker.goes_on.notify_one();
                goes.await;
            };
            tokio::join!(said, leaves);
            assert_eq!(broker.there.lock().iter().map(|client| &**client).collect::<Vec<_>>(), ["stays"]);
        }
    }

    #[tokio::test]
    async fn a_round_that_is_given_up_holds_nobody() {
        let (registry, broker) = (Registry::default(), Slow::default());
        let channel = Channel::from("a");
        registry.add(&channel, Arc::new(Member::new("c1", "", None)));
        tokio::select! {
            biased;
            () = registry.say_again(&broker, |_| Some(Arc::default())) => panic!("the broker says nothing"),
            () = broker.asked.notified() => {}
        }
        go(&registry, &broker, &channel, "c1").await;
        assert!(broker.there.lock().is_empty());
    }
}
