//! What the proxy does to the bytes of one direction.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::handle::ConnectionId;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two directions")]
pub enum Direction {
    /// From the server to the client: replies and pushes.
    ToClient,
    /// From the client to the server: commands.
    ToServer,
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CutHow {
    /// Both sides see an orderly end (FIN).
    #[default]
    Close,
    /// Both sides see a reset (RST), as when a machine has forgotten the connection.
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) after: u64,
    pub(super) how: CutHow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delay {
    pub(super) base: Duration,
    pub(super) jitter: Duration,
}

type Edit = Arc<dyn Fn(ConnectionId, &mut BytesMut) + Send + Sync>;

/// What is done to the bytes of one direction. The default lets everything through at once.
///
/// Steps are taken in this order: edit, rewrite, lose, delay, stall, slice, cut.
#[derive(Clone, Default)]
pub struct Rules {
    pub(super) delay: Delay,
    pub(super) slice: Option<usize>,
    pub(super) cut: Option<Cut>,
    pub(super) is_stalled: bool,
    pub(super) is_lost: bool,
    pub(super) rewrites: Vec<(Bytes, Bytes)>,
    pub(super) edit: Option<Edit>,
}

impl Rules {
    /// Returns rules that let everything through.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Delivers every byte this much later, in order; throughput is not limited. Default: at once.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay.base = delay;
        self
    }

    /// Adds a random time, uniform up to `jitter`, to the delay of each chunk; order is kept. Default: none.
    ///
    /// The times are drawn from the proxy's seed and the connection's id, so they repeat.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.delay.jitter = jitter;
        self
    }

    /// Writes at most `bytes` bytes at a time, each a segment of its own as far as the kernel allows. Default: whole.
    ///
    /// 0 is taken as 1.
    #[must_use]
    pub fn slice(mut self, bytes: usize) -> Self {
        self.slice = Some(bytes.max(1));
        self
    }

    /// Closes the connection once `bytes` more bytes have gone this way, counted from the moment these rules are set or
    /// the connection opens. Default: never.
    #[must_use]
    pub fn cut_after(self, bytes: u64) -> Self {
        self.cut_after_by(bytes, CutHow::Close)
    }

    /// Cuts the connection as [`cut_after`](Self::cut_after) does, in the way given.
    #[must_use]
    pub fn cut_after_by(mut self, bytes: u64, how: CutHow) -> Self {
        self.cut = Some(Cut { after: bytes, how });
        self
    }

    /// Holds all bytes back until rules without a stall are set. Default: no.
    ///
    /// About 1 MiB is held; then the sender feels it.
    #[must_use]
    pub fn stall(mut self) -> Self {
        self.is_stalled = true;
        self
    }

    /// Takes all bytes and delivers none, nor the end of the stream, as a network that lost the route. Default: no.
    #[must_use]
    pub fn blackhole(mut self) -> Self {
        self.is_lost = true;
        self
    }

    /// Puts `to` wherever `from` appears, also across chunks. May be given more than once; empty `from` is ignored.
    ///
    /// The end of a chunk that could be the beginning of `from` waits for the next chunk.
    #[must_use]
    pub fn rewrite(mut self, from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        let from = from.into();
        if !from.is_empty() {
            self.rewrites.push((from, to.into()));
        }
        self
    }

    /// Lets `edit` look at and change each chunk as it was read. Default: none.
    ///
    /// Chunks end anywhere. `edit` must not block.
    #[must_use]
    pub fn edit(mut self, edit: impl Fn(ConnectionId, &mut BytesMut) + Send + Sync + 'static) -> Self {
        self.edit = Some(Arc::new(edit));
        self
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("delay", &self.delay)
            .field("slice", &self.slice)
            .field("cut", &self.cut)
            .field("is_stalled", &self.is_stalled)
            .field("is_lost", &self.is_lost)
            .field("rewrites", &self.rewrites.len())
            .field("edit", &self.edit.is_some())
            .finish()
    }
}
