//! What must hold at each step, whatever the schedule.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use evenkeel_hitless::{Action, ConnId, Event, HandoffEngine, MoveError, MoveStyle, Origin, Scope, Sizes};
use evenkeel_protocol::{Endpoint, Machine, Notice};

use crate::world::{Conn, Door, Server, name};

/// A connection that is known this long before the deadline must have moved: the jitter is at most 5 % of the grace, and
/// each of up to twelve dials takes up to 30 ms, one after the other at worst.
const TIME_TO_MOVE: u64 = 12 * 35 + 100;

pub(crate) struct Promises {
    sizes: Sizes,
    lossy: bool,
    relaxed: BTreeSet<Scope>,
    handoffs: BTreeMap<u64, (Option<Endpoint>, Instant)>,
    in_flight: BTreeSet<ConnId>,
    /// How often a connection and those before it were made anew, by handoff.
    lineage: BTreeMap<ConnId, BTreeMap<u64, u32>>,
    last_failure: BTreeMap<ConnId, MoveError>,
    /// Windows that must be open: sequence id of the start, and when its cap ends it.
    open: BTreeMap<(bool, u64), u64>,
    ended: BTreeSet<u64>,
    slots: BTreeMap<u16, (u64, Endpoint)>,
    applied: BTreeMap<u16, Endpoint>,
    retirements: BTreeMap<u64, Watched>,
    verifying: u32,
    pub(crate) bound: u64,
}

/// Known this long before the announced close, a connection can fall silent in time where nothing else helps.
const TIME_TO_HUSH: u64 = 150;

/// What is planned for a retirement.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) server: usize,
    /// It closes then or later, and the name leads elsewhere by then.
    pub(crate) sound: bool,
    /// The target, if one is named.
    pub(crate) told: Option<Endpoint>,
    /// The target takes everybody: nobody needs the name.
    pub(crate) target_is_good: bool,
    /// Together the servers take no more than so many connections.
    pub(crate) full: bool,
    /// They are full and close late: the one out that would make room is not to be had, as far as anybody knows.
    pub(crate) crowded: bool,
}

/// A retirement under watch.
#[derive(Debug)]
struct Watched {
    plan: Planned,
    /// No promise about the close: full, or the name led nowhere for a while and was the only way.
    disturbed: bool,
    first_heard: Option<u64>,
    /// When the close comes as far as anybody can know: announcements may be late, and what newcomers are told is in whole
    /// seconds, rounded up.
    believed: u64,
    /// Connections that became known to lead there, and when.
    known: BTreeMap<ConnId, u64>,
}

impl Promises {
    pub(crate) fn new(sizes: Sizes, lossy: bool) -> Self {
        Self {
            sizes,
            lossy,
            relaxed: BTreeSet::new(),
            handoffs: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            lineage: BTreeMap::new(),
            last_failure: BTreeMap::new(),
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            slots: BTreeMap::new(),
            applied: BTreeMap::new(),
            retirements: BTreeMap::new(),
            verifying: 0,
            bound: 0,
        }
    }

    pub(crate) fn on_retirement(&mut self, seq: u64, plan: Planned) {
        let (first_heard, known) = (None, BTreeMap::new());
        let disturbed = plan.crowded;
        let watched = Watched { plan, disturbed, first_heard, believed: 0, known };
        self.retirements.insert(seq, watched);
    }

    /// For a while the name led to a server that took nobody.
    pub(crate) fn on_name_astray(&mut self) {
        for watched in self.retirements.values_mut() {
            watched.disturbed |= !watched.plan.target_is_good;
        }
    }

    /// A server takes nobody for a while: as a target it is none.
    pub(crate) fn on_door_shut(&mut self, endpoint: &Endpoint) {
        for watched in self.retirements.values_mut() {
            watched.plan.target_is_good &= watched.plan.told.as_ref() != Some(endpoint);
        }
    }

    /// An announcement is about to reach the engine.
    pub(crate) fn on_heard(
        &mut self,
        now: u64,
        origin: &Origin,
        notice: &Notice,
        servers: &[Server],
        conns: &BTreeMap<ConnId, Conn>,
    ) {
        match notice {
            Notice::Moving { seq: Some(seq), grace, .. } => {
                let Some(watched) = self.retirements.get_mut(seq) else { return };
                if watched.first_heard.is_none() {
                    watched.first_heard = Some(now);
                    watched.believed = now + grace.map_or(0, |grace| grace.as_millis() as u64);
                    for (id, conn) in conns.iter().filter(|(_, conn)| conn.server == watched.plan.server) {
                        if !conn.draining {
                            watched.known.entry(*id).or_insert(now);
                        }
                    }
                }
                if servers.get(watched.plan.server).is_some_and(|server| server.retiring.is_some()) {
                    watched.known.entry(origin.conn).or_insert(now);
                }
            }
            Notice::FailingOver { seq: Some(seq), .. } if !self.ended.contains(seq) => {
                self.open.entry((true, *seq)).or_insert(now + 60_000);
            }
            Notice::Migrating { seq: Some(seq), .. } if !self.ended.contains(seq) => {
                self.open.entry((false, *seq)).or_insert(now + 600_000);
            }
            Notice::FailedOver { seq: Some(seq), .. } | Notice::Migrated { seq: Some(seq), .. } => {
                self.ended.extend(seq.saturating_sub(3)..*seq);
                self.open.retain(|(_, start), _| start > seq);
            }
            Notice::SlotsMigrated { seq: Some(seq), moves } => {
                for one in moves {
                    for slot in one.slots.ranges().iter().cloned().flatten() {
                        let newest = self.slots.entry(slot).or_insert_with(|| (*seq, one.target.clone()));
                        if newest.0 <= *seq {
                            *newest = (*seq, one.target.clone());
                        }
                    }
                }
            }
            _ => {}
        }
    }

    pub(crate) fn on_opened(&mut self, now: u64, origin: &Origin, servers: &[Server]) {
        for watched in self.retirements.values_mut() {
            let retiring = servers.get(watched.plan.server).is_some_and(|server| server.retiring.is_some());
            let there = origin.peer.is_some_and(|peer| led_to(peer, watched.plan.server));
            if retiring && there && watched.first_heard.is_some() {
                watched.known.entry(origin.conn).or_insert(now);
            }
        }
    }

    pub(crate) fn on_action(
        &mut self,
        now: u64,
        instant: Instant,
        action: &Action,
        conns: &BTreeMap<ConnId, Conn>,
    ) {
        self.in_flight.retain(|conn| conns.get(conn).is_some_and(|conn| conn.moving.is_some()));
        match action {
            Action::Relax { scope, floor, .. } => {
                assert_eq!(*floor, Duration::from_secs(10));
                self.relaxed.insert(scope.clone());
            }
            Action::Restore { scope } => {
                assert!(self.relaxed.remove(scope), "restored without need: {scope:?}");
                let open: Vec<_> = self.open.iter().filter(|(_, until)| now < **until).collect();
                assert!(
                    *scope != Scope::Endpoint(name()) || open.is_empty(),
                    "restored in a window: {open:?}"
                );
            }
            Action::Report(Event::HandoffStarted { handoff, target, closes_at, .. }) => {
                self.handoffs.insert(handoff.number(), (target.clone(), *closes_at));
            }
            Action::Report(Event::MoveFailed { conn, cause, .. }) => {
                self.last_failure.insert(*conn, *cause);
            }
            Action::Report(Event::ConnMoved { handoff, conn, successor, .. }) => {
                let mut before = self.lineage.remove(conn).unwrap_or_default();
                let times = before.entry(handoff.number()).or_default();
                *times += 1;
                assert!(*times <= 3, "made anew {times} times for one announcement");
                self.lineage.insert(*successor, before);
            }
            Action::MoveSlots { moves } => {
                for one in moves {
                    for slot in one.slots.ranges().iter().cloned().flatten() {
                        self.applied.insert(slot, one.target.clone());
                    }
                }
                self.verifying += 1;
            }
            Action::VerifyTopology => self.verifying = 0,
            Action::Move(one) => {
                let Some(conn) = conns.get(&one.conn) else { panic!("moves what is closed: {one:?}") };
                assert!(!conn.draining, "moves what has moved: {one:?}");
                assert!(conn.moving.is_none(), "moves what is being moved: {one:?}");
                assert!(instant < one.deadline, "too late to begin: {one:?}");
                let Some((target, closes_at)) = self.handoffs.get(&one.handoff.number()) else {
                    panic!("moves without an announcement: {one:?}")
                };
                let to = &one.to.endpoint;
                // A target that retires itself is replaced by its own target: the word of a later announcement.
                let is_later = |(number, (target, _)): (&u64, &(Option<Endpoint>, Instant))| {
                    *number > one.handoff.number() && target.as_ref() == Some(to)
                };
                let told =
                    target.as_ref() == Some(to) || target.is_some() && self.handoffs.iter().any(is_later);
                assert!(*to == name() || told, "goes elsewhere: {one:?}");
                assert!(*to == name() || conn.origin.dialled != *to, "goes where it is: {one:?}");
                let peer = conn.origin.peer.map(|peer| peer.ip());
                assert!(one.to.address.is_none() || one.to.address != peer, "goes where it is: {one:?}");
                match one.style {
                    MoveStyle::Beside if instant < *closes_at => {
                        assert!(one.deadline < *closes_at, "no room before the close: {one:?}");
                        let times =
                            self.lineage.get(&one.conn).and_then(|all| all.get(&one.handoff.number()));
                        let proven = one.to.address.is_some() || *to != name();
                        assert!(proven || times.is_none(), "a second guess: {one:?}");
                    }
                    // The server should have closed: only what DNS says anew, or a live target, is worth a move.
                    MoveStyle::Beside => assert!(one.to.address.is_some() || *to != name(), "{one:?}"),
                    MoveStyle::Quiet { hush_at, dial_at } => {
                        let (silent, beyond) =
                            (*closes_at - hush_at, dial_at.checked_duration_since(*closes_at));
                        let most = Duration::from_millis(50);
                        assert!(silent <= most && beyond.is_some_and(|beyond| beyond <= most), "{one:?}");
                        assert!(*closes_at - instant <= Duration::from_millis(250), "{one:?}");
                    }
                    _ => assert_eq!(self.last_failure.get(&one.conn), Some(&MoveError::Full), "{one:?}"),
                }
                self.in_flight.insert(one.conn);
                let quiet = matches!(one.style, MoveStyle::Quiet { .. });
                assert!(quiet || self.in_flight.len() <= self.sizes.workers, "more dials than workers");
            }
            _ => {}
        }
    }

    /// A server is about to close what is left.
    pub(crate) fn on_close(
        &mut self,
        now: u64,
        server: usize,
        seq: u64,
        way_out: bool,
        conns: &BTreeMap<ConnId, Conn>,
    ) {
        let Some(watched) = self.retirements.remove(&seq) else { return };
        let plan = &watched.plan;
        if !plan.sound || watched.disturbed || !(way_out || plan.target_is_good) {
            return;
        }
        for (id, conn) in conns.iter().filter(|(_, conn)| conn.server == server) {
            // What nobody told of, or too late, may be cut; a silent connection loses nothing.
            let Some(known) = watched.known.get(id) else { continue };
            if conn.draining || conn.silent {
                continue;
            }
            // What was made anew arrived where it had been, and what tells of it was lost.
            if self.lossy && self.lineage.contains_key(id) {
                continue;
            }
            let left = now - known;
            let grace = now.saturating_sub(watched.first_heard.unwrap_or(now));
            // Silence begins this much before the close that is believed in.
            let foreseen = watched.believed <= now + 10;
            let can_hush = foreseen && known + TIME_TO_HUSH <= watched.believed;
            let can_move = left > TIME_TO_MOVE + grace / 20 + 300;
            let enough = can_hush || can_move && (foreseen || plan.target_is_good && !plan.full);
            assert!(!enough, "{id} was cut, though known for {left} ms: {conn:?} {watched:?}");
        }
        if !self.lossy {
            self.bound += watched.known.len() as u64;
        }
    }

    pub(crate) fn at_the_end(
        &self,
        engine: &HandoffEngine,
        conns: &BTreeMap<ConnId, Conn>,
        servers: &[Server],
        wanted: usize,
    ) {
        // Those of connections that have gone, too: what carried them goes on.
        assert!(self.relaxed.is_empty(), "still relaxed: {:?}", self.relaxed);
        assert_eq!(engine.handoffs_in_progress(), 0);
        assert_eq!(engine.poll_timeout(), None, "still something to do");
        assert!(engine.metrics().relaxed_now.values().all(|open| *open == 0), "{:?}", engine.metrics());
        assert_eq!(engine.metrics().queue_depth, 0);
        assert!(engine.footprint() <= conns.len() + 64, "{} pieces kept", engine.footprint());
        assert_eq!(conns.len(), wanted, "the pool is not whole again");
        for conn in conns.values() {
            assert!(servers[conn.server].door == Door::Open, "{conn:?}");
            assert!(conn.moving.is_none() && !conn.draining, "{conn:?}");
        }
        let newest: BTreeMap<_, _> = self.slots.iter().map(|(slot, (_, to))| (*slot, to.clone())).collect();
        assert_eq!(newest, self.applied, "slots went elsewhere");
        assert_eq!(self.verifying, 0, "slots were moved and nobody looked");
    }
}

fn led_to(peer: SocketAddr, server: usize) -> bool {
    peer.ip().to_string() == format!("10.0.0.{}", server + 1)
}
