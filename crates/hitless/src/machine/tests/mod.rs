//! Scripts in, actions out, in virtual milliseconds.

mod by_name;
mod crossing;
mod defects;
mod handoffs;
mod strangers;
mod tails;
mod windows;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use evenkeel_protocol::{
    Endpoint, Machine, Notice,
    maintenance::{SlotMove, SlotRanges},
};

use super::HandoffEngine;
use crate::{
    Action, Config, ConnId, Event, Input, MoveError, MoveStyle, Origin, Outcome, Protocol, Scope, Sizes,
};

/// The configured endpoint of most scripts.
const NAME: &str = "cache.test:6379";
/// Where it leads at first.
const OLD: &str = "10.0.0.1:6379";
/// Where it is told to go.
const NEW: &str = "10.0.0.2:6379";

#[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
fn origin() -> Instant {
    Instant::now()
}

fn ep(text: &str) -> Endpoint {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A connection to `NAME` that leads to `peer`.
fn at(conn: u64, peer: &str) -> Origin {
    Origin::new(ConnId(conn), ep(NAME), Some(peer.parse().unwrap()))
}

/// A connection of `NAME` that was sent to `target`.
fn moved(conn: u64, target: &str) -> Origin {
    Origin { dialled: ep(target), ..at(conn, target) }
}

fn moving(seq: u64, grace_s: u64, target: Option<&str>) -> Notice {
    Notice::Moving { seq: Some(seq), grace: Some(Duration::from_secs(grace_s)), target: target.map(ep) }
}

fn shards(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn migrating(seq: u64, names: &[&str]) -> Notice {
    Notice::Migrating { seq: Some(seq), within: Some(Duration::from_secs(2)), shards: shards(names) }
}

fn migrated(seq: u64, names: &[&str]) -> Notice {
    Notice::Migrated { seq: Some(seq), shards: shards(names) }
}

fn failing_over(seq: u64, names: &[&str]) -> Notice {
    Notice::FailingOver { seq: Some(seq), within: Some(Duration::from_secs(2)), shards: shards(names) }
}

fn failed_over(seq: u64, names: &[&str]) -> Notice {
    Notice::FailedOver { seq: Some(seq), shards: shards(names) }
}

fn smigrating(seq: u64, slots: &str) -> Notice {
    Notice::SlotsMigrating { seq: Some(seq), slots: SlotRanges::parse(slots).unwrap() }
}

fn smigrated(seq: u64, target: &str, slots: &str) -> Notice {
    let moves = vec![SlotMove::new(None, ep(target), SlotRanges::parse(slots).unwrap())];
    Notice::SlotsMigrated { seq: Some(seq), moves }
}

/// One engine under a script.
struct Script {
    engine: HandoffEngine,
    origin: Instant,
    now: u64,
    /// Every action with the millisecond at which it came.
    log: Vec<(u64, Action)>,
}

impl Script {
    fn new() -> Self {
        Self::with(Config::new(), Sizes { workers: 8, queue: 85 })
    }

    fn with(config: Config, sizes: Sizes) -> Self {
        let settings = config.build(Protocol::Resp3).unwrap();
        Self { engine: HandoffEngine::new(settings, sizes, 7), origin: origin(), now: 0, log: Vec::new() }
    }

    /// With connections 1 to `count` open, all leading to `OLD`.
    fn open(count: u64) -> Self {
        let mut script = Self::new();
        for conn in 1..=count {
            script.input(0, Input::Opened { origin: at(conn, OLD) });
        }
        script
    }

    fn instant(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    /// Lets time pass, firing each timer when it is due.
    fn until(&mut self, ms: u64) {
        let end = self.instant(ms);
        let mut fired = 0;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.engine.handle_timeout(at);
            self.now = u64::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap();
            self.drain();
            fired += 1;
            assert!(fired < 10_000, "the timer does not move on: {:?}", self.engine);
        }
        self.now = ms;
        self.engine.handle_timeout(end);
        self.drain();
    }

    fn input(&mut self, ms: u64, input: Input) {
        self.until(ms);
        self.engine.handle_input(self.instant(ms), input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            self.log.push((self.now, action));
        }
    }

    /// Tells an announcement and gives what came of it.
    fn hear(&mut self, ms: u64, origin: &Origin, notice: Notice) -> Outcome {
        self.hear_as(ms, origin, false, notice)
    }

    fn hear_as(&mut self, ms: u64, origin: &Origin, during_handshake: bool, notice: Notice) -> Outcome {
        let origin = origin.clone();
        self.input(ms, Input::Notice { origin, during_handshake, received_at: None, notice });
        self.log
            .iter()
            .rev()
            .find_map(|(_, action)| match action {
                Action::Report(Event::Noticed { outcome, .. }) => Some(*outcome),
                _ => None,
            })
            .unwrap()
    }

    fn switched(&mut self, ms: u64, conn: u64, successor: Origin) {
        self.input(ms, Input::Switched { conn: ConnId(conn), successor });
    }

    fn failed(&mut self, ms: u64, conn: u64, cause: MoveError) {
        self.input(ms, Input::MoveFailed { conn: ConnId(conn), cause });
    }

    fn closed(&mut self, ms: u64, conn: u64) {
        self.input(ms, Input::Closed { conn: ConnId(conn) });
    }

    /// Every move so far: when, which connection, where to, and how.
    fn moves(&self) -> Vec<(u64, u64, String)> {
        self.log
            .iter()
            .filter_map(|(ms, action)| match action {
                Action::Move(one) => {
                    let address = one.to.address.map(|ip| format!(" at {ip}")).unwrap_or_default();
                    let style = match one.style {
                        MoveStyle::Beside => "",
                        MoveStyle::InPlace => " in place",
                        MoveStyle::Quiet { .. } => " quietly",
                    };
                    Some((*ms, one.conn.0, format!("{}{address}{style}", one.to.endpoint)))
                }
                _ => None,
            })
            .collect()
    }

    /// The moves without their times.
    fn moved_to(&self) -> Vec<(u64, String)> {
        self.moves().into_iter().map(|(_, conn, to)| (conn, to)).collect()
    }

    /// Relaxations and their ends, in order.
    fn relaxed(&self) -> Vec<(u64, &'static str, Scope)> {
        self.log
            .iter()
            .filter_map(|(ms, action)| match action {
                Action::Relax { scope, .. } => Some((*ms, "relax", scope.clone())),
                Action::Restore { scope } => Some((*ms, "restore", scope.clone())),
                _ => None,
            })
            .collect()
    }

    /// The dials that are redirected now: from, whose, to.
    fn redirects(&self) -> Vec<(Option<SocketAddr>, Endpoint)> {
        let mut redirects = std::collections::BTreeMap::new();
        for (_, action) in &self.log {
            match action {
                Action::RedirectDials { peer, to, .. } => {
                    redirects.insert(*peer, to.clone());
                }
                Action::EndRedirect { peer, .. } => {
                    redirects.remove(peer);
                }
                _ => {}
            }
        }
        redirects.into_iter().collect()
    }

    fn count(&self, matches: impl Fn(&Action) -> bool) -> usize {
        self.log.iter().filter(|(_, action)| matches(action)).count()
    }

    fn events(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.count(|action| matches!(action, Action::Report(event) if matches(event)))
    }
}
