//! What the server knows of one connection. The session task owns the socket; this part lives beside the data.

use std::{borrow::Cow, collections::BTreeSet, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use super::{
    data::StreamId,
    maintenance::EndpointType,
    out::{Out, Proto},
    request::OwnedArgs,
    tracking::Tracking,
};

/// The place of a connection in the engine's slab; used again when the connection has gone.
pub(super) type ConnKey = usize;

/// A transaction that is being queued.
#[derive(Debug, Default)]
pub(super) struct Multi {
    pub(super) queue: Vec<OwnedArgs>,
    /// A command was refused while queueing: EXEC discards.
    pub(super) refused: bool,
}

/// What `CLIENT REPLY` asked for.
///
/// ```text
/// On -SKIP-> SkipNext -(end of that command)-> Skip -(end of the next)-> On
/// On <-ON/OFF-> Off
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ReplyMode {
    Off,
    #[default]
    On,
    Skip,
    SkipNext,
}

/// Which end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Left,
    Right,
}

/// What a blocked connection waits for.
#[derive(Clone, Debug)]
pub(super) enum Wait {
    /// BLMOVE and BRPOPLPUSH.
    Move { source: Bytes, target: Bytes, from: End, to: End },
    /// BLPOP and BRPOP.
    Pop { keys: Vec<Bytes>, end: End },
    /// XREAD BLOCK.
    Read { streams: Vec<(Bytes, StreamId)>, count: Option<usize> },
    /// WAIT, which nothing but time ends here: there are no replicas.
    Replicas,
    /// DEBUG SLEEP.
    Sleep,
}

impl Wait {
    pub(super) fn keys(&self) -> Vec<Bytes> {
        match self {
            Self::Move { source, .. } => vec![source.clone()],
            Self::Pop { keys, .. } => keys.clone(),
            Self::Read { streams, .. } => streams.iter().map(|(key, _)| key.clone()).collect(),
            Self::Replicas | Self::Sleep => Vec::new(),
        }
    }

    /// Writes what the command answers when its time is over.
    pub(super) fn time_out(&self, out: &mut Out) {
        match self {
            Self::Move { .. } => out.null(),
            Self::Pop { .. } | Self::Read { .. } => out.null_array(),
            Self::Replicas => out.integer(0),
            Self::Sleep => out.ok(),
        }
    }
}

/// A command that waits, and until when.
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    pub(super) db: usize,
    pub(super) wait: Wait,
    pub(super) until: Option<Instant>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// What has been answered goes out first, as far as the socket takes it.
    Flush,
    /// At once; answers not yet written are lost.
    Now,
}

/// One connection, as commands see it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: u64,
    /// The endpoint that it belongs to.
    pub(super) address: usize,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) user: Option<String>,
    pub(super) db: usize,
    pub(super) name: String,
    pub(super) library: String,
    pub(super) library_version: String,
    pub(super) channels: BTreeSet<Bytes>,
    pub(super) patterns: BTreeSet<Bytes>,
    pub(super) shard_channels: BTreeSet<Bytes>,
    pub(super) multi: Option<Multi>,
    pub(super) watched: Vec<(usize, Bytes)>,
    pub(super) watch_broken: bool,
    pub(super) tracking: Option<Tracking>,
    pub(super) reply: ReplyMode,
    pub(super) blocked: Option<Blocked>,
    /// One-shot: the next command may touch an importing slot.
    pub(super) asking: bool,
    pub(super) read_only: bool,
    pub(super) no_evict: bool,
    /// What was asked for with `CLIENT MAINT_NOTIFICATIONS ON`; nothing when the connection did not opt in.
    pub(super) maintenance: Option<EndpointType>,
    /// It was told that its endpoint moves.
    pub(super) announced: bool,
    pub(super) closing: Option<Closing>,
    pub(super) commands: u64,
    pub(super) commands_after_announcement: u64,
    pub(super) accepted: Instant,
    pub(super) last_used: Instant,
    pub(super) last_command: Cow<'static, str>,
    /// Pushes and late replies; the session moves them out, behind the reply of the command that runs.
    pub(super) inbox: Out,
    /// Tells the session that something waits for it.
    pub(super) wake: Arc<Notify>,
}

impl Conn {
    pub(super) fn new(
        id: u64,
        address: usize,
        (peer, local): (SocketAddr, SocketAddr),
        user: Option<String>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            address,
            peer,
            local,
            user,
            db: 0,
            name: String::new(),
            library: String::new(),
            library_version: String::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            shard_channels: BTreeSet::new(),
            multi: None,
            watched: Vec::new(),
            watch_broken: false,
            tracking: None,
            reply: ReplyMode::On,
            blocked: None,
            asking: false,
            read_only: false,
            no_evict: false,
            maintenance: None,
            announced: false,
            closing: None,
            commands: 0,
            commands_after_announcement: 0,
            accepted: now,
            last_used: now,
            last_command: Cow::Borrowed("NULL"),
            inbox: Out::new(Proto::Resp2),
            wake: Arc::default(),
        }
    }

    pub(super) fn proto(&self) -> Proto {
        self.inbox.proto
    }

    /// Channels and patterns, as SUBSCRIBE counts them.
    pub(super) fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    pub(super) fn is_subscriber(&self) -> bool {
        self.subscriptions() + self.shard_channels.len() > 0
    }
}
