//! What every protocol's session machine has in common: text in, effects and frames out.
//!
//! A machine decides what a client may do and says what is to be done; it never does it. Its driver asks for
//! one [`Step`] after the other and hands back the outcome of each [`Effect`] before the next, so answers keep
//! the order of requests.

use crate::broker::{History, HistoryQuery, Published};
use crate::config::LimitsConfig;
use crate::error::BrokerError;
use crate::hooks::{Question, Verdict};
use crate::hub::Order;
use crate::namespace::{ChannelOptions, Namespaces};
use crate::presence::Member;
use crate::publication::{Channel, Position};
use crate::token::Verifier;
use crate::ws::close::CloseCode;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// What every session of a gateway shares.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) namespaces: Namespaces,
    pub(crate) limits: LimitsConfig,
    pub(crate) ping_seconds: u64,
    /// Whether Pusher's protocol is on, and its signed channels are kept for it.
    pub(crate) pusher: bool,
    /// Whether a hook says who clients without a token are.
    pub(crate) asks_connect: bool,
    /// Whether a hook says how long they may stay.
    pub(crate) asks_refresh: bool,
    /// Whether a hook says how long their subscriptions may.
    pub(crate) asks_sub_refresh: bool,
    /// Checks clients' tokens; without it there are none.
    pub(crate) tokens: Option<Verifier>,
}

impl Rules {
    /// The options of a channel; Pusher's presence channels always know who is there.
    pub(crate) fn options(&self, channel: &str) -> Option<Arc<ChannelOptions>> {
        let options = self.namespaces.options(channel)?;
        if self.pusher && channel.starts_with("presence-") && !options.keeps_presence() {
            let mut options = ChannelOptions::clone(options);
            options.join_leave = true;
            return Some(Arc::new(options));
        }
        Some(options.clone())
    }

    /// Whether a channel needs a signature that only Pusher's protocol has.
    pub(crate) fn is_reserved(&self, channel: &str) -> bool {
        self.pusher && super::pusher::is_signed(channel)
    }
}

/// What the driver is to do before it goes on.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Ask a hook.
    Ask(Question),
    History {
        channel: Channel,
        options: Arc<ChannelOptions>,
        query: HistoryQuery,
    },
    /// Who is on a channel.
    Presence {
        channel: Channel,
    },
    Publish {
        channel: Channel,
        options: Arc<ChannelOptions>,
        data: Bytes,
    },
    /// Subscribe. With `joining` the history is read first, and `since` is what the client saw last.
    Subscribe {
        channel: Channel,
        serial: u32,
        options: Arc<ChannelOptions>,
        joining: bool,
        since: Option<Position>,
        /// Who comes, on a channel that keeps presence.
        member: Option<Arc<Member>>,
    },
    Unsubscribe {
        channel: Channel,
    },
}

/// What came of an [`Effect`].
#[derive(Debug)]
pub(crate) enum Outcome {
    Asked(Verdict),
    History(Result<History, BrokerError>),
    Presence(Result<Vec<Member>, BrokerError>),
    Published(Result<Published, BrokerError>),
    /// With the history when it was joined.
    Subscribed(Result<Option<History>, BrokerError>),
    Unsubscribed,
}

/// What follows from a request.
#[derive(Debug)]
pub(crate) enum Step {
    Close(CloseCode),
    Done,
    /// End the session with this frame.
    End(Bytes),
    Run(Effect),
}

/// The session machine of one protocol.
pub(crate) trait Machine: Send + Sync + fmt::Debug {
    /// Takes a text message that came at `now`, in seconds since 1970; an error ends the session after what was
    /// asked before.
    fn hear(&mut self, text: &str, now: u64) -> Result<(), CloseCode>;

    /// Takes an order of the server API at `now`, in seconds since 1970. Default: the protocol has no word for it.
    fn obey(&mut self, _order: Order, _now: u64) {}

    /// What follows from the next request; `None` when all are done.
    fn step(&mut self) -> Option<Step>;

    /// Takes the outcome of the effect of the last step.
    fn complete(&mut self, outcome: Outcome);

    /// The frames that answer what was asked so far.
    fn take_frames(&mut self) -> Option<Bytes>;

    /// How many requests were answered with an error since this was asked last. Default: the protocol has no such answer.
    fn take_errors(&mut self) -> usize {
        0
    }

    /// Whether the client has said who it is.
    fn is_connected(&self) -> bool;

    /// The client's id and user, once, after it has connected.
    fn take_identity(&mut self) -> Option<(Box<str>, Box<str>)>;

    /// When the client's permission ends, in seconds since 1970; 0 when it does not.
    fn expires(&self) -> u64 {
        0
    }

    /// When the session wants an [`Order::Renew`], in seconds since 1970; 0 for never.
    fn due(&self) -> u64 {
        0
    }

    /// The channels subscribed to.
    fn channels(&self) -> Vec<Channel>;

    /// Forgets a subscription that the server ended; false when it had ended already.
    fn unsubscribed(&mut self, channel: &Channel, serial: u32) -> bool;
}
