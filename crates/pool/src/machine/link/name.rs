//! Names of subscriptions, ordered so that what may share a command stands together.

use bytes::Bytes;
use evenkeel_protocol::{Slot, SubscriptionKind};

/// What a subscription names.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChannelKind {
    /// A channel: SUBSCRIBE.
    Channel,
    /// A pattern over channels: PSUBSCRIBE.
    Pattern,
    /// A shard channel: SSUBSCRIBE.
    Shard,
}

impl ChannelKind {
    /// The command that begins a subscription, or ends one.
    pub(super) fn verb(self, begins: bool) -> &'static str {
        match (self, begins) {
            (Self::Channel, true) => "SUBSCRIBE",
            (Self::Channel, false) => "UNSUBSCRIBE",
            (Self::Pattern, true) => "PSUBSCRIBE",
            (Self::Pattern, false) => "PUNSUBSCRIBE",
            (Self::Shard, true) => "SSUBSCRIBE",
            (Self::Shard, false) => "SUNSUBSCRIBE",
        }
    }

    /// What a confirmation speaks of, and whether it began; `None` for a kind that this version does not know.
    pub(super) fn of(kind: SubscriptionKind) -> Option<(Self, bool)> {
        Some(match kind {
            SubscriptionKind::Subscribed => (Self::Channel, true),
            SubscriptionKind::Unsubscribed => (Self::Channel, false),
            SubscriptionKind::PatternSubscribed => (Self::Pattern, true),
            SubscriptionKind::PatternUnsubscribed => (Self::Pattern, false),
            SubscriptionKind::ShardSubscribed => (Self::Shard, true),
            SubscriptionKind::ShardUnsubscribed => (Self::Shard, false),
            _ => return None,
        })
    }
}

/// One subscription. Shard channels sort by hash slot: a command may name those of one slot only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) kind: ChannelKind,
    slot: u16,
    pub(super) text: Bytes,
}

impl Name {
    pub(super) fn new(kind: ChannelKind, text: Bytes) -> Self {
        let slot = if kind == ChannelKind::Shard { Slot::of(&text).number() } else { 0 };
        Self { kind, slot, text }
    }

    /// Whether one command may name both.
    pub(super) fn goes_with(&self, other: &Self) -> bool {
        (self.kind, self.slot) == (other.kind, other.slot)
    }
}
