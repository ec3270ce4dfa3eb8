use std::{cell::RefCell, rc::Rc};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

impl Sink for Log {
    fn deliver(&self, delivery: Delivery) {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        self.0.borrow_mut().push(match &delivery {
            Delivery::Gap { channel, may_repeat } => format!("gap {} {may_repeat}", text(channel)),
            Delivery::Lagged { missed } => format!("lagged {missed}"),
            Delivery::Message { channel, payload, pattern: None } => {
                format!("{}: {}", text(channel), text(payload))
            }
            Delivery::Message { channel, payload, pattern: Some(pattern) } => {
                format!("{} {}: {}", text(pattern), text(channel), text(payload))
            }
            Delivery::Refused { channel, error } => format!("refused {} {}", text(channel), error.code()),
            Delivery::Subscribed { channel } => format!("subscribed {}", text(channel)),
            Delivery::Unsubscribed { channel } => format!("unsubscribed {}", text(channel)),
        });
    }
}

const A: SubscriberId = SubscriberId(1);
const B: SubscriberId = SubscriberId(2);

fn channel(name: &'static str) -> Name {
    (Family::Channel, Bytes::from_static(name.as_bytes()))
}

fn message(channel: &'static str, payload: &'static str) -> Push {
    Push::Message { sharded: false, channel: channel.into(), payload: payload.into() }
}

fn says(kind: SubscriptionKind, name: &'static str) -> Push {
    Push::Subscription { kind, channel: Some(name.into()), count: 1 }
}

fn subscribe(names: &[&'static str]) -> Changes {
    Changes { subscribe: names.iter().map(|name| channel(name)).collect(), unsubscribe: Vec::new() }
}

fn unsubscribe(names: &[&'static str]) -> Changes {
    Changes { unsubscribe: names.iter().map(|name| channel(name)).collect(), subscribe: Vec::new() }
}

/// The server ends subscriptions that nobody asked it to end.
fn lose(registry: &mut Registry<Log>, which: impl Fn(&Bytes) -> bool) {
    for (family, name) in registry.names() {
        if which(&name) {
            registry.lost(family, &name);
        }
    }
}

/// Whether everything that is wanted stands.
fn stands(registry: &Registry<Log>) -> bool {
    [&registry.channels, &registry.patterns, &registry.shards]
        .into_iter()
        .flat_map(HashMap::values)
        .all(|topic| topic.subscribers.is_empty() || topic.state == State::Confirmed)
}

/// A registry in which `A` is subscribed to `news`, confirmed.
fn standing() -> (Registry<Log>, Log) {
    let (mut registry, log) = (Registry::default(), Log::default());
    registry.join(A, channel("news"), &log);
    assert_eq!(registry.take_changes(), subscribe(&["news"]));
    registry.push(&says(SubscriptionKind::Subscribed, "news"));
    assert_eq!(log.take(), ["subscribed news"]);
    (registry, log)
}

#[test]
fn the_server_hears_of_the_first_and_the_last_subscriber_only() {
    let (mut registry, a) = standing();
    let b = Log::default();
    assert!(registry.join(B, channel("news"), &b));
    assert!(!registry.join(B, channel("news"), &b), "twice is once");
    assert_eq!(b.take(), ["subscribed news"], "it stands already");
    assert!(registry.take_changes() == Changes::default());
    registry.push(&message("news", "hello"));
    assert_eq!((a.take(), b.take()), (vec!["news: hello".to_owned()], vec!["news: hello".to_owned()]));
    assert!(registry.leave(A, channel("news")));
    assert!(registry.take_changes() == Changes::default());
    assert!(registry.leave(B, channel("news")));
    assert!(!registry.leave(B, channel("news")));
    registry.push(&message("news", "late"));
    assert_eq!(
        (a.take(), b.take()),
        (vec!["unsubscribed news".to_owned()], vec!["unsubscribed news".to_owned()])
    );
    assert_eq!(registry.take_changes(), unsubscribe(&["news"]));
    registry.push(&says(SubscriptionKind::Unsubscribed, "news"));
    assert!(registry.names().is_empty());
}

#[test]
fn a_payload_is_shared_and_never_copied() {
    #[derive(Clone, Default)]
    struct Keep(Rc<RefCell<Vec<Bytes>>>);
    impl Sink for Keep {
        fn deliver(&self, delivery: Delivery) {
            if let Delivery::Message { payload, .. } = delivery {
                self.0.borrow_mut().push(payload);
            }
        }
    }
    let (mut registry, keep) = (Registry::default(), Keep::default());
    registry.join(A, channel("news"), &keep);
    registry.join(B, channel("news"), &keep);
    let payload = Bytes::from(vec![7; 100]);
    registry.push(&Push::Message { sharded: false, channel: "news".into(), payload: payload.clone() });
    let kept = keep.0.borrow();
    assert!(kept.len() == 2 && kept.iter().all(|copy| copy.as_ptr() == payload.as_ptr()));
}

#[test]
fn families_do_not_mix() {
    let (mut registry, log) = (Registry::default(), Log::default());
    for family in Family::ALL {
        registry.join(A, (family, "x*".into()), &log);
    }
    assert_eq!(registry.take_changes().subscribe.len(), 3);
    registry.push(&says(SubscriptionKind::PatternSubscribed, "x*"));
    registry.push(&Push::PatternMessage { pattern: "x*".into(), channel: "xy".into(), payload: "1".into() });
    registry.push(&Push::Message { sharded: true, channel: "x*".into(), payload: "2".into() });
    registry.push(&message("xy", "3"));
    assert_eq!(log.take(), ["subscribed x*", "x* xy: 1", "x*: 2"]);
}

#[test]
fn a_lost_link_is_a_gap_once_the_subscription_stands_again() {
    let (mut registry, log) = standing();
    lose(&mut registry, |_| true);
    lose(&mut registry, |_| true);
    assert!(log.take().is_empty(), "what is missed before it stands again belongs to the gap");
    assert!(!stands(&registry));
    assert_eq!(registry.take_changes(), subscribe(&["news"]));
    // The next link dies before it confirms.
    lose(&mut registry, |_| true);
    assert_eq!(registry.take_changes(), subscribe(&["news"]));
    registry.push(&says(SubscriptionKind::Subscribed, "news"));
    registry.push(&message("news", "hello"));
    assert_eq!(log.take(), ["gap news false", "news: hello"]);
    assert!(stands(&registry));
}

#[test]
fn who_joins_while_a_link_is_lost_has_no_gap() {
    let (mut registry, a) = standing();
    lose(&mut registry, |_| true);
    let b = Log::default();
    registry.join(B, channel("news"), &b);
    assert_eq!(registry.take_changes(), subscribe(&["news"]));
    registry.push(&says(SubscriptionKind::Subscribed, "news"));
    assert_eq!(a.take(), ["gap news false"]);
    assert_eq!(b.take(), ["subscribed news"]);
}

#[test]
fn only_the_names_of_a_link_are_lost_with_it() {
    let (mut registry, log) = standing();
    registry.join(A, channel("other"), &log);
    registry.take_changes();
    registry.push(&says(SubscriptionKind::Subscribed, "other"));
    lose(&mut registry, |name| name == "other");
    assert_eq!(registry.take_changes(), subscribe(&["other"]));
}

#[test]
fn a_slot_that_moves_away_is_a_gap() {
    let (mut registry, log) = (Registry::default(), Log::default());
    let name: Name = (Family::Shard, "s".into());
    registry.join(A, name.clone(), &log);
    registry.take_changes();
    registry.push(&says(SubscriptionKind::ShardSubscribed, "s"));
    registry.push(&says(SubscriptionKind::ShardUnsubscribed, "s"));
    assert_eq!(registry.take_changes().subscribe, [name]);
    registry.push(&says(SubscriptionKind::ShardSubscribed, "s"));
    assert_eq!(log.take(), ["subscribed s", "gap s false"]);
}

#[test]
fn wanted_again_before_the_server_heard_of_the_end() {
    let (mut registry, log) = standing();
    registry.leave(A, channel("news"));
    registry.join(A, channel("news"), &log);
    assert!(registry.take_changes() == Changes::default());
    assert_eq!(log.take(), ["unsubscribed news", "subscribed news"]);
}

#[test]
fn wanted_again_while_the_server_ends_it() {
    let (mut registry, log) = standing();
    registry.leave(A, channel("news"));
    assert_eq!(registry.take_changes(), unsubscribe(&["news"]));
    registry.join(A, channel("news"), &log);
    assert_eq!(registry.take_changes(), subscribe(&["news"]));
    log.take();
    // The answers come in the order in which they were asked for.
    registry.push(&says(SubscriptionKind::Unsubscribed, "news"));
    registry.push(&says(SubscriptionKind::Subscribed, "news"));
    assert_eq!(log.take(), ["subscribed news"]);
    assert!(stands(&registry) && registry.take_changes() == Changes::default());
}

#[test]
fn what_nobody_wants_does_not_outlive_its_link() {
    let (mut registry, _log) = standing();
    registry.leave(A, channel("news"));
    lose(&mut registry, |_| true);
    assert!(registry.take_changes() == Changes::default() && registry.names().is_empty());
    let (mut registry, _log) = standing();
    registry.leave(A, channel("news"));
    registry.take_changes();
    lose(&mut registry, |_| true);
    assert!(registry.take_changes() == Changes::default() && registry.names().is_empty());
}

#[test]
fn never_asked_for_and_unwanted_leaves_no_trace() {
    let (mut registry, log) = (Registry::default(), Log::default());
    registry.join(A, channel("news"), &log);
    registry.leave(A, channel("news"));
    assert!(!registry.has_changes() && registry.names().is_empty());
}

#[test]
fn a_second_link_confirms_without_anybody_noticing() {
    let (mut registry, log) = standing();
    registry.push(&says(SubscriptionKind::Subscribed, "news"));
    assert!(log.take().is_empty());
    registry.gap(true, |_, _| true);
    assert_eq!(log.take(), ["gap news true"]);
}

#[test]
fn a_refusal_reaches_those_who_asked() {
    let (mut registry, log) = (Registry::default(), Log::default());
    registry.join(A, channel("secret"), &log);
    registry.take_changes();
    registry.refused(Family::Channel, &"secret".into(), &ServerError::parse(b"NOPERM no"));
    assert_eq!(log.take(), ["refused secret NOPERM"]);
    assert!(registry.names().is_empty());
}

/// A server that answers in order, on a link that may die.
#[derive(Default)]
struct Server {
    subscribed: BTreeSet<Name>,
    owed: std::collections::VecDeque<(bool, Name)>,
}

proptest! {
    /// Whatever happens in whatever order: in the end the server has exactly what is wanted, and a message reaches each
    /// subscriber of its channel once.
    #[test]
    fn the_server_ends_with_what_is_wanted(steps in prop::collection::vec((0u8..6, 0u64..3, 0usize..3), 0..120)) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let mut registry = Registry::default();
        let mut server = Server::default();
        let logs: Vec<Log> = (0..3).map(|_| Log::default()).collect();
        let mut joined = BTreeSet::new();
        let answer = |registry: &mut Registry<Log>, server: &mut Server| {
            let Some((on, name)) = server.owed.pop_front() else { return false };
            let kind = if on { SubscriptionKind::Subscribed } else { SubscriptionKind::Unsubscribed };
            if on { server.subscribed.insert(name.clone()); } else { server.subscribed.remove(&name); }
            registry.push(&Push::Subscription { kind, channel: Some(name.1), count: 0 });
            true
        };
        let send = |registry: &mut Registry<Log>, server: &mut Server| {
            let changes = registry.take_changes();
            server.owed.extend(changes.unsubscribe.into_iter().map(|name| (false, name)));
            server.owed.extend(changes.subscribe.into_iter().map(|name| (true, name)));
        };
        for (step, who, what) in steps {
            match step {
                0 | 1 => {
                    let fresh = registry.join(SubscriberId(who), channel(NAMES[what]), &logs[who as usize]);
                    prop_assert_eq!(fresh, joined.insert((who, what)));
                }
                2 => {
                    let was = registry.leave(SubscriberId(who), channel(NAMES[what]));
                    prop_assert_eq!(was, joined.remove(&(who, what)));
                }
                3 => send(&mut registry, &mut server),
                4 => { answer(&mut registry, &mut server); }
                _ => {
                    server = Server::default();
                    lose(&mut registry, |_| true);
                }
            }
        }
        while registry.has_changes() || !server.owed.is_empty() {
            send(&mut registry, &mut server);
            while answer(&mut registry, &mut server) {}
        }
        let wanted: BTreeSet<Name> = joined.iter().map(|(_, what)| channel(NAMES[*what])).collect();
        prop_assert_eq!(&server.subscribed, &wanted);
        prop_assert_eq!(registry.wanted(), wanted.into_iter().collect::<Vec<_>>());
        prop_assert!(stands(&registry));
        for log in &logs {
            log.take();
        }
        for name in NAMES {
            registry.push(&message(name, "m"));
        }
        for (who, log) in logs.iter().enumerate() {
            let expected: Vec<String> = (0..3)
                .filter(|what| joined.contains(&(who as u64, *what)))
                .map(|what| format!("{}: m", NAMES[what]))
                .collect();
            prop_assert_eq!(log.take(), expected);
        }
    }
}

#[test]
fn a_move_is_a_gap_only_when_the_subscription_stands_again() {
    let (mut registry, log) = standing();
    registry.moved(Family::Channel, &"news".into());
    registry.moved(Family::Channel, &"news".into());
    assert!(log.take().is_empty(), "what is published before it stands again belongs to the gap");
    // What the old link says of its end is no news.
    registry.push(&says(SubscriptionKind::Unsubscribed, "news"));
    assert!(registry.take_changes().subscribe.is_empty(), "the new link has been asked");
    registry.push(&says(SubscriptionKind::Subscribed, "news"));
    registry.push(&says(SubscriptionKind::Subscribed, "news"));
    registry.push(&message("news", "hello"));
    assert_eq!(log.take(), ["gap news true", "news: hello"]);
    assert!(registry.is_wanted(Family::Channel, &"news".into()));
    assert!(!registry.is_wanted(Family::Shard, &"news".into()));
}
