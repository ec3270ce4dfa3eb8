//! `LinkSettings`: how a link machine decides.

use std::{sync::Arc, time::Duration};

/// What links publish their markers under, unless told otherwise.
pub const CUT_CHANNEL: &str = "__evenkeel:cut:";

/// How a link machine decides.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    pub(super) cut_channel: Option<Arc<str>>,
    pub(super) cut_timeout: Duration,
    pub(super) ping_after: Duration,
    pub(super) suspect_after: Duration,
    pub(super) answer_timeout: Duration,
    pub(super) hold_messages: usize,
    pub(super) hold_bytes: usize,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            cut_channel: Some(CUT_CHANNEL.into()),
            cut_timeout: Duration::from_secs(1),
            ping_after: Duration::from_secs(10),
            suspect_after: Duration::from_secs(1),
            answer_timeout: Duration::from_secs(10),
            hold_messages: 65_536,
            hold_bytes: 8 << 20,
        }
    }
}

impl LinkSettings {
    /// The front of the channels that markers are published on; `None` makes no exact cut. Default: `__evenkeel:cut:`.
    ///
    /// Users of an ACL need `&__evenkeel:cut:*` and PUBLISH; without them moves end with a gap.
    #[must_use]
    pub fn cut_channel(mut self, front: Option<&str>) -> Self {
        self.cut_channel = front.map(Into::into);
        self
    }

    /// How long the exact cut may take once the new connection stands. Default: 1 s; the move's deadline counts too.
    #[must_use]
    pub fn cut_timeout(mut self, timeout: Duration) -> Self {
        self.cut_timeout = timeout;
        self
    }

    /// A PING follows so long a silence. Default: 10 s. Shorter notices a dead peer sooner and costs a packet each time.
    #[must_use]
    pub fn ping_after(mut self, after: Duration) -> Self {
        self.ping_after = after;
        self
    }

    /// A peer that owes an answer and sends nothing for so long is suspect, and probed. Default: 1 s.
    #[must_use]
    pub fn suspect_after(mut self, after: Duration) -> Self {
        self.suspect_after = after;
        self
    }

    /// A peer that owes an answer and sends nothing for so long is given up. Default: 10 s.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// What waits for the old connection during a cut, at most; beyond it the new one takes over with a gap.
    /// Default: 65 536 messages, 8 MiB.
    #[must_use]
    pub fn hold(mut self, messages: usize, bytes: usize) -> Self {
        self.hold_messages = messages;
        self.hold_bytes = bytes;
        self
    }
}

/// What a new connection's handshake told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// RESP3: a connection with subscriptions may publish.
    pub resp3: bool,
    /// A node of a cluster: others may publish on any node, so that no one orders the messages.
    pub cluster: bool,
}
