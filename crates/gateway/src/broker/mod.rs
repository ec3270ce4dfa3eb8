//! Brokers: what carries publications from publishers to every gateway that has subscribers, and keeps history.

mod memory;
pub mod redis;

pub use memory::MemoryBroker;
pub use redis::RedisBroker;

use crate::error::BrokerError;
use crate::hub::Deliveries;
use crate::namespace::ChannelOptions;
use crate::presence::Member;
use crate::publication::{Channel, Position, Publication};
use bytes::Bytes;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use crate::presence::LIFE as PRESENCE_LIFE;

/// A boxed future, so that brokers can be chosen at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries publications between publishers and gateways.
///
/// What a broker delivers on one channel, it delivers in the order of the offsets; a hole in them makes the hub
/// send subscribers back for their history.
pub trait Broker: Send + Sync + fmt::Debug + 'static {
    /// Runs the broker's own work for one gateway until dropped, and delivers through `deliveries`.
    ///
    /// # Cancel safety
    /// Dropping the future ends the deliveries to that gateway and nothing else.
    fn run(self: Arc<Self>, deliveries: Deliveries) -> BoxFuture<'static, ()>;

    /// Starts to deliver a channel. Never waits: the wanted channels are a set that the broker brings about.
    fn want(&self, channel: &Channel, options: &Arc<ChannelOptions>);

    /// Stops delivering a channel.
    fn unwant(&self, channel: &Channel);

    /// Waits until a wanted channel is delivered from.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when that is not soon.
    ///
    /// # Cancel safety
    /// Safe: nothing changes when it is dropped.
    fn ready<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Publishes JSON text without line breaks.
    ///
    /// # Errors
    /// [`BrokerError::Full`] and [`BrokerError::Unavailable`] mean that nothing was published;
    /// [`BrokerError::Unknown`] that nobody knows.
    ///
    /// # Cancel safety
    /// When dropped the publication may or may not be published.
    fn publish<'a>(
        &'a self,
        channel: &'a Channel,
        data: Bytes,
        options: &'a Arc<ChannelOptions>,
    ) -> BoxFuture<'a, Result<Published, BrokerError>>;

    /// Publishes as [`publish`](Self::publish) does, and then waits at most `within` until `replicas` replicas have the
    /// publication; gives how many certainly do, which may be fewer. Default: unsupported.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); [`BrokerError::Unsupported`], with nothing published, on a channel that keeps no
    /// history: there is nothing that a replica could have.
    ///
    /// # Cancel safety
    /// When dropped the publication may or may not be published.
    fn publish_durably<'a>(
        &'a self,
        _channel: &'a Channel,
        _data: Bytes,
        _options: &'a Arc<ChannelOptions>,
        (_replicas, _within): (u32, Duration),
    ) -> BoxFuture<'a, Result<(Published, u32), BrokerError>> {
        Box::pin(std::future::ready(Err(BrokerError::Unsupported)))
    }

    /// Reads the history of a channel. A channel that never had one gets an epoch by this.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when it cannot be read now.
    ///
    /// # Cancel safety
    /// Safe: nothing changes when it is dropped but for a fresh channel's epoch.
    fn history<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        query: HistoryQuery,
    ) -> BoxFuture<'a, Result<History, BrokerError>>;

    /// Says that these sessions are on a channel, and stay until [`leave`](Self::leave) or until nothing is said of
    /// them for [`PRESENCE_LIFE`]. Subscribers hear of those who are new. Default: unsupported.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when nobody could be told.
    ///
    /// # Cancel safety
    /// When dropped they may or may not be there.
    fn enter<'a>(
        &'a self,
        _channel: &'a Channel,
        _options: &'a Arc<ChannelOptions>,
        _members: &'a [Arc<Member>],
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Err(BrokerError::Unsupported)))
    }

    /// Says that a session has left a channel. Default: unsupported.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when nobody could be told; it ends by itself then.
    ///
    /// # Cancel safety
    /// When dropped it may still be there.
    fn leave<'a>(
        &'a self,
        _channel: &'a Channel,
        _options: &'a Arc<ChannelOptions>,
        _client: &'a str,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Err(BrokerError::Unsupported)))
    }

    /// Who is on a channel, by client. Default: unsupported.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when that cannot be read now.
    ///
    /// # Cancel safety
    /// Safe.
    fn members<'a>(&'a self, _channel: &'a Channel) -> BoxFuture<'a, Result<Vec<Member>, BrokerError>> {
        Box::pin(std::future::ready(Err(BrokerError::Unsupported)))
    }

    /// Forgets the history of a channel; its next publication begins a new epoch. Default: unsupported.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when it cannot be done now.
    ///
    /// # Cancel safety
    /// When dropped it may or may not be done.
    fn forget<'a>(&'a self, _channel: &'a Channel) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Err(BrokerError::Unsupported)))
    }

    /// Takes a key that counts once within `life`: false when it was taken already. Default: unsupported.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when that cannot be told now.
    ///
    /// # Cancel safety
    /// When dropped the key may be taken.
    fn once<'a>(&'a self, _key: &'a str, _life: Duration) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(std::future::ready(Err(BrokerError::Unsupported)))
    }

    /// Gives every gateway on the broker a word of the server API. Default: unsupported.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when it cannot be sent now.
    ///
    /// # Cancel safety
    /// When dropped it may or may not be sent.
    fn tell(&self, _word: Bytes) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Err(BrokerError::Unsupported)))
    }

    /// How the broker is.
    fn health(&self) -> BrokerHealth;
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Published {
    /// It waits in order for the broker to come back.
    Accepted,
    /// The broker has it; with its place in the history on channels that keep one.
    Delivered(Option<Position>),
}

/// What to read of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only what follows this offset (or, in reverse, what precedes it).
    pub since: Option<u64>,
    /// At most this many; 0 gives the position alone.
    pub limit: usize,
    /// The newest first.
    pub reverse: bool,
}

/// A piece of a channel's history.
#[derive(Clone, Debug)]
pub struct History {
    /// Epoch and offset of the newest publication.
    pub top: Position,
    /// The publications asked for.
    pub publications: Vec<Arc<Publication>>,
    /// Whether nothing is missing between what was asked for and `publications`, nor after them.
    pub complete: bool,
}

impl History {
    /// Whether a client that saw `since` misses nothing when it is given these publications.
    pub(crate) fn continues(&self, since: &Position) -> bool {
        self.top.epoch == since.epoch && since.offset <= self.top.offset && self.complete
    }
}

/// How a broker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerHealth {
    /// How long ago a probe last went the whole way of a publication; `None` before the first.
    pub probe_age: Option<Duration>,
    /// Publications that wait for the broker.
    pub waiting: usize,
}
