//! What a lane makes of a peer that owes replies and says nothing.

use std::time::{Duration, Instant};

use super::DialId;

/// A peer that takes longer for the handshake of a new connection does not listen either.
const ANSWERS_WITHIN: Duration = Duration::from_millis(50);
/// Between two questions to a peer that stays silent.
const AGAIN: Duration = Duration::from_millis(100);

/// ```text
///  Heard -- silent --> Asked -- the probe is answered --> Listens -- still silent --> Asked
///                        | not in time                       ^
///                        v                                   |
///                       Mute -------- answered late ---------+
/// ```
/// Whatever is heard on the connection itself, or its end, leads back to Heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trust {
    #[default]
    Heard,
    Asked {
        mute_at: Instant,
    },
    Listens,
    Mute,
}

#[derive(Debug, Default)]
pub(super) struct Silence {
    trust: Trust,
    /// A second connection that asks whether anybody still listens.
    probe: Option<DialId>,
    /// The last one has ended; the next one comes then at the earliest.
    again: Option<Instant>,
}

impl Silence {
    pub(super) fn is_suspect(&self) -> bool {
        self.trust != Trust::Heard
    }

    pub(super) fn is_mute(&self) -> bool {
        self.trust == Trust::Mute
    }

    /// The peer owes replies and says nothing; gives whether that is news. A probe under way since before will do.
    pub(super) fn silent(&mut self, now: Instant) -> bool {
        let is_news = !self.is_suspect();
        if is_news {
            self.trust = Trust::Asked { mute_at: now + ANSWERS_WITHIN };
        }
        is_news
    }

    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        self.probe.is_none() && self.again.is_none_or(|again| now >= again)
    }

    pub(super) fn asked(&mut self, now: Instant, probe: DialId) {
        self.probe = Some(probe);
        if self.trust == Trust::Listens {
            self.trust = Trust::Asked { mute_at: now + ANSWERS_WITHIN };
        }
    }

    pub(super) fn is_probe(&self, dial: DialId) -> bool {
        self.probe == Some(dial)
    }

    /// Somebody listens: the server is slow, not gone.
    pub(super) fn answered(&mut self, now: Instant) {
        self.failed(now);
        if self.is_suspect() {
            self.trust = Trust::Listens;
        }
    }

    /// The probe came to nothing; how long it took says the rest.
    pub(super) fn failed(&mut self, now: Instant) {
        self.probe = None;
        self.again = Some(now + AGAIN);
    }

    /// The connection itself was heard. A probe under way goes on.
    pub(super) fn heard(&mut self) {
        self.trust = Trust::Heard;
    }

    /// Another connection is in use, or none: the probe is of no use any more.
    pub(super) fn over(&mut self) -> Option<DialId> {
        self.trust = Trust::Heard;
        self.again = None;
        self.probe.take()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.trust {
            Trust::Asked { mute_at } => Some(mute_at),
            _ => None,
        }
    }

    /// True when the peer has just become mute.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_over = matches!(self.trust, Trust::Asked { mute_at } if now >= mute_at);
        if is_over {
            self.trust = Trust::Mute;
        }
        is_over
    }
}
