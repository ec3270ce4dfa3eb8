//! What the Redis broker needs of a Redis client: commands, and one subscription that heals itself.
//!
//! The broker is written against these two traits, so that it can be tried over a simulated server as well as
//! over the real client.

use crate::broker::BoxFuture;
use crate::publication::Channel;
use bytes::Bytes;
use std::fmt;
use std::time::Duration;

/// A reply, as far as the broker's commands need it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkReply {
    /// Several replies.
    Array(Vec<Self>),
    /// A string of any kind.
    Bytes(Bytes),
    /// A number.
    Integer(i64),
    /// Nothing.
    Nil,
}

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The server certainly did not run it, and may another time.
    #[error("the command was not run")]
    NotRun,
    /// The server refused it, and will again.
    #[error("the server refused the command: {code}")]
    Refused {
        /// The first word of the server's error.
        code: String,
    },
    /// Nobody knows whether the server ran it.
    #[error("nobody knows whether the command was run")]
    Unknown,
}

/// What a subscription reports, in the order in which it happened.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkEvent {
    /// Messages may have been missed before this point: on one channel, or (`None`) on all. Comes after the
    /// subscription stands again.
    Gap(Option<Channel>),
    /// A message.
    Message {
        /// The channel.
        channel: Channel,
        /// The payload.
        payload: Bytes,
    },
    /// The server has confirmed a subscription that was asked for.
    Subscribed(Channel),
}

impl fmt::Debug for LinkEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap(channel) => f.debug_tuple("Gap").field(channel).finish(),
            Self::Message { channel, payload } => {
                f.debug_struct("Message").field("channel", channel).field("bytes", &payload.len()).finish()
            }
            Self::Subscribed(channel) => f.debug_tuple("Subscribed").field(channel).finish(),
        }
    }
}

/// A way to a Redis of any topology.
pub trait RedisLink: Send + Sync + fmt::Debug + 'static {
    /// Runs one command; `args` begins with its name. Its keys stand where Redis has them for that command.
    ///
    /// # Cancel safety
    /// When dropped the command may or may not have run.
    fn command(&self, args: Vec<Bytes>) -> BoxFuture<'_, Result<LinkReply, LinkError>>;

    /// Runs one command that writes, and on the same connection waits at most `within` until `replicas` have what it
    /// wrote; gives its reply and how many have it. Default: refused.
    ///
    /// # Cancel safety
    /// As for a command.
    fn command_and_wait(
        &self,
        _args: Vec<Bytes>,
        _replicas: u32,
        _within: Duration,
    ) -> BoxFuture<'_, Result<(LinkReply, u32), LinkError>> {
        Box::pin(std::future::ready(Err(LinkError::Refused { code: "ERR".to_owned() })))
    }

    /// Opens a subscription. It mends itself through everything, and reports each gap.
    ///
    /// With `sharded` every channel is subscribed to in both ways, at the node of its slot for what is published with
    /// `SPUBLISH`, and for plain `PUBLISH`, which every node of a cluster hears.
    ///
    /// # Errors
    /// As for a command; the broker asks again.
    ///
    /// # Cancel safety
    /// Safe: nothing stays behind.
    fn listen(&self, sharded: bool) -> BoxFuture<'_, Result<Box<dyn RedisListener>, LinkError>>;

    /// Whether a node knows its own subscribers only. Default: false.
    fn is_cluster(&self) -> bool {
        false
    }
}

/// A subscription that mends itself.
pub trait RedisListener: Send + fmt::Debug {
    /// Subscribes to more channels; [`LinkEvent::Subscribed`] follows for each. Waits for no server.
    fn subscribe(&mut self, channels: Vec<Channel>);

    /// Leaves channels. Waits for no server.
    fn unsubscribe(&mut self, channels: Vec<Channel>);

    /// Waits for events and appends all that have come; false when there will never be any more.
    ///
    /// # Cancel safety
    /// Safe: what is not appended stays.
    fn next<'a>(&'a mut self, events: &'a mut Vec<LinkEvent>) -> BoxFuture<'a, bool>;

    /// Drops the connection beneath and makes a new one: it does not deliver although it seems alive.
    fn renew(&mut self);
}
