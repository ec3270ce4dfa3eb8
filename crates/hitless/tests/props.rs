//! Whatever is told in whatever order: no panic, nothing unbounded, and an end that closes what was opened.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use evenkeel_hitless::{
    Action, Config, ConnId, HandoffEngine, Input, MoveError, Origin, Protocol, Scope, Sizes,
};
use evenkeel_protocol::{
    Endpoint, Machine, Notice,
    maintenance::{SlotMove, SlotRanges},
};
use proptest::prelude::*;

fn address() -> impl Strategy<Value = Ipv4Addr> {
    (1..5u8).prop_map(|last| Ipv4Addr::new(10, 0, 0, last))
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    prop_oneof![
        Just(Endpoint::new("a.test", 6379)),
        Just(Endpoint::new("b.test", 6379)),
        Just(Endpoint::unix("/run/redis.sock")),
        address().prop_map(|ip| Endpoint::new(&ip.to_string(), 6379)),
    ]
}

fn origin() -> impl Strategy<Value = Origin> {
    (0..12u64, endpoint(), endpoint(), prop::option::of(address())).prop_map(
        |(conn, endpoint, dialled, peer)| {
            let peer = peer.map(|ip| SocketAddr::from((ip, 6379)));
            Origin { conn: ConnId(conn), endpoint, dialled, peer }
        },
    )
}

fn seq() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), (0..8u64).prop_map(Some), Just(Some(u64::MAX))]
}

/// From nothing to what no clock can hold.
fn grace() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![
        Just(None),
        (0..20u64).prop_map(|seconds| Some(Duration::from_secs(seconds))),
        Just(Some(Duration::MAX)),
        Just(Some(Duration::from_nanos(1))),
    ]
}

fn shards() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec((0..4u8).prop_map(|shard| shard.to_string()), 0..3)
}

fn slots() -> impl Strategy<Value = SlotRanges> {
    prop::collection::vec((0..16_384u16, 0..300u16), 0..3).prop_map(|ranges| {
        SlotRanges::from_ranges(ranges.into_iter().map(|(first, more)| first..=first.saturating_add(more)))
    })
}

fn notice() -> impl Strategy<Value = Notice> {
    let moves = prop::collection::vec(
        (prop::option::of(endpoint()), endpoint(), slots())
            .prop_map(|(source, target, slots)| SlotMove::new(source, target, slots)),
        0..3,
    );
    prop_oneof![
        3 => (seq(), grace(), prop::option::of(endpoint()))
            .prop_map(|(seq, grace, target)| Notice::Moving { seq, grace, target }),
        1 => (seq(), grace(), shards())
            .prop_map(|(seq, within, shards)| Notice::Migrating { seq, within, shards }),
        1 => (seq(), grace(), shards())
            .prop_map(|(seq, within, shards)| Notice::FailingOver { seq, within, shards }),
        1 => (seq(), shards()).prop_map(|(seq, shards)| Notice::Migrated { seq, shards }),
        1 => (seq(), shards()).prop_map(|(seq, shards)| Notice::FailedOver { seq, shards }),
        1 => (seq(), slots()).prop_map(|(seq, slots)| Notice::SlotsMigrating { seq, slots }),
        1 => (seq(), moves).prop_map(|(seq, moves)| Notice::SlotsMigrated { seq, moves }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Tell(Input),
    /// Deadlines are given from the present.
    Drain(Endpoint, Duration),
    Topology(Endpoint, Endpoint, Duration),
    Wait(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let conn = || (0..12u64).prop_map(ConnId);
    let soon = || (0..20_000u64).prop_map(Duration::from_millis);
    let names = prop_oneof![Just("a.test"), Just("b.test"), Just("unknown.test")];
    let addresses = prop::collection::vec(address().prop_map(IpAddr::V4), 0..3);
    let tell = prop_oneof![
        4 => (origin(), any::<bool>(), notice()).prop_map(|(origin, during_handshake, notice)| {
            Input::Notice { origin, during_handshake, received_at: None, notice }
        }),
        3 => origin().prop_map(|origin| Input::Opened { origin }),
        2 => conn().prop_map(|conn| Input::Closed { conn }),
        3 => (conn(), origin()).prop_map(|(conn, successor)| Input::Switched { conn, successor }),
        2 => (conn(), prop::sample::select(&MoveError::ALL[..]))
            .prop_map(|(conn, cause)| Input::MoveFailed { conn, cause }),
        2 => (names, addresses)
            .prop_map(|(name, addresses)| Input::DnsAnswer { name: name.into(), addresses }),
        1 => endpoint().prop_map(|endpoint| Input::DialFailed { endpoint }),
    ];
    prop_oneof![
        8 => tell.prop_map(Step::Tell),
        1 => (endpoint(), soon()).prop_map(|(endpoint, within)| Step::Drain(endpoint, within)),
        1 => (endpoint(), endpoint(), soon()).prop_map(|(from, to, within)| Step::Topology(from, to, within)),
        4 => soon().prop_map(Step::Wait),
    ]
}

/// What is in force after the actions so far.
#[derive(Default)]
struct InForce {
    relaxed: BTreeSet<Scope>,
    redirects: BTreeSet<(Endpoint, Option<SocketAddr>)>,
}

impl InForce {
    fn take(&mut self, engine: &mut HandoffEngine) {
        while let Some(action) = engine.poll_action() {
            match action {
                Action::Relax { scope, .. } => {
                    self.relaxed.insert(scope);
                }
                Action::Restore { scope } => {
                    assert!(self.relaxed.remove(&scope), "{scope:?} was not relaxed");
                }
                Action::RedirectDials { from, peer, to, .. } => {
                    assert_ne!(from, to);
                    self.redirects.insert((from, peer));
                }
                Action::EndRedirect { from, peer } => {
                    assert!(self.redirects.remove(&(from, peer)), "no such redirect");
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #[test]
    fn anything_goes(steps in prop::collection::vec(step(), 1..120), seed in any::<u64>()) {
        #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
        let mut now = Instant::now();
        let settings = Config::new().build(Protocol::Resp3).unwrap();
        let mut engine = HandoffEngine::new(settings, Sizes { workers: 3, queue: 5 }, seed);
        let mut force = InForce::default();
        for step in steps {
            match step {
                Step::Tell(input) => engine.handle_input(now, input),
                Step::Drain(endpoint, within) => {
                    engine.handle_input(now, Input::Drain { endpoint, deadline: now + within });
                }
                Step::Topology(from, to, within) => {
                    engine.handle_input(now, Input::TopologyHandoff { from, to, deadline: now + within });
                }
                Step::Wait(time) => {
                    let end = now + time;
                    while let Some(at) = engine.poll_timeout().filter(|at| *at <= end) {
                        prop_assert!(at >= now, "a timer in the past");
                        now = at;
                        engine.handle_timeout(now);
                        force.take(&mut engine);
                        prop_assert!(engine.poll_timeout().is_none_or(|next| next > now), "a timer that stays");
                    }
                    now = end;
                }
            }
            force.take(&mut engine);
            prop_assert!(engine.footprint() < 2_000);
        }
        // In the end everything is over, even when nobody answers any more.
        while let Some(at) = engine.poll_timeout() {
            prop_assert!(at >= now);
            now = at;
            engine.handle_timeout(now);
            force.take(&mut engine);
        }
        prop_assert!(force.relaxed.is_empty(), "{:?}", force.relaxed);
        prop_assert!(force.redirects.is_empty(), "{:?}", force.redirects);
        prop_assert_eq!(engine.handoffs_in_progress(), 0);
        prop_assert!(engine.metrics().relaxed_now.values().all(|open| *open == 0));
    }
}
