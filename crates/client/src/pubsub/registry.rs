//! `Registry`: which subscriptions are wanted, by whom, and how far each has come. It knows no connection, no lock and
//! no clock.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use evenkeel_protocol::{Push, ServerError, SubscriptionKind};

use super::Delivery;

/// The three families of subscriptions; names of different families have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    Channel,
    Pattern,
    Shard,
}

impl Family {
    const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];
}

/// A channel or pattern of a family.
pub(crate) type Name = (Family, Bytes);

/// Identifies a local subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SubscriberId(pub(crate) u64);

/// Where deliveries go. Putting never waits.
pub(crate) trait Sink: Clone {
    fn deliver(&self, delivery: Delivery);
}

/// What must be said to the server, in any order within each list; the unsubscriptions first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) unsubscribe: Vec<Name>,
    pub(crate) subscribe: Vec<Name>,
}

/// How far a subscription has come with the server.
///
/// ```text
///            taken             confirmed
///  Wanted ----------> Requested -------> Confirmed
///    ^  ^                 |  |^--- moved ---|   |
///    |  `------ lost -----'--|--------------'   |
///    |                       `------.-----------'
///    |                    last subscriber leaves
///    |                              v
///    |  first subscriber        Unwanted ---- first subscriber ---> as before
///    `--------- Leaving <--taken----'
///                  |
///                  `--- the server says so, or it is lost ---> gone
/// ```
///
/// `Wanted` without a subscriber, or `Unwanted` when it is lost, is gone at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Confirmed,
    Leaving,
    Requested,
    Unwanted { confirmed: bool },
    Wanted,
}

#[derive(Debug)]
struct Topic<S> {
    subscribers: Vec<Member<S>>,
    state: State,
    /// It stood before and was lost or moved: messages may be missing when it stands again, and with true some may come
    /// twice.
    gap: Option<bool>,
}

#[derive(Debug)]
struct Member<S> {
    id: SubscriberId,
    sink: S,
    /// It knows that the subscription stands.
    told: bool,
}

/// The wanted subscriptions with their subscribers.
#[derive(Debug)]
pub(crate) struct Registry<S> {
    channels: HashMap<Bytes, Topic<S>>,
    patterns: HashMap<Bytes, Topic<S>>,
    shards: HashMap<Bytes, Topic<S>>,
    /// Topics whose state the server must hear of.
    dirty: BTreeSet<Name>,
}

impl<S> Default for Registry<S> {
    fn default() -> Self {
        Self {
            channels: HashMap::new(),
            patterns: HashMap::new(),
            shards: HashMap::new(),
            dirty: BTreeSet::new(),
        }
    }
}

impl<S: Sink> Registry<S> {
    fn topics(&mut self, family: Family) -> &mut HashMap<Bytes, Topic<S>> {
        match family {
            Family::Channel => &mut self.channels,
            Family::Pattern => &mut self.patterns,
            Family::Shard => &mut self.shards,
        }
    }

    /// Adds a subscriber; false when it is one already.
    pub(crate) fn join(&mut self, id: SubscriberId, (family, name): Name, sink: &S) -> bool {
        let topic = self.topics(family).entry(name.clone()).or_insert_with(|| Topic {
            subscribers: Vec::new(),
            state: State::Wanted,
            gap: None,
        });
        if topic.subscribers.iter().any(|member| member.id == id) {
            return false;
        }
        topic.state = match topic.state {
            State::Unwanted { confirmed: true } => State::Confirmed,
            State::Unwanted { confirmed: false } => State::Requested,
            State::Leaving => State::Wanted,
            state @ (State::Confirmed | State::Requested | State::Wanted) => state,
        };
        let told = topic.state == State::Confirmed;
        topic.subscribers.push(Member { id, sink: sink.clone(), told });
        let wanted = topic.state == State::Wanted;
        if told {
            sink.deliver(Delivery::Subscribed { channel: name.clone() });
        }
        if wanted {
            self.dirty.insert((family, name));
        } else {
            // Perhaps it stood there to be given up.
            self.dirty.remove(&(family, name));
        }
        true
    }

    /// Takes a subscriber away; nothing is delivered to it from this topic behind the `Unsubscribed`.
    pub(crate) fn leave(&mut self, id: SubscriberId, (family, name): Name) -> bool {
        let topics = self.topics(family);
        let Some(topic) = topics.get_mut(&name) else { return false };
        let Some(at) = topic.subscribers.iter().position(|member| member.id == id) else { return false };
        let member = topic.subscribers.remove(at);
        member.sink.deliver(Delivery::Unsubscribed { channel: name.clone() });
        if topic.subscribers.is_empty() {
            match topic.state {
                State::Confirmed => topic.state = State::Unwanted { confirmed: true },
                State::Requested => topic.state = State::Unwanted { confirmed: false },
                State::Wanted => {
                    topics.remove(&name);
                    self.dirty.remove(&(family, name));
                    return true;
                }
                // Nobody was subscribed in these.
                State::Leaving | State::Unwanted { .. } => return true,
            }
            self.dirty.insert((family, name));
        }
        true
    }

    /// What has to be said to the server since the last time.
    pub(crate) fn take_changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for (family, name) in std::mem::take(&mut self.dirty) {
            let Some(topic) = self.topics(family).get_mut(&name) else { continue };
            match topic.state {
                State::Wanted => {
                    topic.state = State::Requested;
                    changes.subscribe.push((family, name));
                }
                State::Unwanted { .. } => {
                    topic.state = State::Leaving;
                    changes.unsubscribe.push((family, name));
                }
                State::Confirmed | State::Leaving | State::Requested => {}
            }
        }
        changes
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes what the server says; true when it was about subscriptions.
    pub(crate) fn push(&mut self, push: &Push) -> bool {
        match push {
            Push::Message { sharded, channel, payload } => {
                let family = if *sharded { Family::Shard } else { Family::Channel };
                self.message(family, channel, || Delivery::Message {
                    channel: channel.clone(),
                    payload: payload.clone(),
                    pattern: None,
                });
            }
            Push::PatternMessage { pattern, channel, payload } => {
                self.message(Family::Pattern, pattern, || Delivery::Message {
                    channel: channel.clone(),
                    payload: payload.clone(),
                    pattern: Some(pattern.clone()),
                });
            }
            Push::Subscription { kind, channel: Some(channel), .. } => match kind {
                SubscriptionKind::Subscribed => self.confirmed(Family::Channel, channel),
                SubscriptionKind::PatternSubscribed => self.confirmed(Family::Pattern, channel),
                SubscriptionKind::ShardSubscribed => self.confirmed(Family::Shard, channel),
                SubscriptionKind::Unsubscribed => self.ended(Family::Channel, channel),
                SubscriptionKind::PatternUnsubscribed => self.ended(Family::Pattern, channel),
                SubscriptionKind::ShardUnsubscribed => self.ended(Family::Shard, channel),
                // A family that this build does not know.
                _ => return false,
            },
            Push::Subscription { .. } => {}
            _ => return false,
        }
        true
    }

    fn message(&mut self, family: Family, name: &Bytes, delivery: impl Fn() -> Delivery) {
        let Some(topic) = self.topics(family).get(name) else { return };
        for member in &topic.subscribers {
            member.sink.deliver(delivery());
        }
    }

    fn confirmed(&mut self, family: Family, name: &Bytes) {
        let Some(topic) = self.topics(family).get_mut(name) else { return };
        match topic.state {
            State::Requested => topic.state = State::Confirmed,
            State::Unwanted { .. } => {
                topic.state = State::Unwanted { confirmed: true };
                return;
            }
            // A second link of a handoff, or an answer that nobody waits for any more.
            State::Confirmed | State::Leaving | State::Wanted => return,
        }
        let gap = topic.gap.take();
        for member in &mut topic.subscribers {
            if !std::mem::replace(&mut member.told, true) {
                member.sink.deliver(Delivery::Subscribed { channel: name.clone() });
            } else if let Some(may_repeat) = gap {
                member.sink.deliver(Delivery::Gap { channel: name.clone(), may_repeat });
            }
        }
    }

    /// The server says that a subscription ended: asked for, or because a slot moved away.
    fn ended(&mut self, family: Family, name: &Bytes) {
        let Some(topic) = self.topics(family).get_mut(name) else { return };
        match topic.state {
            State::Leaving => {
                self.topics(family).remove(name);
            }
            State::Confirmed | State::Unwanted { confirmed: true } => self.lost(family, name),
            // An earlier unsubscription, answered after it was wanted again.
            State::Requested | State::Wanted | State::Unwanted { confirmed: false } => {}
        }
    }

    /// A subscription no longer stands; it is asked for again if anybody wants it.
    fn lost(&mut self, family: Family, name: &Bytes) {
        let topics = self.topics(family);
        let Some(topic) = topics.get_mut(name) else { return };
        if topic.subscribers.is_empty() {
            topics.remove(name);
            self.dirty.remove(&(family, name.clone()));
            return;
        }
        if topic.state == State::Confirmed {
            topic.gap.get_or_insert(false);
        }
        topic.state = State::Wanted;
        self.dirty.insert((family, name.clone()));
    }

    /// A subscription is being carried to another link, where it does not stand yet. Its subscribers hear of the gap when it
    /// does: what they read before could not show them what is published in between.
    pub(crate) fn moved(&mut self, family: Family, name: &Bytes) {
        let Some(topic) = self.topics(family).get_mut(name) else { return };
        if topic.state == State::Confirmed {
            topic.state = State::Requested;
            topic.gap = Some(true);
        }
    }

    /// Whether anybody wants a subscription.
    pub(crate) fn is_wanted(&mut self, family: Family, name: &Bytes) -> bool {
        self.topics(family).get(name).is_some_and(|topic| !topic.subscribers.is_empty())
    }

    /// The server refused a subscription, for want of a permission: its subscribers are told and it is gone.
    pub(crate) fn refused(&mut self, family: Family, name: &Bytes, error: &ServerError) {
        self.dirty.remove(&(family, name.clone()));
        let Some(topic) = self.topics(family).remove(name) else { return };
        for member in topic.subscribers {
            member.sink.deliver(Delivery::Refused { channel: name.clone(), error: error.clone() });
        }
    }

    /// A link took over from another without an exact cut, for the subscriptions for which `on_link` holds.
    pub(crate) fn gap(&mut self, may_repeat: bool, on_link: impl Fn(Family, &Bytes) -> bool) {
        for (family, name) in self.names() {
            let Some(topic) = self.topics(family).get(&name) else { continue };
            if topic.state == State::Confirmed && on_link(family, &name) {
                for member in &topic.subscribers {
                    member.sink.deliver(Delivery::Gap { channel: name.clone(), may_repeat });
                }
            }
        }
    }

    /// Every subscription that somebody wants, in order.
    pub(crate) fn wanted(&self) -> Vec<Name> {
        let mut names: Vec<Name> = Family::ALL
            .into_iter()
            .flat_map(|family| {
                let topics = match family {
                    Family::Channel => &self.channels,
                    Family::Pattern => &self.patterns,
                    Family::Shard => &self.shards,
                };
                topics
                    .iter()
                    .filter(|(_, topic)| !topic.subscribers.is_empty())
                    .map(move |(name, _)| (family, name.clone()))
            })
            .collect();
        names.sort();
        names
    }

    fn names(&self) -> Vec<Name> {
        let of = |family: Family, topics: &HashMap<Bytes, Topic<S>>| -> Vec<Name> {
            topics.keys().map(|name| (family, name.clone())).collect()
        };
        let mut names = of(Family::Channel, &self.channels);
        names.extend(of(Family::Pattern, &self.patterns));
        names.extend(of(Family::Shard, &self.shards));
        names.sort();
        names
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
