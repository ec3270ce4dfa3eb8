//! The broker over Redis: every gateway on the same Redis delivers what any of them, or any other program,
//! publishes there.
//!
//! Publications of gateways on channels with history are appended to a stream and published in one script, with
//! their offset; the plain `PUBLISH` of any other program is delivered as it is. A channel is subscribed to only
//! while it has a subscriber here.
//!
//! In a cluster a channel's history, its publications and its subscription are all at the node of its slot: gateways
//! publish with `SPUBLISH`, which costs the other nodes nothing. What other programs publish with `PUBLISH` reaches
//! every node, so each channel is subscribed to in that way too, at one node.

#[cfg(feature = "redis")]
mod client_link;
mod durable;
mod envelope;
mod fence;
mod link;
mod members;
mod queue;
mod run;
mod scripts;
mod tracker;

#[cfg(test)]
mod tests;

pub use link::{LinkError, LinkEvent, LinkReply, RedisLink, RedisListener};

use super::{BoxFuture, Broker, BrokerHealth, History, HistoryQuery, Published};
use crate::config::OutageConfig;
use crate::driver::clock;
use crate::error::BrokerError;
use crate::hub::Deliveries;
use crate::namespace::ChannelOptions;
use crate::presence::Member;
use crate::publication::{Channel, Epoch, Position, Publication};
use bytes::Bytes;
use parking_lot::Mutex;
use queue::{Budget, Item, Lane};
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio::time::timeout;

/// Publish calls under way at once, for as many groups of channels.
const LANES: usize = 32;
/// Probes of one round in a cluster: each goes to the node of its name's slot, and so many miss hardly any node.
const CLUSTER_PROBES: usize = 16;
/// Start of the names of all keys.
const PREFIX: &str = "evenkeel";

/// The broker over Redis. One gateway each.
pub struct RedisBroker {
    link: Arc<dyn RedisLink>,
    outage: OutageConfig,
    prefix: String,
    lanes: Vec<Lane>,
    budget: Budget,
    wishes: Mutex<Wishes>,
    wished: Notify,
    running: AtomicBool,
    /// When the last probe that came back was sent.
    probed: Mutex<Option<Instant>>,
    /// The channels of the probes.
    probes: Vec<Channel>,
    fence: fence::Fence,
    /// Whether publications go to the node of their channel's slot only; known once Redis has said so.
    sharded: OnceCell<bool>,
}

/// The channels wanted, and what was asked since the last look.
#[derive(Default)]
struct Wishes {
    channels: HashMap<Channel, Wish>,
    changed: Vec<Channel>,
}

struct Wish {
    options: Arc<ChannelOptions>,
    ready: bool,
    came: Arc<Notify>,
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBroker").field("link", &self.link).finish_non_exhaustive()
    }
}

impl RedisBroker {
    /// Makes a broker over a link.
    pub fn new(link: Arc<dyn RedisLink>, outage: OutageConfig) -> Self {
        let name = |_| Channel::from(format!("{PREFIX}:probe:{:016x}", fastrand::u64(..)));
        let probes = (0..if link.is_cluster() { CLUSTER_PROBES } else { 1 }).map(name).collect();
        Self {
            link,
            prefix: PREFIX.to_owned(),
            lanes: (0..LANES).map(|_| Lane::default()).collect(),
            budget: Budget::new(outage.queued_publications, outage.queued_bytes),
            outage,
            wishes: Mutex::default(),
            wished: Notify::new(),
            running: AtomicBool::new(false),
            probed: Mutex::new(None),
            probes,
            fence: fence::Fence::new(),
            sharded: OnceCell::new(),
        }
    }

    /// Whether publications go to the node of their channel's slot only, which needs a cluster that knows `SPUBLISH`
    /// (Redis 7.0). Waits for a cluster that is away.
    async fn is_sharded(&self) -> bool {
        let ask = async || {
            while self.link.is_cluster() {
                let [command, empty] = [&b"SPUBLISH"[..], b""].map(Bytes::from_static);
                // A name that a user may publish on who may send probes.
                let channel = Bytes::from(format!("{PREFIX}:probe"));
                match self.link.command(vec![command, channel, empty]).await {
                    Ok(_) => return true,
                    Err(LinkError::Refused { code }) if matches!(&*code, "ERR" | "NOPERM") => {
                        tracing::warn!(%code, "the cluster takes no SPUBLISH: every node hears every publication");
                        return false;
                    }
                    Err(_another_time) => tokio::time::sleep(run::RETRY_MOST).await,
                }
            }
            false
        };
        *self.sharded.get_or_init(ask).await
    }

    /// The command that publishes on a channel.
    async fn publishes(&self, channel: &str) -> Bytes {
        let sharded = scripts::share_the_slot(channel) && self.is_sharded().await;
        Bytes::from_static(if sharded { b"SPUBLISH" } else { b"PUBLISH" })
    }

    /// The sources of the scripts that run in the server: append, publish all, read, check, presence. For servers in tests that have
    /// no Lua and know these by heart.
    pub fn scripts() -> [&'static str; 5] {
        [&scripts::APPEND, &scripts::PUBLISH_ALL, &scripts::READ, &scripts::CHECK, &members::PRESENCE]
            .map(scripts::Script::source)
    }

    fn lane(&self, channel: &Channel) -> Option<&Lane> {
        let mut hasher = DefaultHasher::new();
        channel.hash(&mut hasher);
        self.lanes.get((hasher.finish() % LANES as u64) as usize)
    }

    async fn eval(
        &self,
        script: &scripts::Script,
        keys: &[Bytes],
        args: Vec<Bytes>,
    ) -> Result<LinkReply, LinkError> {
        let count = Bytes::from(keys.len().to_string());
        let tail = || keys.iter().cloned().chain(args.iter().cloned());
        let by_digest = [Bytes::from_static(b"EVALSHA"), script.sha(), count.clone()];
        match self.link.command(by_digest.into_iter().chain(tail()).collect()).await {
            Err(LinkError::Refused { code }) if code == "NOSCRIPT" => {
                let whole = [Bytes::from_static(b"EVAL"), script.text(), count];
                self.link.command(whole.into_iter().chain(tail()).collect()).await
            }
            answer => answer,
        }
    }

    async fn read(
        &self,
        channel: &Channel,
        options: &ChannelOptions,
        query: HistoryQuery,
    ) -> Result<(envelope::Mark, Vec<(envelope::Mark, Bytes)>), BrokerError> {
        let since = query.since.unwrap_or(if query.reverse { u64::MAX } else { 0 });
        let args = vec![
            fresh_epoch(),
            scripts::meta_life(options.history_ttl),
            Bytes::from(since.to_string()),
            Bytes::from(query.limit.to_string()),
            Bytes::from_static(if query.reverse { b"1" } else { b"0" }),
        ];
        let reply = self.eval(&scripts::READ, &scripts::keys(&self.prefix, channel), args).await;
        match reply {
            Ok(reply) => scripts::read(&reply).ok_or(BrokerError::Unavailable),
            Err(_failed) => Err(BrokerError::Unavailable),
        }
    }

    /// Tells the subscribers of a channel that somebody came or left.
    async fn news(
        &self,
        channel: &Channel,
        options: &ChannelOptions,
        member: &Member,
        joined: bool,
    ) -> Result<(), BrokerError> {
        let others =
            if channel.starts_with("presence-") { members::list(self, channel).await?.0 } else { Vec::new() };
        let user = others.iter().any(|other| other.user == member.user && other.client != member.client);
        if !options.tells(channel, user) {
            return Ok(());
        }
        let args = vec![self.publishes(channel).await, bytes_of(channel), envelope::presence(member, joined)];
        self.link.command(args).await.map(drop).map_err(|_failed| BrokerError::Unavailable)
    }

    /// Queues a publication behind those of its channel, and waits for its end as long as a publisher waits.
    async fn queue(
        &self,
        channel: &Channel,
        data: Bytes,
        options: &Arc<ChannelOptions>,
        nonce: u64,
    ) -> Result<Published, BrokerError> {
        let lane = self.lane(channel).ok_or(BrokerError::Unavailable)?;
        let (answer, mut answered) = oneshot::channel();
        let item = Item { channel: channel.clone(), options: options.clone(), data, nonce, answer };
        lane.push(item, &self.budget)?;
        match timeout(self.outage.answer_within, &mut answered).await {
            Ok(Ok(result)) => result,
            // The lane is gone with the gateway.
            Ok(Err(_)) => Err(BrokerError::Unknown),
            Err(_elapsed) => {
                answered.close();
                answered.try_recv().unwrap_or(Ok(Published::Accepted))
            }
        }
    }

    /// Marks a channel as delivered from, and wakes who waits for it.
    fn mark_ready(&self, channel: &Channel) {
        if let Some(wish) = self.wishes.lock().channels.get_mut(channel) {
            wish.ready = true;
            wish.came.notify_waiters();
        }
    }
}

/// 63 bits, so that it is a number for everybody.
fn fresh_nonce() -> u64 {
    fastrand::u64(1..1 << 63)
}

fn bytes_of(channel: &Channel) -> Bytes {
    Bytes::copy_from_slice(channel.as_bytes())
}

fn fresh_epoch() -> Bytes {
    Bytes::from(format!("{:016x}", fastrand::u64(..)))
}

impl Broker for RedisBroker {
    fn run(self: Arc<Self>, deliveries: Deliveries) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if self.running.swap(true, Ordering::AcqRel) {
                tracing::error!("a Redis broker serves one gateway; a second one hears nothing through it");
                return;
            }
            run::run(self, deliveries).await;
        })
    }

    fn want(&self, channel: &Channel, options: &Arc<ChannelOptions>) {
        let mut wishes = self.wishes.lock();
        let wish = Wish { options: options.clone(), ready: false, came: Arc::default() };
        wishes.channels.insert(channel.clone(), wish);
        wishes.changed.push(channel.clone());
        drop(wishes);
        self.wished.notify_one();
    }

    fn unwant(&self, channel: &Channel) {
        let mut wishes = self.wishes.lock();
        if wishes.channels.remove(channel).is_some() {
            wishes.changed.push(channel.clone());
        }
        drop(wishes);
        self.wished.notify_one();
    }

    fn ready<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            loop {
                let came = {
                    let wishes = self.wishes.lock();
                    let wish = wishes.channels.get(channel).ok_or(BrokerError::Unavailable)?;
                    if wish.ready {
                        return Ok(());
                    }
                    wish.came.clone()
                };
                let came = came.notified();
                let mut came = std::pin::pin!(came);
                came.as_mut().enable();
                // It may have come between the look and the enabling.
                if self.wishes.lock().channels.get(channel).is_some_and(|wish| wish.ready) {
                    return Ok(());
                }
                came.await;
            }
        })
    }

    fn publish<'a>(
        &'a self,
        channel: &'a Channel,
        data: Bytes,
        options: &'a Arc<ChannelOptions>,
    ) -> BoxFuture<'a, Result<Published, BrokerError>> {
        Box::pin(self.queue(channel, data, options, fresh_nonce()))
    }

    fn publish_durably<'a>(
        &'a self,
        channel: &'a Channel,
        data: Bytes,
        options: &'a Arc<ChannelOptions>,
        (replicas, within): (u32, Duration),
    ) -> BoxFuture<'a, Result<(Published, u32), BrokerError>> {
        Box::pin(async move {
            if !options.keeps_history() {
                return Err(BrokerError::Unsupported);
            }
            let nonce = fresh_nonce();
            let published = self.queue(channel, data, options, nonce).await?;
            let copies = match &published {
                Published::Delivered(Some(at)) => {
                    durable::copies(self, (channel, options), (at, nonce), replicas, within).await
                }
                Published::Accepted | Published::Delivered(None) => 0,
            };
            Ok((published, copies))
        })
    }

    fn history<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        query: HistoryQuery,
    ) -> BoxFuture<'a, Result<History, BrokerError>> {
        Box::pin(async move {
            let (top, entries) = self.read(channel, options, query).await?;
            let missed = top.offset.saturating_sub(query.since.unwrap_or(0));
            let publications: Vec<_> = entries
                .into_iter()
                .map(|(mark, data)| {
                    let at = Position { epoch: mark.epoch, offset: mark.offset };
                    Publication::new(channel.clone(), data, Some(at))
                })
                .collect();
            let complete = publications.len() as u64 == missed;
            Ok(History { top: Position { epoch: top.epoch, offset: top.offset }, publications, complete })
        })
    }

    fn enter<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        new: &'a [Arc<Member>],
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let (fresh, ended) = members::add(self, channel, new).await?;
            for member in &fresh {
                self.news(channel, options, member, true).await?;
            }
            for member in &ended {
                self.news(channel, options, member, false).await?;
            }
            Ok(())
        })
    }

    fn leave<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        client: &'a str,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            for member in members::remove(self, channel, client).await? {
                self.news(channel, options, &member, false).await?;
            }
            Ok(())
        })
    }

    fn members<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Vec<Member>, BrokerError>> {
        Box::pin(async move {
            let (there, ended) = members::list(self, channel).await?;
            let options = self.wishes.lock().channels.get(channel).map(|wish| wish.options.clone());
            if let Some(options) = options {
                for member in &ended {
                    self.news(channel, &options, member, false).await?;
                }
            }
            Ok(there)
        })
    }

    fn forget<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let [stream, hash] = scripts::keys(&self.prefix, channel);
            let args = vec![Bytes::from_static(b"DEL"), stream, hash];
            self.link.command(args).await.map(drop).map_err(|_failed| BrokerError::Unavailable)
        })
    }

    fn once<'a>(&'a self, key: &'a str, life: Duration) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(async move {
            let key = Bytes::from(format!("{}:i:{key}", self.prefix));
            let [set, one, nx, px] = [&b"SET"[..], b"1", b"NX", b"PX"].map(Bytes::from_static);
            match self.link.command(vec![set, key, one, nx, px, scripts::millis(life)]).await {
                Ok(reply) => Ok(reply != LinkReply::Nil),
                Err(_failed) => Err(BrokerError::Unavailable),
            }
        })
    }

    fn tell(&self, word: Bytes) -> BoxFuture<'_, Result<(), BrokerError>> {
        let args = vec![Bytes::from_static(b"PUBLISH"), Bytes::from_static(fence::CHANNEL.as_bytes()), word];
        Box::pin(async move {
            self.link.command(args).await.map(drop).map_err(|_failed| BrokerError::Unavailable)
        })
    }

    fn health(&self) -> BrokerHealth {
        let probe_age = self.probed.lock().map(|sent| clock::now().saturating_duration_since(sent));
        BrokerHealth { probe_age, waiting: self.budget.waiting() }
    }
}

/// The position of a publication that the stream has.
fn position(epoch: &str, offset: u64) -> Published {
    Published::Delivered(Some(Position { epoch: Epoch::from(epoch), offset }))
}
