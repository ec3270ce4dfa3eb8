//! The world: servers that come and go, a name that moves late, a pool that dials, and frames that get lost.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
    ops::AddAssign,
    time::{Duration, Instant},
};

use evenkeel_hitless::{
    Action, Config, ConnId, Event, HandoffEngine, Input, Move, MoveError, MoveStyle, Origin, Protocol, Sizes,
};
use evenkeel_protocol::{
    Endpoint, Machine, Notice,
    maintenance::{MalformedNotice, SlotMove, SlotRanges},
};

use crate::promises::{Planned, Promises};

/// The server of a connection that was closed while its move goes on.
const GONE: usize = usize::MAX;
/// How long everything is watched after the last planned event.
const AFTERMATH: u64 = 900_000;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) announcements: u64,
    pub(crate) moved: u64,
    pub(crate) failed_attempts: u64,
    pub(crate) quiet: u64,
    pub(crate) in_place: u64,
    /// Connections whose move the world made certain, so that the engine was bound to it.
    pub(crate) bound: u64,
    pub(crate) troubles: Troubles,
}

/// How often each trouble came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Troubles {
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) repeated: u64,
    pub(crate) malformed: u64,
    pub(crate) overlapping: u64,
    pub(crate) closed_early: u64,
    pub(crate) dns_late: u64,
    pub(crate) target_dead: u64,
    pub(crate) target_mute: u64,
    pub(crate) target_slow: u64,
    pub(crate) target_locked: u64,
    pub(crate) target_loading: u64,
}

impl Troubles {
    pub(crate) fn by_name(self) -> [(&'static str, u64); 12] {
        [
            ("lost", self.lost),
            ("late", self.late),
            ("repeated", self.repeated),
            ("malformed", self.malformed),
            ("overlapping", self.overlapping),
            ("closed early", self.closed_early),
            ("DNS late", self.dns_late),
            ("target dead", self.target_dead),
            ("target mute", self.target_mute),
            ("target slow", self.target_slow),
            ("target refuses the login", self.target_locked),
            ("target loading", self.target_loading),
        ]
    }
}

impl AddAssign for Troubles {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.late += other.late;
        self.repeated += other.repeated;
        self.malformed += other.malformed;
        self.overlapping += other.overlapping;
        self.closed_early += other.closed_early;
        self.dns_late += other.dns_late;
        self.target_dead += other.target_dead;
        self.target_mute += other.target_mute;
        self.target_slow += other.target_slow;
        self.target_locked += other.target_locked;
        self.target_loading += other.target_loading;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.announcements += other.announcements;
        self.moved += other.moved;
        self.failed_attempts += other.failed_attempts;
        self.quiet += other.quiet;
        self.in_place += other.in_place;
        self.bound += other.bound;
        self.troubles += other.troubles;
    }
}

pub(crate) struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In `low..=high`.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next() as usize % of.len()]
    }
}

/// How a server takes new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    /// Nobody listens.
    Closed,
    /// Accepts and never answers.
    Mute,
    /// Another password.
    Locked,
    /// Each new connection takes so long.
    Slow(u64),
    /// Starting up: not ready until then.
    Loading(u64),
}

/// A move that a server has announced.
#[derive(Clone, Debug)]
pub(crate) struct Retirement {
    pub(crate) seq: u64,
    pub(crate) target: Option<Endpoint>,
    pub(crate) closes: u64,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) door: Door,
    pub(crate) retiring: Option<Retirement>,
}

#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) origin: Origin,
    pub(crate) server: usize,
    pub(crate) draining: bool,
    /// Nothing is written to it any more.
    pub(crate) silent: bool,
    pub(crate) moving: Option<Move>,
}

#[derive(Debug)]
enum Ev {
    Announce { server: usize, notice: Notice, twice: bool },
    Close { server: usize, seq: u64 },
    Deliver { conn: ConnId, notice: Notice },
    Dial,
    Dialled { to: usize, dialled: Endpoint },
    DnsAnswer,
    Drained { conn: ConnId },
    Flip { server: usize },
    Malformed,
    MoveDone { conn: ConnId, handoff: u64 },
    Open { server: usize, door: Door },
    Op,
    Ready { conn: ConnId },
}

pub(crate) struct World {
    engine: HandoffEngine,
    origin: Instant,
    pub(crate) now: u64,
    rng: Rng,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Ev>,
    next_event: u64,
    next_conn: u64,
    next_seq: u64,
    pub(crate) servers: Vec<Server>,
    /// Where the name leads.
    name_to: usize,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    redirects: BTreeMap<Option<SocketAddr>, (Endpoint, u64)>,
    dialling: u64,
    wanted: usize,
    /// Connections that all servers together take, if they count.
    most: Option<usize>,
    /// Frames get lost or late.
    lossy: bool,
    ops_left: u64,
    pub(crate) promises: Promises,
    tally: Tally,
    log: Vec<String>,
}

pub(crate) fn name() -> Endpoint {
    Endpoint::new("cache.test", 6379)
}

fn address(server: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, server as u8 + 1], 6379))
}

fn literal(server: usize) -> Endpoint {
    Endpoint::new(&address(server).ip().to_string(), 6379)
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
        let origin = Instant::now();
        let sizes = Sizes { workers: rng.range(1, 8) as usize, queue: 40 };
        let retries = rng.range(1, 4) as u8;
        let settings = Config::new().max_handoff_retries(retries).build(Protocol::Resp3).unwrap();
        let engine = HandoffEngine::new(settings, sizes, seed);
        let wanted = rng.range(1, 12) as usize;
        let servers = (0..4).map(|_| Server { door: Door::Open, retiring: None }).collect();
        let lossy = rng.chance(50);
        let most = rng.chance(15).then(|| wanted + rng.range(0, 2) as usize);
        let ops_left = rng.pick(&[1, 1, 1, 2, 3, 4]);
        let mut world = Self {
            engine,
            origin,
            now: 0,
            rng,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            next_conn: 0,
            next_seq: 0,
            servers,
            name_to: 0,
            conns: BTreeMap::new(),
            redirects: BTreeMap::new(),
            dialling: 0,
            wanted,
            most,
            lossy,
            ops_left,
            promises: Promises::new(sizes, lossy),
            tally: Tally::default(),
            log: Vec::new(),
        };
        for _ in 0..world.wanted {
            world.dialling += 1;
            world.at(0, Ev::Dial);
        }
        world.at(1_000, Ev::Op);
        if world.rng.chance(30) {
            let at = world.rng.range(0, 10_000);
            world.at(at, Ev::Malformed);
        }
        world
    }

    pub(crate) fn run(mut self) -> Tally {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.go()));
        if let Err(panic) = ran {
            let said = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|&said| said.to_owned()))
                .unwrap_or_default();
            let from = self.log.len().saturating_sub(400);
            panic!("{said}\n{}", self.log[from..].join("\n"));
        }
        self.tally
    }

    fn go(&mut self) {
        let mut end = AFTERMATH;
        loop {
            let event = self.queue.peek().map(|Reverse((at, _))| *at);
            let timer = self.engine.poll_timeout().map(|at| self.ms(at));
            let Some(next) = event.into_iter().chain(timer).min() else { break };
            if self.ops_left > 0 {
                end = next + AFTERMATH;
            }
            if next > end {
                break;
            }
            assert!(next >= self.now || timer != Some(next), "the timer lies in the past");
            self.now = self.now.max(next);
            if timer == Some(next) && event.is_none_or(|event| next <= event) {
                self.engine.handle_timeout(self.instant(self.now));
                self.drain();
                let again = self.engine.poll_timeout().map(|at| self.ms(at));
                assert!(again.is_none_or(|again| again > self.now), "the timer does not move on");
            } else if let Some(Reverse((_, id))) = self.queue.pop()
                && let Some(event) = self.events.remove(&id)
            {
                self.happen(event);
            }
        }
        self.tally.bound = self.promises.bound;
        self.promises.at_the_end(&self.engine, &self.conns, &self.servers, self.wanted);
        assert!(self.redirects.values().all(|(_, until)| *until <= self.now), "redirects left");
    }

    fn instant(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    /// Rounded up, so that a timer is never fired too early.
    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos().div_ceil(1_000_000)).unwrap()
    }

    fn at(&mut self, at: u64, event: Ev) {
        self.next_event += 1;
        self.queue.push(Reverse((at, self.next_event)));
        self.events.insert(self.next_event, event);
    }

    fn after(&mut self, low: u64, high: u64, event: Ev) {
        let at = self.now + self.rng.range(low, high);
        self.at(at, event);
    }

    fn input(&mut self, input: Input) {
        self.log.push(format!("{:>7} in  {input:?}", self.now));
        self.engine.handle_input(self.instant(self.now), input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            self.log.push(format!("{:>7} out {action:?}", self.now));
            self.promises.on_action(self.now, self.instant(self.now), &action, &self.conns);
            match action {
                Action::AskDns { .. } => self.look_up(),
                Action::RedirectDials { peer, to, until, .. } => {
                    let until = self.ms(until);
                    self.redirects.insert(peer, (to, until));
                }
                Action::EndRedirect { peer, .. } => {
                    assert!(self.redirects.remove(&peer).is_some(), "no such redirect");
                }
                Action::Move(one) => self.begin(one),
                Action::Report(Event::ConnMoved { .. }) => self.tally.moved += 1,
                Action::Report(Event::MoveFailed { .. }) => self.tally.failed_attempts += 1,
                _ => {}
            }
        }
    }

    fn look_up(&mut self) {
        if self.lossy && self.rng.chance(20) {
            return;
        }
        let late = if self.lossy && self.rng.chance(10) { 1_500 } else { 50 };
        self.tally.troubles.dns_late += u64::from(late > 50);
        self.after(1, late, Ev::DnsAnswer);
    }

    /// The pool starts to move a connection.
    fn begin(&mut self, one: Move) {
        let (conn, handoff) = (one.conn, one.handoff.number());
        let from = match one.style {
            MoveStyle::Quiet { dial_at, .. } => {
                self.tally.quiet += 1;
                self.ms(dial_at)
            }
            MoveStyle::InPlace => {
                self.tally.in_place += 1;
                self.now
            }
            _ => self.now,
        };
        let deadline = self.ms(one.deadline);
        let slow = match self.servers[self.reach(&one.to.endpoint, one.to.address)].door {
            Door::Slow(time) => time,
            _ => 0,
        };
        let silent = one.style != MoveStyle::Beside;
        if let Some(known) = self.conns.get_mut(&conn) {
            known.silent = silent;
            known.moving = Some(one);
        }
        let at = (from + slow + self.rng.range(1, 30)).min(deadline).max(self.now);
        self.at(at, Ev::MoveDone { conn, handoff });
    }

    /// The server that a dial of `endpoint` reaches now.
    fn reach(&self, endpoint: &Endpoint, at: Option<std::net::IpAddr>) -> usize {
        let by_ip = |ip: std::net::IpAddr| (0..self.servers.len()).find(|server| address(*server).ip() == ip);
        at.or_else(|| endpoint.host().parse().ok()).and_then(by_ip).unwrap_or(self.name_to)
    }

    fn move_done(&mut self, conn: ConnId, handoff: u64) {
        let Some(known) = self.conns.get(&conn) else { return };
        let Some(one) = known.moving.clone().filter(|one| one.handoff.number() == handoff) else { return };
        let deadline = self.ms(one.deadline);
        let to = self.reach(&one.to.endpoint, one.to.address);
        let others = self.conns.len() - usize::from(one.style == MoveStyle::InPlace);
        let failure = match self.servers[to].door {
            _ if self.now >= deadline => Some(MoveError::Deadline),
            Door::Closed => Some(MoveError::Unreachable),
            Door::Mute => {
                // A dial is given 2 s.
                let at = (self.now + 2_000).min(deadline);
                self.at(at, Ev::MoveDone { conn, handoff });
                return;
            }
            Door::Locked => Some(MoveError::Auth),
            Door::Loading(until) if self.now < until => Some(MoveError::NotReady),
            _ if self.most.is_some_and(|most| others >= most) => Some(MoveError::Full),
            _ => None,
        };
        if let Some(known) = self.conns.get_mut(&conn) {
            known.moving = None;
            known.silent &= failure.is_none();
        }
        if let Some(cause) = failure {
            self.input(Input::MoveFailed { conn, cause });
            if self.conns.get(&conn).is_some_and(|known| known.server == GONE) {
                self.lose(conn);
            }
            return;
        }
        let successor = self.connect(to, one.to.endpoint);
        self.tell_newcomer(successor.conn, true);
        if let Some(old) = self.conns.get_mut(&conn) {
            old.draining = true;
        }
        self.input(Input::Switched { conn, successor });
        self.after(0, 40, Ev::Drained { conn });
    }

    fn connect(&mut self, server: usize, dialled: Endpoint) -> Origin {
        self.next_conn += 1;
        let origin =
            Origin { conn: ConnId(self.next_conn), endpoint: name(), dialled, peer: Some(address(server)) };
        let (draining, silent, moving) = (false, false, None);
        self.conns.insert(origin.conn, Conn { origin: origin.clone(), server, draining, silent, moving });
        origin
    }

    /// A server that retires tells each new connection, with the time that is left.
    fn tell_newcomer(&mut self, conn: ConnId, during_handshake: bool) {
        let Some(known) = self.conns.get(&conn) else { return };
        let origin = known.origin.clone();
        let Some(retirement) = self.servers[known.server].retiring.clone() else { return };
        if self.lossy && self.rng.chance(20) {
            return;
        }
        let left = retirement.closes.saturating_sub(self.now).div_ceil(1_000);
        let notice = Notice::Moving {
            seq: Some(retirement.seq),
            grace: Some(Duration::from_secs(left)),
            target: retirement.target,
        };
        self.hear(origin, during_handshake, notice);
    }

    fn hear(&mut self, origin: Origin, during_handshake: bool, notice: Notice) {
        self.tally.announcements += 1;
        self.promises.on_heard(self.now, &origin, &notice, &self.servers, &self.conns);
        self.input(Input::Notice { origin, during_handshake, received_at: None, notice });
    }

    fn happen(&mut self, event: Ev) {
        match event {
            Ev::Op => self.operate(),
            Ev::Announce { server, notice, twice } => {
                let listeners: Vec<ConnId> =
                    self.conns.iter().filter(|(_, c)| c.server == server).map(|(id, _)| *id).collect();
                for conn in listeners {
                    if self.lossy && self.rng.chance(25) {
                        self.tally.troubles.lost += 1;
                        continue;
                    }
                    let late = if self.lossy { 200 } else { 3 };
                    self.tally.troubles.late += u64::from(self.lossy);
                    self.after(0, late, Ev::Deliver { conn, notice: notice.clone() });
                    if twice {
                        self.tally.troubles.repeated += 1;
                        self.after(0, 1_000, Ev::Deliver { conn, notice: notice.clone() });
                    }
                }
            }
            Ev::Deliver { conn, notice } => {
                if let Some(known) = self.conns.get(&conn) {
                    let origin = known.origin.clone();
                    self.hear(origin, false, notice);
                }
            }
            Ev::Malformed => {
                if let Some(known) = self.conns.values().next() {
                    let origin = known.origin.clone();
                    self.tally.troubles.malformed += 1;
                    let error = MalformedNotice { name: "MOVING", what: "time is no number" };
                    self.input(Input::Malformed { origin, error });
                }
            }
            Ev::Flip { server } => {
                if self.servers[self.name_to].door != Door::Open {
                    self.promises.on_name_astray();
                }
                self.name_to = server;
            }
            Ev::Open { server, door } => {
                if self.name_to == server && self.servers[server].door != Door::Open {
                    // The name led nowhere until now.
                    self.promises.on_name_astray();
                }
                self.servers[server].door = door;
            }
            Ev::Close { server, seq } => self.close(server, seq),
            Ev::DnsAnswer => {
                let addresses = vec![address(self.name_to).ip()];
                self.input(Input::DnsAnswer { name: "cache.test".into(), addresses });
            }
            Ev::Dial => self.dial(),
            Ev::Dialled { to, dialled } => {
                let full = self.most.is_some_and(|most| self.conns.len() >= most);
                let ready = match self.servers[to].door {
                    Door::Open | Door::Slow(_) => true,
                    Door::Loading(until) => until <= self.now,
                    Door::Closed | Door::Mute | Door::Locked => false,
                };
                if ready && !full {
                    let origin = self.connect(to, dialled);
                    self.tell_newcomer(origin.conn, true);
                    self.after(0, 3, Ev::Ready { conn: origin.conn });
                } else {
                    self.input(Input::DialFailed { endpoint: name() });
                    self.after(50, 500, Ev::Dial);
                }
            }
            Ev::Ready { conn } => {
                self.dialling -= 1;
                if let Some(known) = self.conns.get(&conn) {
                    let origin = known.origin.clone();
                    self.promises.on_opened(self.now, &origin, &self.servers);
                    self.input(Input::Opened { origin });
                }
            }
            Ev::MoveDone { conn, handoff } => self.move_done(conn, handoff),
            Ev::Drained { conn } => {
                if self.conns.remove(&conn).is_some() {
                    self.input(Input::Closed { conn });
                }
            }
        }
    }

    /// An ordinary dial: the name, then the redirect of the address that it leads to.
    fn dial(&mut self) {
        let redirect = self.redirects.get(&Some(address(self.name_to)));
        let dialled = match redirect {
            Some((to, until)) if self.now < *until => to.clone(),
            _ => name(),
        };
        let to = self.reach(&dialled, None);
        self.after(1, 20, Ev::Dialled { to, dialled });
    }

    /// A server closes what is left, and takes nobody new for a while.
    fn close(&mut self, server: usize, seq: u64) {
        if self.servers[server].retiring.as_ref().is_none_or(|retirement| retirement.seq != seq) {
            return;
        }
        // An older plan may have turned the name to a server that has closed meanwhile: there is no way out.
        let way_out = self.name_to != server && self.servers[self.name_to].door == Door::Open;
        self.promises.on_close(self.now, server, seq, way_out, &self.conns);
        self.servers[server].retiring = None;
        self.servers[server].door = Door::Closed;
        self.promises.on_door_shut(&literal(server));
        let back = self.now + self.rng.range(5_000, 60_000);
        self.at(back, Ev::Open { server, door: Door::Open });
        let cut: Vec<ConnId> =
            self.conns.iter().filter(|(_, c)| c.server == server).map(|(id, _)| *id).collect();
        for conn in cut {
            let Some(known) = self.conns.get_mut(&conn) else { continue };
            match &known.moving {
                // It has fallen silent and is dialled anew by its move.
                Some(_) if known.silent => known.server = GONE,
                Some(_) => {
                    known.moving = None;
                    self.input(Input::MoveFailed { conn, cause: MoveError::Closed });
                    self.lose(conn);
                }
                None => self.lose(conn),
            }
        }
    }

    /// A connection is gone; the pool dials another one, unless it has one already.
    fn lose(&mut self, conn: ConnId) {
        let Some(known) = self.conns.remove(&conn) else { return };
        self.input(Input::Closed { conn });
        if !known.draining {
            self.dialling += 1;
            self.after(1, 100, Ev::Dial);
        }
    }

    /// One piece of maintenance, and the next one some time later.
    fn operate(&mut self) {
        self.ops_left -= 1;
        if self.ops_left > 0 {
            // Now and then while what came before is still under way.
            let most = if self.rng.chance(30) { 2_000 } else { 30_000 };
            self.after(100, most, Ev::Op);
        }
        // What others behind the name do may come at any time, too.
        let server = if self.rng.chance(25) { self.rng.range(0, 3) as usize } else { self.name_to };
        match self.rng.range(0, 9) {
            0 => self.pause(server, true),
            1 => self.pause(server, false),
            2 => self.move_slots(server),
            _ => self.retire(server),
        }
    }

    fn seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += self.rng.range(1, 3);
        seq
    }

    fn pause(&mut self, server: usize, failover: bool) {
        let shards = vec![self.rng.range(1, 3).to_string()];
        let within = Some(Duration::from_secs(self.rng.range(0, 2)));
        let (start, end) = (Some(self.seq()), Some(self.seq()));
        let (start, end) = if failover {
            (
                Notice::FailingOver { seq: start, within, shards: shards.clone() },
                Notice::FailedOver { seq: end, shards },
            )
        } else {
            (
                Notice::Migrating { seq: start, within, shards: shards.clone() },
                Notice::Migrated { seq: end, shards },
            )
        };
        let twice = self.rng.chance(30);
        self.at(self.now, Ev::Announce { server, notice: start, twice });
        self.after(500, 20_000, Ev::Announce { server, notice: end, twice });
    }

    fn move_slots(&mut self, server: usize) {
        let first = self.rng.range(0, 16_000);
        let slots = SlotRanges::parse(&format!("{first}-{}", first + self.rng.range(0, 300))).unwrap();
        let (start, end) = (Some(self.seq()), Some(self.seq()));
        let twice = self.rng.chance(50);
        let notice = Notice::SlotsMigrating { seq: start, slots: slots.clone() };
        self.at(self.now, Ev::Announce { server, notice, twice });
        let target = literal(self.rng.range(0, 3) as usize);
        let moves = vec![SlotMove::new(None, target, slots)];
        let notice = Notice::SlotsMigrated { seq: end, moves };
        self.after(100, 3_000, Ev::Announce { server, notice, twice });
    }

    fn retire(&mut self, server: usize) {
        if self.servers[server].retiring.is_some() {
            return;
        }
        let heirs: Vec<usize> = (0..self.servers.len())
            .filter(|heir| *heir != server && self.servers[*heir].retiring.is_none())
            .filter(|heir| self.servers[*heir].door == Door::Open)
            .collect();
        if heirs.is_empty() {
            return;
        }
        let heir = self.rng.pick(&heirs);
        let grace = self.rng.pick(&[1, 2, 3, 5, 15]);
        let (target, mut sound) = match self.rng.range(0, 9) {
            0..=3 => (Some(literal(heir)), true),
            4..=6 => (None, true),
            _ => {
                // A target that is of no use, at least at first; the name leads to a good one all the same.
                let others: Vec<usize> = heirs.iter().copied().filter(|other| *other != heir).collect();
                let Some(bad) = others.first().copied() else { return };
                let loading = self.now + self.rng.range(0, grace * 1_000);
                let slow = Door::Slow(self.rng.range(100, 1_500));
                let doors = [Door::Closed, Door::Mute, Door::Locked, Door::Loading(loading), slow];
                let door = self.rng.pick(&doors);
                let troubles = &mut self.tally.troubles;
                match door {
                    Door::Closed => troubles.target_dead += 1,
                    Door::Mute => troubles.target_mute += 1,
                    Door::Slow(_) => troubles.target_slow += 1,
                    Door::Locked => troubles.target_locked += 1,
                    Door::Loading(_) => troubles.target_loading += 1,
                    Door::Open => {}
                }
                self.servers[bad].door = door;
                self.promises.on_door_shut(&literal(bad));
                self.at(self.now + grace * 1_000 + 3_000, Ev::Open { server: bad, door: Door::Open });
                (Some(literal(bad)), true)
            }
        };
        let seq = self.seq();
        let closes = self.now + grace * 1_000;
        let early = self.rng.chance(10);
        self.tally.troubles.closed_early += u64::from(early);
        let others = self.servers.iter().filter(|other| other.retiring.is_some()).count();
        self.tally.troubles.overlapping += u64::from(others > 0);
        let really = if early {
            self.now + self.rng.range(1, grace * 1_000 - 1)
        } else {
            closes + self.rng.pick(&[0, 0, 50, 700, 4_000])
        };
        let flip = self.rng.pick(&[30, 40, 50, 70, 90, 100, 100, 130]);
        let flip = self.now + grace * 10 * flip;
        // A name that leads nowhere when the server closes is nobody's fault but its owner's.
        sound &= flip <= really && !early;
        let target_is_good = target.as_ref() == Some(&literal(heir));
        let told = target.clone();
        let full = self.most.is_some();
        let crowded = full && really > closes;
        self.promises.on_retirement(seq, Planned { server, sound, told, target_is_good, full, crowded });
        self.servers[server].retiring = Some(Retirement { seq, target: target.clone(), closes });
        let notice = Notice::Moving { seq: Some(seq), grace: Some(Duration::from_secs(grace)), target };
        let twice = self.rng.chance(30);
        self.at(self.now, Ev::Announce { server, notice, twice });
        self.at(flip, Ev::Flip { server: heir });
        self.at(really, Ev::Close { server, seq });
    }
}
