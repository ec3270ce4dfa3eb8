//! The hub: shards of sessions, and which channels are wanted from the broker.
//!
//! Each session belongs to one shard, and each shard to one task, so nothing on the way of a publication takes a
//! lock that another shard's traffic can hold. Everything that happens to a shard comes through one bounded
//! queue, which is what orders subscriptions, activations and publications.

pub(crate) mod interest;
pub(crate) mod shard;

use crate::broker::Broker;
use crate::driver::conn::Conn;
use crate::metrics::Metrics;
use crate::namespace::ChannelOptions;
use crate::publication::{Channel, Epoch, Publication};
use crate::wire::Farewell;
use bytes::Bytes;
use interest::Interest;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Commands that wait for one shard. Publishers wait for room; sessions never make it wait.
pub(crate) const SHARD_QUEUE: usize = 1_024;
/// Seconds that a channel stays wanted after its last subscriber has left.
const LINGER: u64 = 5;

/// What a shard is told.
#[derive(Debug)]
pub(crate) enum Command {
    Activate { conn: Arc<Conn>, channel: Channel, serial: u32, at: Option<(Epoch, u64)> },
    Attach(Arc<Conn>),
    Detach(Arc<Conn>),
    Disconnect { who: Who, why: Farewell },
    Expel { channel: Channel, who: Who },
    Gap(Channel),
    NewEpoch(Channel, Epoch),
    Order { who: Who, order: Order },
    Publish(Arc<Publication>),
    Subscribe { conn: Arc<Conn>, channel: Channel, serial: u32 },
    Unsubscribe { conn: Arc<Conn>, channel: Channel },
}

/// What the server API asks of every gateway.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    Disconnect { who: Who },
    Expire { who: Who },
    Order { who: Who, order: Order },
    Unsubscribe { channel: Channel, who: Who },
}

impl Word {
    pub(crate) fn write(&self) -> Bytes {
        // Strings always serialize.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }

    fn read(word: &[u8]) -> Option<Self> {
        serde_json::from_slice(word).ok()
    }

    fn command(&self) -> Command {
        match self {
            Self::Disconnect { who } => Command::Disconnect { who: who.clone(), why: Farewell::Disconnected },
            Self::Expire { who } => Command::Disconnect { who: who.clone(), why: Farewell::Expired },
            Self::Order { who, order } => Command::Order { who: who.clone(), order: order.clone() },
            Self::Unsubscribe { channel, who } => {
                Command::Expel { channel: channel.clone(), who: who.clone() }
            }
        }
    }
}

/// What the server API has a session do by itself, between its client's requests.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// The client's permission ends at this time, in seconds since 1970; never for 0.
    Refresh { expires: u64 },
    /// See to what ends now: the client's permission, and those for its channels.
    #[serde(skip)]
    Renew,
    /// Subscribe the client to a channel, whatever its options say.
    Subscribe { channel: Channel },
}

/// Whom the server API means.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Who {
    Client(Box<str>),
    User(Box<str>),
}

/// The hub of one gateway.
pub(crate) struct Hub {
    shards: Arc<[mpsc::Sender<Command>]>,
    interest: Mutex<(Interest, u64)>,
    broker: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(
        shards: Arc<[mpsc::Sender<Command>]>,
        broker: Arc<dyn Broker>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { shards, interest: Mutex::default(), broker, metrics }
    }

    pub(crate) fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    pub(crate) fn deliveries(&self) -> Deliveries {
        Deliveries { shards: self.shards.clone(), metrics: self.metrics.clone() }
    }

    /// Tells the shard of a session something; waits while its queue is full.
    pub(crate) async fn tell(&self, shard: usize, command: Command) {
        if let Some(shard) = self.shards.get(shard) {
            // A shard that is gone means a gateway that is gone: the session ends by itself.
            drop(shard.send(command).await);
        }
    }

    /// Counts a subscriber in; the first of a channel makes the broker deliver it.
    pub(crate) fn acquire(&self, channel: &Channel, options: &Arc<ChannelOptions>) {
        let mut interest = self.interest.lock();
        if interest.0.acquire(channel) {
            // Under the lock, so that the broker sees wishes in the order in which they were made.
            self.broker.want(channel, options);
        }
    }

    /// Counts a subscriber out.
    pub(crate) fn release(&self, channel: &Channel) {
        let mut interest = self.interest.lock();
        let tick = interest.1;
        interest.0.release(channel, tick);
    }

    /// Once a second: gives up channels that nobody hears any more.
    pub(crate) fn tick(&self) {
        let mut interest = self.interest.lock();
        interest.1 += 1;
        let until = interest.1.saturating_sub(LINGER);
        while let Some(channel) = interest.0.pop_left(until) {
            self.broker.unwant(&channel);
        }
    }

    /// Channels with subscribers here, with their counts.
    pub(crate) fn channels(&self) -> Vec<(Channel, usize)> {
        self.interest.lock().0.channels()
    }

    /// Channels wanted from the broker.
    pub(crate) fn wanted(&self) -> usize {
        self.interest.lock().0.wanted()
    }

    /// Waits of commands in the fullest shard queue.
    pub(crate) fn backlog(&self) -> usize {
        self.shards.iter().map(|shard| SHARD_QUEUE - shard.capacity()).max().unwrap_or(0)
    }
}

/// Where a broker delivers to: all shards of one gateway.
#[derive(Clone)]
pub struct Deliveries {
    shards: Arc<[mpsc::Sender<Command>]>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").finish_non_exhaustive()
    }
}

impl Deliveries {
    /// Waits for room for one delivery; `None` when the gateway is gone.
    ///
    /// # Cancel safety
    /// Safe: room that was found is given back.
    pub async fn reserve(&self) -> Option<Reservation<'_>> {
        let mut permits = Vec::with_capacity(self.shards.len());
        for shard in &*self.shards {
            permits.push(shard.reserve().await.ok()?);
        }
        Some(Reservation { permits, metrics: &self.metrics })
    }

    /// Whether the gateway is gone.
    pub fn is_closed(&self) -> bool {
        self.shards.iter().all(mpsc::Sender::is_closed)
    }
}

/// Room for one delivery.
#[must_use]
pub struct Reservation<'a> {
    permits: Vec<mpsc::Permit<'a, Command>>,
    metrics: &'a Metrics,
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").finish_non_exhaustive()
    }
}

impl Reservation<'_> {
    /// Delivers a publication to all subscribers of its channel.
    pub fn publication(self, publication: &Arc<Publication>) {
        Metrics::count(&self.metrics.publications_in);
        for permit in self.permits {
            permit.send(Command::Publish(publication.clone()));
        }
    }

    /// Gives a word of the server API, as [`Broker::tell`] took it.
    pub fn word(self, word: &Bytes) {
        let Some(word) = Word::read(word) else { return };
        for permit in self.permits {
            permit.send(word.command());
        }
    }

    /// Says that the history of a channel has a new epoch: subscribers of the old one come again.
    pub fn new_epoch(self, channel: &Channel, epoch: &Epoch) {
        for permit in self.permits {
            permit.send(Command::NewEpoch(channel.clone(), epoch.clone()));
        }
    }

    /// Says that publications on a channel may have been missed and cannot be read again: every subscriber is
    /// told, by a subscription that ends and begins anew.
    pub fn gap(self, channel: &Channel) {
        for permit in self.permits {
            permit.send(Command::Gap(channel.clone()));
        }
    }
}
